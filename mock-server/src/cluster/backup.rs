//! Base backups that belong to somebody: streamed ones, and non-exclusive ones of SQL.
//!
//! Any number of them may run, beside at most one [exclusive](super::exclusive_backup) one. Each has a label of its own,
//! which is given to whoever began it and never written to the data directory. [`RunningBackups`](super::running_backups)
//! counts them all.

use std::sync::Arc;

use backstop_protocol::base_backup::label::{BackupLabel, LabelSource, MAX_LABEL};
use backstop_protocol::base_backup::manifest::format_start_time;
use backstop_protocol::base_backup::tablespace_map::TablespaceMap;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::BackupStart;
use backstop_protocol::wal_file::WalFileName;

use super::running_backups::KeptWal;
use super::{Cluster, Inner, State};

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
    label: BackupLabel,
    in_recovery: bool,
    number: u64,
    wal: KeptWal,
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

/// Where a backup begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) start: Lsn,
    pub(super) checkpoint: Lsn,
    pub(super) timeline: TimelineId,
}

impl RunningBackup {
    /// Makes it an incremental backup on top of one that started at `start` of `timeline`, which `backup_label` then says.
    pub(crate) fn build_on(&mut self, start: Lsn, timeline: TimelineId) {
        self.label.incremental_from = Some((start, timeline));
        self.label_text = self.label.to_text(self.inner.facts.version);
    }

    /// Makes it an incremental backup by files on top of one that started at `start`, which `backup_label` then says.
    pub(crate) fn build_on_location(&mut self, start: Lsn) {
        self.label.incremental_from_location = Some(start);
        self.label_text = self.label.to_text(self.inner.facts.version);
    }

    /// What the walsender checks before each file: a standby that is promoted cannot finish a backup it began in recovery.
    pub fn check(&self) -> Result<(), Diagnostic> {
        if self.in_recovery && !self.inner.lock().in_recovery { Err(promoted_meanwhile()) } else { Ok(()) }
    }

    /// Keeps the backup's WAL beyond its end: BASE_BACKUP appends it when the backup has been stopped.
    pub fn keep_wal(&self) -> KeptWal {
        self.wal.clone()
    }
}

impl Drop for RunningBackup {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        // Neither stopped nor ended by a crash: `do_pg_abort_backup`.
        if state.backups.end(self.number) && !self.in_recovery {
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

/// What both ways of beginning a backup refuse.
pub(super) fn check_label(label: &str) -> Result<(), Diagnostic> {
    if label.len() > MAX_LABEL {
        let message = format!("backup label too long (max {MAX_LABEL} bytes)");
        return Err(Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    Ok(())
}

impl Inner {
    /// The checkpoint with which a backup begins on a primary.
    pub(super) fn begin_on_primary(&self, state: &mut State) -> Beginning {
        let begun = state.wal.backup_start();
        self.remove_old_wal(state);
        Beginning { start: begun.redo, checkpoint: begun.checkpoint, timeline: state.wal.timeline() }
    }

    /// What `backup_label` says.
    pub(super) fn label(&self, begun: Beginning, label: &str, method: &str, from: LabelSource) -> BackupLabel {
        BackupLabel {
            start: begun.start,
            start_file: WalFileName::holding(begun.timeline, begun.start, self.facts.segment_size),
            checkpoint: begun.checkpoint,
            incremental_from_location: None,
            method: method.to_owned(),
            from,
            start_time: format_start_time(self.epoch),
            label: label.to_owned(),
            timeline: Some(begun.timeline),
            incremental_from: None,
        }
    }
}

/// What a standby says that has replayed WAL without full-page images: of changes to a page while it was copied, the copy
/// could not be cured.
fn full_page_writes_off(version: ServerVersion, when: &str) -> Diagnostic {
    let (off, setting) = if version.quotes_settings() {
        ("\"full_page_writes=off\"", "\"full_page_writes\"")
    } else {
        ("full_page_writes=off", "full_page_writes")
    };
    let message = format!("WAL generated with {off} was replayed {when}");
    let hint = format!(
        "This means that the backup being taken on the standby is corrupt and should not be used. Enable {setting} and \
         run CHECKPOINT on the {}, and then try an online backup again.",
        version.label_primary()
    );
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint(hint)
}

impl Cluster {
    /// Begins a base backup (`do_pg_backup_start`): a WAL switch and a checkpoint on a primary, the latest restartpoint on
    /// a standby. Nothing needs to be written for a checkpoint, so that `fast` and spread ones are the same.
    ///
    /// No checkpoint removes the WAL that the backup needs until it has ended. That is a deliberate kindness: a real server
    /// keeps WAL for slots and for `wal_keep_size` only, and a backup without either can lose its WAL to chance. Here it
    /// loses it to a fault, or not at all.
    pub fn start_backup(&self, label: &str, _fast: bool) -> Result<RunningBackup, Diagnostic> {
        check_label(label)?;
        let mut state = self.inner.lock();
        let in_recovery = state.in_recovery;
        let begun = if in_recovery {
            let BackupStart { redo, checkpoint, checkpoint_copy } = *state.wal.checkpoint_at();
            if !checkpoint_copy.full_page_writes || state.lacks_full_page_images_since(redo) {
                return Err(full_page_writes_off(self.version(), "since last restartpoint"));
            }
            // A restartpoint that has nothing to do still notes how far replay has come.
            state.min_recovery_point = state.wal.flush_position();
            Beginning { start: redo, checkpoint, timeline: state.wal.timeline() }
        } else {
            self.inner.begin_on_primary(&mut state)
        };
        let number = state.backups.begin(begun.start);
        self.inner.publish(&state);
        drop(state);
        let from = if in_recovery { LabelSource::Standby } else { LabelSource::Primary };
        let label = self.inner.label(begun, label, "streamed", from);
        Ok(RunningBackup {
            start: begun.start,
            timeline: begun.timeline,
            checkpoint: begun.checkpoint,
            label_text: label.to_text(self.version()),
            label,
            started_at: self.inner.epoch,
            in_recovery,
            number,
            wal: KeptWal::new(number, Arc::clone(&self.inner)),
            inner: Arc::clone(&self.inner),
        })
    }

    /// Ends a base backup (`do_pg_backup_stop`): an end-of-backup record and a WAL switch on a primary. On a standby, which
    /// writes nothing, the end is the minimum recovery point.
    #[expect(clippy::needless_pass_by_value, reason = "a backup that was stopped is no more")]
    pub fn stop_backup(&self, backup: RunningBackup) -> Result<BackupEnd, Diagnostic> {
        backup.check()?;
        let mut state = self.inner.lock();
        if !state.backups.end(backup.number) {
            // Its server has crashed.
            let message = "a backup is not in progress";
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        let end = if backup.in_recovery {
            if state.lacks_full_page_images_since(backup.start) {
                return Err(full_page_writes_off(self.version(), "during online backup"));
            }
            state.min_recovery_point
        } else {
            state.wal.backup_end(backup.start)
        };
        self.inner.publish(&state);
        Ok(BackupEnd { end, timeline: state.wal.timeline_at(end) })
    }

    /// How many base backups run, exclusive ones included: while it is not zero, the server forces full pages into WAL
    /// (`forcePageWrites`).
    pub fn running_backups(&self) -> usize {
        self.inner.lock().backups.count()
    }

    /// The content of `tablespace_map`: the links that recovery has to make.
    pub fn tablespace_map(&self) -> Vec<u8> {
        let tablespaces = self.tablespaces();
        let linked = tablespaces.into_iter().filter(|tablespace| !tablespace.in_place);
        let entries = linked.map(|tablespace| (tablespace.oid, tablespace.location.into_bytes())).collect();
        TablespaceMap { entries }.to_bytes(self.version())
    }
}
