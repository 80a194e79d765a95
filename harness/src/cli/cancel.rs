//! Ctrl-C, or SIGTERM: the first asks for an orderly end, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::CANCELLED;

/// Becomes true when Ctrl-C was pressed, or somebody such as `timeout` or a CI server asked for an end. Must be called within a
/// runtime.
pub(super) fn on_request() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    // Without a handler a signal does what it always does.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let mut terminate = signal(SignalKind::terminate()).ok();
    tokio::spawn(async move {
        tokio::select! {
            () = received(&mut interrupt) => {}
            () = received(&mut terminate) => {}
        }
        let _ = sender.send(true);
        tokio::select! {
            () = received(&mut interrupt) => {}
            () = received(&mut terminate) => {}
        }
        std::process::exit(i32::from(CANCELLED));
    });
    receiver
}

/// Resolves at the next signal, and never if there is no handler.
async fn received(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}
