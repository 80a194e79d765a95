//! DROP_REPLICATION_SLOT.

use super::{Session, Stop, canceled};

impl Session {
    /// Drops a slot, waiting for the session that holds it if asked to.
    pub(super) async fn drop_replication_slot(&mut self, slot: &str, wait: bool) -> Result<(), Stop> {
        self.flush().await?;
        let seat = self.seat.clone();
        tokio::select! {
            biased;
            dropped = self.shared.cluster.drop_slot(slot, seat.pid, wait) => dropped?,
            () = seat.cancel.notified() => return Err(canceled()),
        }
        if self.version.completes_drop_slot_twice() {
            self.complete("DROP_REPLICATION_SLOT").await?;
        }
        Ok(())
    }
}
