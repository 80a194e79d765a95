//! CREATE_REPLICATION_SLOT.

use backstop_protocol::command::{CreateSlot, SlotKind, SlotOptions};

use super::output::{TEXT, column, value};
use super::{Session, Stop};

impl Session {
    /// Creates a slot. A physical one's consistent point is 0/0 even when it reserves WAL.
    pub(super) async fn create_replication_slot(&mut self, create: &CreateSlot) -> Result<(), Stop> {
        let options = SlotOptions::from_command(create, self.version)?;
        if let SlotKind::Logical { plugin } = &create.kind {
            return self.create_logical_slot(create, plugin, options).await;
        }
        let cluster = &self.shared.cluster;
        cluster.create_slot(&create.slot, create.temporary, options.reserve_wal, self.seat.pid)?;
        let names = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];
        let columns = names.map(|name| column(name, TEXT, -1)).to_vec();
        self.rows(columns, vec![vec![Some(value(&create.slot)), Some(value("0/0")), None, None]]).await
    }
}
