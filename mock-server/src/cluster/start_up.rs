//! The end of a server, by a shutdown or a crash, and its start-up from what lies in the data directory.

use backstop_protocol::diagnostic::{Diagnostic, SqlState};

use super::{Cluster, Inner, State};

impl Inner {
    /// What the startup process says when WAL does not reach back to the checkpoint of `backup_label`.
    fn checkpoint_lost(&self, state: &State) -> Diagnostic {
        let directory = state.settings.get("data_directory").map(|(_, value)| value).unwrap_or_default();
        let not_restoring =
            format!("If you are not restoring from a backup, try removing the file \"{directory}/backup_label\".");
        let hint = if self.facts.version.label_hint_names_signal_file() {
            format!(
                "If you are restoring from a backup, touch \"{directory}/recovery.signal\" and add required recovery \
                 options.\n{not_restoring}\nBe careful: removing \"{directory}/backup_label\" will result in a corrupt \
                 cluster if restoring from a backup."
            )
        } else {
            not_restoring
        };
        Diagnostic::fatal(SqlState::INTERNAL_ERROR, "could not locate required checkpoint record").with_hint(hint)
    }
}

impl Cluster {
    /// Says whether the server runs. While it does not, WAL does not grow.
    pub(crate) fn set_running(&self, running: bool) {
        self.inner.lock().running = running;
    }

    /// Ends the cluster's life in good order (`ShutdownXLOG`): a primary writes a shutdown checkpoint, a standby makes a
    /// restartpoint. Temporary slots are gone.
    pub(crate) fn shut_down(&self) {
        let mut state = self.inner.lock();
        state.running = false;
        state.clean = true;
        state.slots.drop_all_temporary();
        state.slots.save();
        if state.in_recovery {
            state.min_recovery_point = state.wal.flush_position();
        } else {
            state.wal.shutdown_checkpoint();
            self.inner.remove_old_wal(&mut state);
        }
        self.inner.publish(&state);
    }

    /// A crash of the server: its shared memory is lost, and with it every running backup. What lies in the data directory
    /// stays: WAL, slots as they were saved last, the label of an exclusive backup.
    pub fn crash(&self) {
        let mut state = self.inner.lock();
        state.running = false;
        state.clean = false;
        state.backups.clear();
        state.wal.abort_backups();
        state.slots.crash();
        self.inner.slot_freed.notify_waiters();
    }

    /// Starts up from the data directory (`StartupXLOG`). A `backup_label` says where replay begins, as in a copy: the
    /// server cannot know that it is its own. Replay from there needs WAL that checkpoints may have removed since. A primary
    /// that had crashed writes an end-of-recovery checkpoint, of the same kind as that of a shutdown.
    ///
    /// # Errors
    /// FATAL `could not locate required checkpoint record`. The server stays down until the file is
    /// [removed](Cluster::remove_label_files).
    pub fn start_up(&self) -> Result<(), Diagnostic> {
        let mut state = self.inner.lock();
        let lost = state.label_files.as_ref().is_some_and(|files| {
            let size = self.inner.facts.segment_size;
            size.segment_of(files.checkpoint) < size.segment_of(state.wal.oldest())
        });
        if lost {
            return Err(self.inner.checkpoint_lost(&state));
        }
        state.retire_label();
        state.running = true;
        // A standby goes on replaying, and what was shut down has nothing to replay.
        if !std::mem::replace(&mut state.clean, true) && !state.in_recovery {
            state.wal.shutdown_checkpoint();
            self.inner.remove_old_wal(&mut state);
            self.inner.publish(&state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;
    use backstop_protocol::wal_file::WalSegmentSize;

    use super::*;
    use crate::config::Config;

    fn in_exclusive_backup(version: ServerVersion) -> Cluster {
        let segment = WalSegmentSize::new(1 << 20).expect("1 MiB");
        let wal_segment_size = if version.has_segment_size_option() { segment } else { WalSegmentSize::DEFAULT };
        let config = Config { version, wal_segment_size, size: 64 << 10, ..Config::default() };
        let cluster = Cluster::new(&config).expect("a cluster");
        cluster.start_exclusive_backup("nightly", true).expect("a backup");
        cluster
    }

    #[test]
    fn a_label_left_by_a_crash_is_taken_for_a_copys() {
        for version in ServerVersion::ALL.into_iter().filter(|version| version.has_exclusive_backup()) {
            let cluster = in_exclusive_backup(version);
            cluster.crash();
            assert_eq!((cluster.running_backups(), cluster.exclusive_backup()), (0, None), "{version}");
            assert!(cluster.label_files().is_some(), "{version}");
            // Nothing holds its WAL any more.
            cluster.grow_wal(3 * cluster.segment_size().bytes());
            cluster.checkpoint();
            let refusal = cluster.start_up().expect_err("its checkpoint is gone");
            assert_eq!(refusal.message, "could not locate required checkpoint record", "{version}");
            assert!(cluster.start_up().is_err(), "{version}: nor the second time");
            assert!(cluster.remove_label_files(), "{version}");
            cluster.start_up().expect("without the label");
            assert_eq!(cluster.old_label_files(), None, "{version}");
        }
    }

    #[test]
    fn a_label_whose_wal_is_there_is_renamed() {
        let cluster = in_exclusive_backup(ServerVersion::V14);
        let before = cluster.label_files();
        cluster.crash();
        cluster.start_up().expect("its checkpoint is there");
        assert_eq!((cluster.label_files(), cluster.old_label_files()), (None, before));
    }

    #[test]
    fn says_what_to_do() {
        let refusal = |version| {
            let cluster = in_exclusive_backup(version);
            cluster.crash();
            cluster.grow_wal(3 * cluster.segment_size().bytes());
            cluster.checkpoint();
            cluster.start_up().expect_err("its checkpoint is gone").to_string()
        };
        insta::assert_snapshot!(refusal(ServerVersion::V9_1), @r#"
        FATAL:  could not locate required checkpoint record
        HINT:  If you are not restoring from a backup, try removing the file "/var/lib/postgresql/data/backup_label".
        "#);
        insta::assert_snapshot!(refusal(ServerVersion::V14), @r#"
        FATAL:  could not locate required checkpoint record
        HINT:  If you are restoring from a backup, touch "/var/lib/postgresql/data/recovery.signal" and add required recovery options.
        If you are not restoring from a backup, try removing the file "/var/lib/postgresql/data/backup_label".
        Be careful: removing "/var/lib/postgresql/data/backup_label" will result in a corrupt cluster if restoring from a backup.
        "#);
    }
}
