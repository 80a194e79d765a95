//! What BASE_BACKUP takes, sends and says, by release.

use super::ServerVersion;

impl ServerVersion {
    /// Whether BASE_BACKUP sends one tagged archive stream instead of one COPY for each tablespace.
    pub fn has_archive_stream(self) -> bool {
        self >= Self::V15
    }

    /// Whether the server itself ends every archive with two zero blocks.
    pub fn sends_tar_trailer(self) -> bool {
        self >= Self::V15
    }

    /// Whether BASE_BACKUP knows `MAX_RATE`.
    pub fn has_max_rate(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether a session can begin a backup of its own with SQL.
    pub fn has_non_exclusive_backup(self) -> bool {
        self >= Self::V9_6
    }

    /// The function of SQL that begins a backup.
    pub fn backup_start_function(self) -> &'static str {
        if self >= Self::V15 { "pg_backup_start" } else { "pg_start_backup" }
    }

    /// The function of SQL that ends a backup.
    pub fn backup_stop_function(self) -> &'static str {
        if self >= Self::V15 { "pg_backup_stop" } else { "pg_stop_backup" }
    }

    /// Whether `pg_stop_backup` takes `wait_for_archive` (since 10).
    pub fn stop_waits_on_request(self) -> bool {
        self >= Self::V10
    }

    /// Whether `pg_ls_dir`, `pg_stat_file` and `pg_read_binary_file` take `missing_ok` (since 9.5).
    pub fn files_may_be_missing(self) -> bool {
        self >= Self::V9_5
    }

    /// Whether `pg_tablespace_location` exists (since 9.2); before, `pg_tablespace` says it.
    pub fn has_tablespace_location(self) -> bool {
        self >= Self::V9_2
    }

    /// Whether `pg_start_backup()` can begin an exclusive backup, whose label lies in the data directory.
    pub fn has_exclusive_backup(self) -> bool {
        self < Self::V15
    }

    /// What `pg_stop_backup()` says when no exclusive backup runs.
    pub fn no_exclusive_backup(self) -> &'static str {
        if self >= Self::V9_6 { "exclusive backup not in progress" } else { "a backup is not in progress" }
    }

    /// Whether the hint on a `backup_label` whose checkpoint is gone begins with `recovery.signal`.
    pub fn label_hint_names_signal_file(self) -> bool {
        self >= Self::V12
    }

    /// Whether BASE_BACKUP leaves out temporary relations, and of unlogged ones all but the init fork.
    pub fn leaves_out_unlogged_relations(self) -> bool {
        self >= Self::V11
    }

    /// Whether `.DS_Store`, which the Finder of macOS leaves in directories, stays out of a backup: since 17, and since the releases
    /// of May 2024 of 12 to 16 (commit c1fc502f5, "Skip .DS_Store files in server side utils").
    pub fn leaves_out_finder_files(self) -> bool {
        self >= Self::V12
    }

    /// Whether BASE_BACKUP knows `TABLESPACE_MAP`.
    pub fn has_tablespace_map(self) -> bool {
        self >= Self::V9_5
    }

    /// Whether BASE_BACKUP verifies checksums of pages, and can be told not to.
    pub fn verifies_checksums(self) -> bool {
        self >= Self::V11
    }

    /// Whether a compression detail knows `long`.
    pub fn has_long_distance_compression(self) -> bool {
        self >= Self::V16
    }

    /// Whether BASE_BACKUP knows `MANIFEST`.
    pub fn has_manifest(self) -> bool {
        self >= Self::V13
    }

    /// `PostgreSQL-Backup-Manifest-Version` of the manifests it writes. Version 2 holds the system identifier.
    pub fn manifest_version(self) -> u64 {
        if self >= Self::V17 { 2 } else { 1 }
    }

    /// Whether BASE_BACKUP knows `INCREMENTAL` and the walsender `UPLOAD_MANIFEST`.
    pub fn has_incremental(self) -> bool {
        self >= Self::V17
    }

    /// Whether a standby serves base backups.
    pub fn has_backup_from_standby(self) -> bool {
        self >= Self::V9_2
    }

    /// Whether `backup_label` has a line BACKUP FROM.
    pub fn label_has_source(self) -> bool {
        self >= Self::V9_2
    }

    /// Whether `\r` and `\` are escaped in `tablespace_map`; before, only a newline was.
    pub fn map_escapes_backslash(self) -> bool {
        self >= Self::V14
    }

    /// Whether `backup_label` has a line START TIMELINE.
    pub fn label_has_timeline(self) -> bool {
        self >= Self::V11
    }

    /// What `BACKUP FROM` calls a server that is not a standby.
    pub fn label_primary(self) -> &'static str {
        if self >= Self::V14 { "primary" } else { "master" }
    }

    /// Whether an abandoned backup is announced with a WARNING before the error that ends it.
    pub fn warns_of_aborted_backup(self) -> bool {
        self >= Self::V16
    }

    /// What the end of a backup says while it waits for archiving (`do_pg_backup_stop`). Before 12 it speaks of
    /// `pg_stop_backup`, whoever ends a backup. From the source.
    pub fn archiving_words(self) -> ArchivingWords {
        if self >= Self::V12 {
            ArchivingWords {
                waiting: "base backup done, waiting for required WAL segments to be archived",
                still_waiting: "still waiting for all required WAL segments to be archived",
                hint: "You can safely cancel this backup, but the database backup will not be usable without all the WAL \
                       segments.",
                done: "all required WAL segments have been archived",
            }
        } else {
            ArchivingWords {
                waiting: "pg_stop_backup cleanup done, waiting for required WAL segments to be archived",
                still_waiting: "pg_stop_backup still waiting for all required WAL segments to be archived",
                hint: "pg_stop_backup can be canceled safely, but the database backup will not be usable without all the \
                       WAL segments.",
                done: "pg_stop_backup complete, all required WAL segments have been archived",
            }
        }
    }

    /// The SQLSTATE of `file name too long for tar format`.
    pub fn name_too_long_for_tar_code(self) -> &'static str {
        if self >= Self::V18 { "54000" } else { "XX000" }
    }

    /// The largest piece of the manifest in one message.
    pub fn manifest_piece(self) -> usize {
        if self.has_archive_stream() { 32768 } else { 8192 }
    }
}

/// The texts of [`ServerVersion::archiving_words`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivingWords {
    /// A NOTICE after some seconds.
    pub waiting: &'static str,
    /// A WARNING after a minute, before the number of seconds.
    pub still_waiting: &'static str,
    /// The second sentence of its HINT.
    pub hint: &'static str,
    /// A NOTICE at the end.
    pub done: &'static str,
}
