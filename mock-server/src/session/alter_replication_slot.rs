//! ALTER_REPLICATION_SLOT.

use backstop_protocol::command::{AlterSlotOptions, CommandOption};

use super::{Session, Stop, refused_option};

impl Session {
    /// Changes a logical slot.
    pub(super) fn alter_replication_slot(&mut self, slot: &str, options: &[CommandOption]) -> Result<(), Stop> {
        let change = AlterSlotOptions::from_options(options, self.version)
            .map_err(|error| refused_option(error).raised_in("Alter"))?;
        Ok(self.shared.cluster.alter_slot(slot, self.seat.pid, change)?)
    }
}
