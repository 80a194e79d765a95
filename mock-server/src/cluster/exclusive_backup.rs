//! The exclusive backup of releases up to 14.
//!
//! It belongs to the server and not to a session: any session may end it, and it outlives the one that began it. Its label
//! lies in the data directory, where BASE_BACKUP passes it by. There it is mistaken for a copy's after a crash, which is why
//! the other way was made: see [`start_up`](super::start_up).

use std::sync::Arc;

use backstop_protocol::base_backup::label::LabelSource;
use backstop_protocol::diagnostic::{Diagnostic, Severity, SqlState};
use backstop_protocol::lsn::Lsn;

use super::backup::check_label;
use super::entry::Origin;
use super::{BackupEnd, Cluster, Entry, EntryKind, State};

/// What an exclusive backup leaves in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFiles {
    /// The content of `backup_label`.
    pub label: String,
    /// The content of `tablespace_map`, which is written if there are tablespaces (since 9.5).
    pub tablespace_map: Option<Vec<u8>>,
    /// The checkpoint that the label names.
    pub(super) checkpoint: Lsn,
}

impl LabelFiles {
    /// The names of the files, in the words of messages about them.
    pub(super) fn renamed(&self) -> String {
        if self.tablespace_map.is_some() {
            "Files \"backup_label\" and \"tablespace_map\" were renamed to \"backup_label.old\" and \
             \"tablespace_map.old\", respectively."
                .to_owned()
        } else {
            "File \"backup_label\" was renamed to \"backup_label.old\".".to_owned()
        }
    }

    /// Entries of a walk through the data directory, under the names that renamed files have.
    pub(super) fn old_entries(&self, mtime: u64) -> Vec<Entry> {
        let files =
            [("backup_label.old", Some(self.label.as_bytes())), ("tablespace_map.old", self.tablespace_map.as_deref())];
        let entry = |(name, content): (&str, Option<&[u8]>)| {
            let content: Arc<[u8]> = content?.into();
            let kind = EntryKind::File { size: content.len() as u64 };
            Some(Entry { name: name.into(), kind, mode: 0o600, mtime, origin: Origin::Bytes(content) })
        };
        files.into_iter().filter_map(entry).collect()
    }
}

/// What every function says that writes WAL, or names it, on a standby.
pub(super) fn recovery_in_progress() -> Diagnostic {
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is in progress")
        .with_hint("WAL control functions cannot be executed during recovery.")
}

fn already_in_progress(hint: &str) -> Diagnostic {
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "a backup is already in progress").with_hint(hint)
}

impl State {
    /// Renames the label files out of the way, and returns them.
    pub(super) fn retire_label(&mut self) -> Option<LabelFiles> {
        let files = self.label_files.take()?;
        self.old_label_files = Some(files.clone());
        Some(files)
    }
}

impl Cluster {
    /// Begins an exclusive backup (`pg_start_backup(label, fast)`, up to 14) and returns its start position.
    ///
    /// # Errors
    /// 55000 on a standby, while an exclusive backup runs, and while a label lies in the data directory; 22023 for a label
    /// that is too long.
    pub fn start_exclusive_backup(&self, label: &str, _fast: bool) -> Result<Lsn, Diagnostic> {
        let mut state = self.inner.lock();
        if state.in_recovery {
            return Err(recovery_in_progress());
        }
        check_label(label)?;
        if state.backups.exclusive().is_some() {
            return Err(already_in_progress("Run pg_stop_backup() and try again."));
        }
        let begun = self.inner.begin_on_primary(&mut state);
        // The file is looked for when the checkpoint has been written.
        if state.label_files.is_some() {
            state.wal.backup_abort();
            self.inner.publish(&state);
            let hint = "If you're sure there is no backup in progress, remove file \"backup_label\" and try again.";
            return Err(already_in_progress(hint));
        }
        state.backups.begin_exclusive(begun.start);
        let map = Some(self.tablespace_map()).filter(|map| !map.is_empty() && self.version().has_tablespace_map());
        state.label_files = Some(LabelFiles {
            label: self.inner.label(begun, label, "pg_start_backup", LabelSource::Primary).to_text(self.version()),
            tablespace_map: map,
            checkpoint: begun.checkpoint,
        });
        self.inner.publish(&state);
        Ok(begun.start)
    }

    /// Ends the exclusive backup (`pg_stop_backup()`, up to 14) and removes its label.
    ///
    /// # Errors
    /// 55000 on a standby, when no exclusive backup runs, and when its label was removed.
    pub fn stop_exclusive_backup(&self) -> Result<BackupEnd, Diagnostic> {
        let mut state = self.inner.lock();
        if state.in_recovery {
            return Err(recovery_in_progress());
        }
        let refused = |message| Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
        let Some(start) = state.backups.exclusive() else {
            return Err(refused(self.version().no_exclusive_backup()));
        };
        if state.label_files.take().is_none() {
            return Err(refused("a backup is not in progress"));
        }
        state.backups.end_exclusive();
        let end = state.wal.backup_end(start);
        self.inner.publish(&state);
        Ok(BackupEnd { end, timeline: state.wal.timeline() })
    }

    /// Where the running exclusive backup began (`pg_is_in_backup()`).
    pub fn exclusive_backup(&self) -> Option<Lsn> {
        self.inner.lock().backups.exclusive()
    }

    /// What an exclusive backup left in the data directory, whether it still runs or not.
    pub fn label_files(&self) -> Option<LabelFiles> {
        self.inner.lock().label_files.clone()
    }

    /// The same, after a start-up or a shutdown has renamed it to `backup_label.old`.
    pub fn old_label_files(&self) -> Option<LabelFiles> {
        self.inner.lock().old_label_files.clone()
    }

    /// Removes `backup_label` and `tablespace_map` by hand, and says whether they were there. An exclusive backup that runs
    /// cannot be stopped any more.
    pub fn remove_label_files(&self) -> bool {
        self.inner.lock().label_files.take().is_some()
    }

    /// What a shutdown that is not immediate does to an exclusive backup (`CancelBackup`): its label is renamed, so that
    /// the next start-up does not find it. The log's words: None if no label was there.
    pub fn cancel_exclusive_backup(&self) -> Option<Diagnostic> {
        let mut state = self.inner.lock();
        if state.backups.end_exclusive().is_some() {
            state.wal.backup_abort();
        }
        let files = state.retire_label()?;
        Some(
            Diagnostic::new(Severity::Log, SqlState::SUCCESSFUL_COMPLETION, "online backup mode canceled")
                .with_detail(files.renamed()),
        )
    }
}
