//! Running base backups.

use std::sync::Arc;

use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use super::Inner;

/// A base backup between its start and its end. It counts as running until it is stopped or dropped, which aborts it.
#[derive(Debug)]
pub struct RunningBackup {
    /// The redo point of its checkpoint: where replay of the copy begins.
    pub start: Lsn,
    /// The timeline of the start position.
    pub timeline: TimelineId,
    /// Its checkpoint record.
    pub checkpoint: Lsn,
    /// The content of `backup_label`.
    pub label_text: String,
    /// Unix seconds.
    pub started_at: i64,
    pub(super) in_recovery: bool,
    pub(super) inner: Arc<Inner>,
}

impl RunningBackup {
    /// What the walsender checks before each file: a standby that is promoted cannot finish a backup it began in recovery.
    pub fn check(&self) -> Result<(), Diagnostic> {
        if self.in_recovery && !self.inner.lock().in_recovery { Err(promoted_meanwhile()) } else { Ok(()) }
    }
}

impl Drop for RunningBackup {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.running_backups = state.running_backups.saturating_sub(1);
    }
}

/// What a finished backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// WAL up to here must be replayed.
    pub end: Lsn,
    /// The timeline of the end position.
    pub timeline: TimelineId,
}

pub(super) fn promoted_meanwhile() -> Diagnostic {
    let hint =
        "This means that the backup being taken is corrupt and should not be used. Try taking another online backup.";
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "the standby was promoted during online backup")
        .with_hint(hint)
}
