//! The view `pg_replication_slots`.

use backstop_protocol::catalog::slot_columns;

use super::Session;
use super::value::Value;
use crate::cluster::SlotState;

impl Session {
    /// Its rows.
    pub(super) fn slot_rows(&self) -> Vec<Vec<Value>> {
        let columns = slot_columns(self.version);
        let slots = self.shared.cluster.slots();
        slots.iter().map(|slot| columns.iter().map(|(name, _)| self.slot_column(slot, name)).collect()).collect()
    }

    /// A column of a slot. Those that are about decoding are NULL for a physical one.
    fn slot_column(&self, slot: &SlotState, column: &str) -> Value {
        if let Some(logical) = &slot.logical {
            match column {
                "plugin" => return Value::Text(logical.plugin.clone()),
                "slot_type" => return Value::Text("logical".to_owned()),
                "datoid" => return Value::Int(self.database_oid(&logical.database).into()),
                "database" => return Value::Text(logical.database.clone()),
                "confirmed_flush_lsn" => return Value::Lsn(logical.confirmed_flush),
                "two_phase" => return Value::Bool(logical.two_phase),
                "conflicting" => return Value::Bool(false),
                "failover" => return Value::Bool(logical.failover),
                _ => {}
            }
        }
        let reason = slot.invalidation_reason.map(|reason| Value::Text(reason.name().to_owned()));
        match column {
            "slot_name" => Value::Text(slot.name.clone()),
            "slot_type" => Value::Text("physical".to_owned()),
            "temporary" => Value::Bool(slot.temporary),
            "active" => Value::Bool(slot.active_pid.is_some()),
            "active_pid" => slot.active_pid.map_or(Value::Null, |pid| Value::Int(pid.into())),
            "restart_lsn" => slot.restart_lsn.map_or(Value::Null, Value::Lsn),
            "wal_status" => {
                let status = self.shared.cluster.wal_status(slot);
                status.map_or(Value::Null, |status| Value::Text(status.name().to_owned()))
            }
            "invalidation_reason" => reason.unwrap_or(Value::Null),
            "two_phase" | "failover" | "synced" => Value::Bool(false),
            // Slots come to lie idle when the server starts: that is when its life began.
            "inactive_since" if slot.active_pid.is_none() => Value::Time(self.shared.cluster.epoch()),
            _ => Value::Null,
        }
    }

    /// The OID of one of the two databases that take connections.
    fn database_oid(&self, database: &str) -> u32 {
        let [_, postgres] = self.version.initial_databases();
        if database == "postgres" { postgres } else { 1 }
    }
}
