//! Which commands a walsender knows, and how it answers them, by release.

use super::ServerVersion;

impl ServerVersion {
    /// Whether replication commands take a parenthesised option list. BASE_BACKUP takes nothing else then.
    pub fn has_option_lists(self) -> bool {
        self >= Self::V15
    }

    /// Whether a walsender that is connected to a database runs SQL. Before 10, what is no replication command is a
    /// syntax error.
    pub fn walsender_runs_sql(self) -> bool {
        self >= Self::V10
    }

    /// Whether the walsender knows SHOW.
    pub fn has_show(self) -> bool {
        self >= Self::V10
    }

    /// Whether there are replication slots.
    pub fn has_slots(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether a slot can be temporary.
    pub fn has_temporary_slots(self) -> bool {
        self >= Self::V10
    }

    /// Whether the walsender knows READ_REPLICATION_SLOT.
    pub fn has_read_replication_slot(self) -> bool {
        self >= Self::V15
    }

    /// Whether the walsender knows ALTER_REPLICATION_SLOT.
    pub fn has_alter_replication_slot(self) -> bool {
        self >= Self::V17
    }

    /// Whether there is the output plugin `pgoutput`.
    pub fn has_pgoutput(self) -> bool {
        self >= Self::V10
    }

    /// Whether a standby decodes.
    pub fn decodes_on_standby(self) -> bool {
        self >= Self::V16
    }

    /// Whether an exported snapshot is named by process and local transaction (`00000002-00000003-1`), not by transaction.
    pub fn names_snapshots_by_process(self) -> bool {
        self >= Self::V10
    }

    /// Whether a logical slot can be synchronised to standbys: `FAILOVER`.
    pub fn has_failover_slots(self) -> bool {
        self >= Self::V17
    }

    /// Whether ALTER_REPLICATION_SLOT knows `TWO_PHASE`.
    pub fn alters_two_phase(self) -> bool {
        self >= Self::V18
    }

    /// Whether the walsender knows TIMELINE_HISTORY, and START_REPLICATION a TIMELINE.
    pub fn has_timeline_history(self) -> bool {
        self >= Self::V9_3
    }

    /// Whether IDENTIFY_SYSTEM has a fourth column, `dbname`.
    pub fn identifies_database(self) -> bool {
        self >= Self::V9_4
    }

    /// The word in CommandComplete for a replication command: its own name since 13, `SELECT` before.
    pub fn command_tag(self, command: &'static str) -> &'static str {
        if self >= Self::V13 { command } else { "SELECT" }
    }

    /// Whether acquiring an invalidated slot is an error of its own, instead of that of the WAL it lost.
    pub fn refuses_invalidated_slots(self) -> bool {
        self >= Self::V18
    }

    /// Whether result sets of replication commands are described with the true lengths of their types and without type
    /// modifiers, and the timeline of IDENTIFY_SYSTEM is an int8 (16).
    pub fn describes_rows_precisely(self) -> bool {
        self >= Self::V16
    }

    /// Whether the content column of TIMELINE_HISTORY is text; bytea before 14.
    pub fn history_is_text(self) -> bool {
        self >= Self::V14
    }

    /// Whether DROP_REPLICATION_SLOT sends a CommandComplete of its own before the one of every command (up to 12).
    pub fn completes_drop_slot_twice(self) -> bool {
        self < Self::V13
    }
}
