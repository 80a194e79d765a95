//! ALTER_REPLICATION_SLOT.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::command::{AlterSlotOptions, CommandOption};

use super::{Session, Stop};

impl Session {
    /// Changes a logical slot. There are only physical ones here, which cannot be changed.
    pub(super) fn alter_replication_slot(&mut self, slot: &str, options: &[CommandOption]) -> Result<(), Stop> {
        AlterSlotOptions::from_options(options, self.version)?;
        self.shared.cluster.acquire_slot(slot, self.seat.pid)?;
        self.shared.cluster.release_slot(slot, self.seat.pid);
        let message = "cannot use ALTER_REPLICATION_SLOT with a physical replication slot";
        Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into())
    }
}
