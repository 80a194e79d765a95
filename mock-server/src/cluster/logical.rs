//! Logical slots as a catalog: they are created, listed, altered and dropped. Nothing is decoded from them.

use backstop_protocol::command::AlterSlotOptions;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;

use super::Cluster;

/// What makes a slot logical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalSlot {
    /// The output plugin.
    pub plugin: String,
    /// The database whose changes it would decode.
    pub database: String,
    /// Whether prepared transactions are decoded when they are prepared (since 14).
    pub two_phase: bool,
    /// Whether it is synchronised to standbys (since 17).
    pub failover: bool,
    /// `confirmed_flush_lsn`: first the position from which everything can be decoded.
    pub confirmed_flush: Lsn,
}

impl LogicalSlot {
    /// A slot that has not been created yet.
    pub fn new(plugin: &str, database: &str) -> Self {
        let (plugin, database) = (plugin.to_owned(), database.to_owned());
        Self { plugin, database, two_phase: false, failover: false, confirmed_flush: Lsn::INVALID }
    }
}

impl Cluster {
    /// Creates a logical slot for the session `pid`, and returns its consistent point: as no transaction runs, the end of the
    /// RUNNING_XACTS record that creating it writes. A standby writes nothing; everything can be decoded from where it is.
    pub fn create_logical_slot(
        &self,
        name: &str,
        temporary: bool,
        pid: i32,
        slot: LogicalSlot,
    ) -> Result<Lsn, Diagnostic> {
        if slot.failover && temporary {
            return Err(no_failover());
        }
        let mut state = self.inner.lock();
        let reserved = state.wal.flush_position();
        state.slots.create(name, temporary, Some(reserved), pid)?;
        let consistent = if state.in_recovery { reserved } else { state.wal.running_transactions() };
        state.slots.make_logical(name, LogicalSlot { confirmed_flush: consistent, ..slot });
        self.inner.publish(&state);
        Ok(consistent)
    }

    /// `ReplicationSlotAlter`.
    pub fn alter_slot(&self, name: &str, pid: i32, change: AlterSlotOptions) -> Result<(), Diagnostic> {
        let mut state = self.inner.lock();
        let slot = state.slots.acquire(name, pid)?;
        let altered = match slot.logical {
            None => {
                let message = "cannot use ALTER_REPLICATION_SLOT with a physical replication slot";
                Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message))
            }
            Some(_) if change.failover == Some(true) && slot.temporary => Err(no_failover().raised_in("Alter")),
            Some(logical) => {
                let failover = change.failover.unwrap_or(logical.failover);
                let two_phase = change.two_phase.unwrap_or(logical.two_phase);
                state.slots.make_logical(name, LogicalSlot { two_phase, failover, ..logical });
                Ok(())
            }
        };
        state.slots.release(name, pid);
        drop(state);
        self.inner.slot_freed.notify_waiters();
        altered
    }
}

fn no_failover() -> Diagnostic {
    let message = "cannot enable failover for a temporary replication slot";
    Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message)
}
