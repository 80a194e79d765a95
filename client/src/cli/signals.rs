//! Signals that end a tool in good order.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::ClientError;

/// The signals that stop what makes something, and what they are called.
const STOP: [(SignalKind, &str); 3] =
    [(SignalKind::interrupt(), "interrupt"), (SignalKind::terminate(), "terminate"), (SignalKind::hangup(), "hangup")];

/// Listens to the signals that stop a tool. What it was started to ignore (`nohup`, or a shell that runs it in the background) it goes
/// on to ignore, as PostgreSQL's tools do.
pub(super) struct Stop(Vec<(Signal, &'static str)>);

impl Stop {
    /// # Errors
    /// The system lets nobody listen.
    pub(super) fn listen() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let heard = STOP.into_iter().filter(|(kind, _)| !is_ignored(&status, kind.as_raw_value()));
        heard.map(|(kind, name)| Ok((signal(kind)?, name))).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the first of them, and returns its name.
    pub(super) async fn heard(&mut self) -> &'static str {
        poll_fn(|context| {
            let ready =
                self.0.iter_mut().find_map(|(signal, name)| signal.poll_recv(context).is_ready().then_some(*name));
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Whether a signal is in the mask of ignored ones in `/proc/PID/status`.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(number - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

/// Does `work` on files, and sets `cancel` on the first signal: whoever works looks at it, and removes what was made.
pub(super) fn until_signal<T>(
    cancel: &Arc<AtomicBool>,
    work: impl FnOnce() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let refused = |error| ClientError::Refused(format!("could not set up signal handlers: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(refused)?;
    let mut stop = {
        let _context = runtime.enter();
        Stop::listen().map_err(refused)?
    };
    let cancel = Arc::clone(cancel);
    runtime.spawn(async move {
        stop.heard().await;
        cancel.store(true, Ordering::Relaxed);
    });
    let result = work();
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_read_off_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, 1) && is_ignored(status, 13));
        assert!(!is_ignored(status, 2) && !is_ignored(status, 15));
        assert!(!is_ignored("", 1) && !is_ignored(status, 0) && !is_ignored(status, 99));
    }
}
