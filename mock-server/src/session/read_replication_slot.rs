//! READ_REPLICATION_SLOT.

use backstop_protocol::backend::{Diagnostic, SqlState};

use super::output::{INT8, TEXT, column, value};
use super::{Session, Stop};

impl Session {
    /// The position that a slot keeps, and its timeline. A slot that does not exist is a row of NULLs.
    pub(super) async fn read_replication_slot(&mut self, slot: &str) -> Result<(), Stop> {
        let columns =
            vec![column("slot_type", TEXT, -1), column("restart_lsn", TEXT, -1), column("restart_tli", INT8, -1)];
        let cluster = &self.shared.cluster;
        let row = match cluster.read_slot(slot) {
            None => vec![None, None, None],
            Some(slot) if slot.logical.is_some() => {
                let message = "cannot use READ_REPLICATION_SLOT with a logical replication slot";
                return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
            }
            Some(slot) => {
                // The position may lie on an ancestor of the present timeline.
                let timeline = slot.restart_lsn.map(|position| {
                    let current = cluster.timeline();
                    let history = cluster.history(current).unwrap_or_default();
                    let switch = history.switches.iter().find(|switch| position < switch.at);
                    switch.map_or(current, |switch| switch.parent)
                });
                vec![Some(value("physical")), slot.restart_lsn.map(value), timeline.map(value)]
            }
        };
        self.rows(columns, vec![row]).await
    }
}
