//! Running base backups.

use std::sync::Arc;

use backstop_protocol::base_backup::label::{BackupLabel, LabelSource, MAX_LABEL};
use backstop_protocol::base_backup::manifest::format_start_time;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::WalFileName;

use super::{Cluster, Inner};

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
    in_recovery: bool,
    /// Whether its end has been written.
    stopped: bool,
    inner: Arc<Inner>,
}

/// What a finished backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// WAL up to here must be replayed.
    pub end: Lsn,
    /// The timeline of the end position.
    pub timeline: TimelineId,
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
        if !self.stopped && !self.in_recovery {
            state.wal.backup_abort();
        }
    }
}

fn promoted_meanwhile() -> Diagnostic {
    let message = "the standby was promoted during online backup";
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint(
        "This means that the backup being taken is corrupt and should not be used. Try taking another online backup.",
    )
}

impl Cluster {
    /// Begins a base backup (`do_pg_backup_start`): a WAL switch and a checkpoint on a primary, the latest restartpoint on
    /// a standby. Nothing needs to be written for a checkpoint, so that `fast` and spread ones are the same.
    pub fn start_backup(&self, label: &str, _fast: bool) -> Result<RunningBackup, Diagnostic> {
        if label.len() > MAX_LABEL {
            let message = format!("backup label too long (max {MAX_LABEL} bytes)");
            return Err(Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        let mut state = self.inner.lock();
        let in_recovery = state.in_recovery;
        let (start, checkpoint) = if in_recovery {
            let restartpoint = state.wal.checkpoint_at();
            (restartpoint.redo, restartpoint.checkpoint)
        } else {
            let begun = state.wal.backup_start();
            self.inner.remove_old_wal(&mut state);
            (begun.redo, begun.checkpoint)
        };
        let timeline = state.wal.timeline();
        state.running_backups += 1;
        self.inner.publish(&state);
        let label = BackupLabel {
            start,
            start_file: WalFileName::holding(timeline, start, self.segment_size()),
            checkpoint,
            method: "streamed".to_owned(),
            from: if in_recovery { LabelSource::Standby } else { LabelSource::Primary },
            start_time: format_start_time(self.inner.epoch),
            label: label.to_owned(),
            timeline: Some(timeline),
            incremental_from: None,
        };
        let label_text = label.to_text(self.version());
        let (started_at, inner) = (self.inner.epoch, Arc::clone(&self.inner));
        Ok(RunningBackup { start, timeline, checkpoint, label_text, started_at, in_recovery, stopped: false, inner })
    }

    /// Ends a base backup (`do_pg_backup_stop`): an end-of-backup record and a WAL switch on a primary. On a standby, which
    /// writes nothing, the end is what it has replayed.
    pub fn stop_backup(&self, mut backup: RunningBackup) -> Result<BackupEnd, Diagnostic> {
        backup.check()?;
        let mut state = self.inner.lock();
        let end = if backup.in_recovery { state.wal.flush_position() } else { state.wal.backup_end(backup.start) };
        backup.stopped = true;
        self.inner.publish(&state);
        Ok(BackupEnd { end, timeline: state.wal.timeline() })
    }

    /// How many base backups run.
    pub fn running_backups(&self) -> usize {
        self.inner.lock().running_backups
    }
}
