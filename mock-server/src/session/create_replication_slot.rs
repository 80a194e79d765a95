//! CREATE_REPLICATION_SLOT.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::command::{CreateSlot, SlotKind, SlotOptions};

use super::output::{TEXT, column, value};
use super::{Session, Stop};

impl Session {
    /// Creates a physical slot. Its consistent point is 0/0 even when it reserves WAL.
    pub(super) async fn create_replication_slot(&mut self, create: &CreateSlot) -> Result<(), Stop> {
        let options = SlotOptions::from_command(create, self.version)?;
        if let SlotKind::Logical { .. } = create.kind {
            return Err(self.no_logical_decoding().into());
        }
        let cluster = &self.shared.cluster;
        cluster.create_slot(&create.slot, create.temporary, options.reserve_wal, self.seat.pid)?;
        let names = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];
        let columns = names.map(|name| column(name, TEXT, -1)).to_vec();
        self.rows(columns, vec![vec![Some(value(&create.slot)), Some(value("0/0")), None, None]]).await
    }

    /// What a server says of logical decoding whose `wal_level` is `replica`.
    pub(super) fn no_logical_decoding(&self) -> Diagnostic {
        let (name, level) =
            if self.version.quotes_settings() { ("\"wal_level\"", "\"logical\"") } else { ("wal_level", "logical") };
        let message = format!("logical decoding requires {name} >= {level}");
        Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    }
}
