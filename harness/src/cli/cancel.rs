//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use tokio::sync::watch;

use super::CANCELLED;

/// Becomes true when Ctrl-C was pressed. Must be called within a runtime.
pub(super) fn on_ctrl_c() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler Ctrl-C does what it always does. The sender stays, so that nobody takes its end for a signal.
            sender.closed().await;
            return;
        }
        let _ = sender.send(true);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(i32::from(CANCELLED));
        }
    });
    receiver
}
