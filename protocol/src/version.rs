//! What differs from one PostgreSQL release to the next, in one table.
//!
//! Everything else in the workspace asks [`ServerVersion`]; no other place compares version numbers. The entries for 12 to
//! 18 are pinned by recordings of real servers, the older ones by their manuals and sources.

mod access;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A PostgreSQL major release that can serve base backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ServerVersion {
    V9_1,
    V9_2,
    V9_3,
    V9_4,
    V9_5,
    V9_6,
    V10,
    V11,
    V12,
    V13,
    V14,
    V15,
    V16,
    V17,
    V18,
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    version: ServerVersion,
    name: &'static str,
    /// What `server_version` announces: the last minor release at the time of the recordings.
    announced: &'static str,
    control: u32,
    catalog: u32,
    wal_magic: u16,
}

/// `PG_CONTROL_VERSION`, `CATALOG_VERSION_NO` and `XLOG_PAGE_MAGIC` by release.
#[rustfmt::skip]
const TABLE: [Row; 15] = {
    use ServerVersion::{V9_1, V9_2, V9_3, V9_4, V9_5, V9_6, V10, V11, V12, V13, V14, V15, V16, V17, V18};
    const fn row(version: ServerVersion, name: &'static str, announced: &'static str, control: u32, catalog: u32, wal_magic: u16) -> Row {
        Row { version, name, announced, control, catalog, wal_magic }
    }
    [
        row(V9_1, "9.1",  "9.1.24",  903, 201_105_231, 0xD066),
        row(V9_2, "9.2",  "9.2.24",  922, 201_204_301, 0xD071),
        row(V9_3, "9.3",  "9.3.25",  937, 201_306_121, 0xD075),
        row(V9_4, "9.4",  "9.4.26",  942, 201_409_291, 0xD07E),
        row(V9_5, "9.5",  "9.5.25",  942, 201_510_051, 0xD087),
        row(V9_6, "9.6",  "9.6.24",  960, 201_608_131, 0xD093),
        row(V10,  "10",   "10.23",  1002, 201_707_211, 0xD097),
        row(V11,  "11",   "11.22",  1100, 201_809_051, 0xD098),
        row(V12,  "12",   "12.22",  1201, 201_909_212, 0xD101),
        row(V13,  "13",   "13.23",  1300, 202_007_201, 0xD106),
        row(V14,  "14",   "14.23",  1300, 202_107_181, 0xD10D),
        row(V15,  "15",   "15.18",  1300, 202_209_061, 0xD110),
        row(V16,  "16",   "16.14",  1300, 202_307_071, 0xD113),
        row(V17,  "17",   "17.10",  1700, 202_406_281, 0xD116),
        row(V18,  "18",   "18.4",   1800, 202_506_291, 0xD118),
    ]
};

impl ServerVersion {
    /// Every release, oldest first.
    pub const ALL: [Self; 15] = {
        let mut all = [Self::V9_1; 15];
        let mut index = 0;
        while index < TABLE.len() {
            all[index] = TABLE[index].version;
            index += 1;
        }
        all
    };

    /// The newest release that the table knows.
    pub const NEWEST: Self = Self::V18;

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The release's name, as its users say it and as `PG_VERSION` holds it: `9.6`, `18`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The `server_version` that such a server announces: `15.18`.
    pub fn announced(self) -> &'static str {
        self.row().announced
    }

    /// The release that announced `server_version`. Packaged builds add words after the number: `15.18 (Debian 15.18-0)`.
    pub fn from_announced(server_version: &str) -> Option<Self> {
        let digits = server_version.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = digits.split('.');
        let first: u32 = parts.next()?.parse().ok()?;
        if first >= 10 {
            return Self::from_str(&first.to_string()).ok();
        }
        Self::from_str(&format!("{first}.{}", parts.next()?)).ok()
    }

    /// `PG_CONTROL_VERSION`, the second field of `pg_control`.
    pub fn control_version(self) -> u32 {
        self.row().control
    }

    /// `CATALOG_VERSION_NO`, the third field of `pg_control` and a part of a tablespace's version directory.
    pub fn catalog_version(self) -> u32 {
        self.row().catalog
    }

    /// `XLOG_PAGE_MAGIC`, the first field of every WAL page.
    pub fn wal_page_magic(self) -> u16 {
        self.row().wal_magic
    }

    /// The only directory inside a tablespace that belongs to this release: `PG_15_202209061`.
    pub fn tablespace_version_directory(self) -> String {
        format!("PG_{}_{}", self.name(), self.catalog_version())
    }

    /// The directory of the WAL below the data directory: `pg_xlog` before 10.
    pub fn wal_directory(self) -> &'static str {
        if self >= Self::V10 { "pg_wal" } else { "pg_xlog" }
    }

    /// Whether BASE_BACKUP sends one tagged archive stream instead of one COPY for each tablespace.
    pub fn has_archive_stream(self) -> bool {
        self >= Self::V15
    }

    /// Whether replication commands take a parenthesised option list. BASE_BACKUP takes nothing else then.
    pub fn has_option_lists(self) -> bool {
        self >= Self::V15
    }

    /// Whether a walsender that is connected to a database runs SQL. Before 10, what is no replication command is a
    /// syntax error.
    pub fn walsender_runs_sql(self) -> bool {
        self >= Self::V10
    }

    /// Whether the server itself ends every archive with two zero blocks.
    pub fn sends_tar_trailer(self) -> bool {
        self >= Self::V15
    }

    /// Whether ErrorResponse and NoticeResponse carry the severity twice, the second time (field `V`) never translated.
    pub fn sends_untranslated_severity(self) -> bool {
        self >= Self::V9_6
    }

    /// Whether BASE_BACKUP knows `MAX_RATE`.
    pub fn has_max_rate(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether positions have a type in SQL, `pg_lsn`. They are texts before.
    pub fn has_lsn_type(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether a quoted literal of a SELECT is a text. Before 10 it stays `unknown`.
    pub fn resolves_unknown_literals(self) -> bool {
        self >= Self::V10
    }

    /// Whether `pg_walfile_name()` of a position between two segments names the later one.
    pub fn names_segment_behind_boundary(self) -> bool {
        self >= Self::V17
    }

    /// Whether a changed setting is reported before ReadyForQuery, once, instead of where it changed.
    pub fn reports_settings_when_ready(self) -> bool {
        self >= Self::V14
    }

    /// Whether a session can begin a backup of its own with SQL.
    pub fn has_non_exclusive_backup(self) -> bool {
        self >= Self::V9_6
    }

    /// The function of SQL that ends a backup.
    pub fn backup_stop_function(self) -> &'static str {
        if self >= Self::V15 { "pg_backup_stop" } else { "pg_stop_backup" }
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

    /// Whether a missing privilege is explained in a DETAIL, below a short `permission denied to …`.
    pub fn details_missing_privileges(self) -> bool {
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

    /// Whether `initdb` knows `--wal-segsize`.
    pub fn has_segment_size_option(self) -> bool {
        self >= Self::V11
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

    /// The word in CommandComplete for a replication command: its own name since 13, `SELECT` before.
    pub fn command_tag(self, command: &'static str) -> &'static str {
        if self >= Self::V13 { command } else { "SELECT" }
    }

    /// Whether names of settings stand in quotes in messages: `"max_wal_senders"` since 17.
    pub fn quotes_settings(self) -> bool {
        self >= Self::V17
    }

    /// The OIDs of `template0` and `postgres`, fixed since 15; before, those of the recordings.
    pub fn initial_databases(self) -> [u32; 2] {
        match self {
            Self::V14 => [13_694, 13_695],
            Self::V13 => [13_382, 13_383],
            older if older < Self::V13 => [13_395, 13_396],
            _ => [4, 5],
        }
    }

    /// The directories beside `base` and `global` in a data directory, in the order of their names.
    pub fn data_directories(self) -> Vec<&'static str> {
        let since = |release: Self, name| (self >= release).then_some(name);
        let directories = [
            since(Self::V9_5, "pg_commit_ts"),
            (self < Self::V10).then_some("pg_clog"),
            since(Self::V9_4, "pg_dynshmem"),
            since(Self::V9_4, "pg_logical"),
            Some("pg_multixact"),
            Some("pg_notify"),
            since(Self::V9_4, "pg_replslot"),
            Some("pg_serial"),
            since(Self::V9_2, "pg_snapshots"),
            since(Self::V9_3, "pg_stat"),
            Some("pg_stat_tmp"),
            Some("pg_subtrans"),
            Some("pg_tblspc"),
            Some("pg_twophase"),
            since(Self::V10, "pg_wal"),
            since(Self::V10, "pg_xact"),
            (self < Self::V10).then_some("pg_xlog"),
        ];
        directories.into_iter().flatten().collect()
    }

    /// The directory of the commit log: `pg_clog` before 10.
    pub fn commit_status_directory(self) -> &'static str {
        if self >= Self::V10 { "pg_xact" } else { "pg_clog" }
    }

    /// Whether there is `postgresql.auto.conf`.
    pub fn has_auto_conf(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether data pages can carry checksums (`initdb --data-checksums`).
    pub fn has_data_checksums(self) -> bool {
        self >= Self::V9_3
    }

    /// Whether `standby.signal` makes a standby, instead of `recovery.conf`.
    pub fn has_signal_files(self) -> bool {
        self >= Self::V12
    }

    /// Whether a tablespace can be a directory in `pg_tblspc` (`allow_in_place_tablespaces`).
    pub fn has_in_place_tablespaces(self) -> bool {
        self >= Self::V15
    }

    /// How many relations a `pg_filenode.map` has room for (`MAX_MAPPINGS`).
    pub fn relation_map_entries(self) -> usize {
        if self >= Self::V16 { 64 } else { 62 }
    }

    /// Bytes after the CRC of a `pg_filenode.map`.
    pub fn relation_map_padding(self) -> usize {
        if self >= Self::V16 { 0 } else { 4 }
    }

    /// What `wal_level` is called that replication needs.
    pub fn replica_wal_level(self) -> &'static str {
        if self >= Self::V9_6 { "replica" } else { "hot_standby" }
    }

    /// A setting's name as it stands in a message or a hint.
    pub fn setting_in_message(self, name: &str) -> String {
        if self.quotes_settings() { format!("\"{name}\"") } else { name.to_owned() }
    }

    /// Whether acquiring an invalidated slot is an error of its own, instead of that of the WAL it lost.
    pub fn refuses_invalidated_slots(self) -> bool {
        self >= Self::V18
    }

    /// Settings with their defaults that matter to replication and that not every release has.
    pub fn settings_of_release(self) -> Vec<(&'static str, &'static str)> {
        let since = |release: Self, name, value| (self >= release).then_some((name, value));
        let before = |release: Self, name, value| (self < release).then_some((name, value));
        let settings = [
            since(Self::V11, "data_directory_mode", "0700"),
            before(Self::V13, "wal_keep_segments", "0"),
            since(Self::V13, "wal_keep_size", "0"),
            since(Self::V13, "max_slot_wal_keep_size", "-1"),
            since(Self::V17, "summarize_wal", "off"),
            since(Self::V18, "idle_replication_slot_timeout", "0"),
        ];
        settings.into_iter().flatten().collect()
    }

    /// Whether a crash ends every connection without a word. Before 14 a WARNING 57P02 precedes the end.
    pub fn crashes_silently(self) -> bool {
        self >= Self::V14
    }

    /// Whether `default_transaction_read_only` and `in_hot_standby` are reported to every client.
    pub fn reports_hot_standby(self) -> bool {
        self >= Self::V14
    }

    /// Whether an abandoned backup is announced with a WARNING before the error that ends it.
    pub fn warns_of_aborted_backup(self) -> bool {
        self >= Self::V16
    }

    /// Whether `pg_wal/summaries` exists.
    pub fn has_wal_summaries(self) -> bool {
        self >= Self::V17
    }

    /// Whether a checkpoint's redo point is a record of its own, `XLOG_CHECKPOINT_REDO`.
    pub fn has_checkpoint_redo_record(self) -> bool {
        self >= Self::V17
    }

    /// Whether a checkpoint says the `wal_level` under which it was written.
    pub fn checkpoint_has_wal_level(self) -> bool {
        self >= Self::V17
    }

    /// Whether END_OF_RECOVERY says the `wal_level` under which it was written.
    pub fn end_of_recovery_has_wal_level(self) -> bool {
        self >= Self::V17
    }

    /// Whether the image of a block can be compressed with lz4 and zstd; the bits that tell were numbered anew for it.
    pub fn has_image_compression_methods(self) -> bool {
        self >= Self::V15
    }

    /// Whether an image says if replay restores it (`BKPIMAGE_APPLY`, for `wal_consistency_checking`).
    pub fn marks_images_to_apply(self) -> bool {
        self >= Self::V10
    }

    /// Whether a record can name the transaction that its subtransaction belongs to (`XLR_BLOCK_ID_TOPLEVEL_XID`).
    pub fn has_toplevel_xid(self) -> bool {
        self >= Self::V14
    }

    /// Whether extensions can have resource managers of their own, numbers 128 to 255.
    pub fn has_custom_resource_managers(self) -> bool {
        self >= Self::V15
    }

    /// Whether `pg_control` says how floats are passed twice, for four bytes as well as for eight.
    pub fn control_has_float4_by_value(self) -> bool {
        self <= Self::V12
    }

    /// Whether `pg_control` says if `char` is signed by default.
    pub fn control_has_char_signedness(self) -> bool {
        self >= Self::V18
    }

    /// Whether `pg_control` and WAL have the layout that this crate reads and writes.
    pub fn has_current_wal_format(self) -> bool {
        self >= Self::V12
    }

    /// The settings that are reported to a client at start-up, in the order of the messages: by name up to 15, in the order of
    /// a hash table since.
    pub fn reported_settings(self) -> &'static [&'static str] {
        match self {
            Self::V16 | Self::V17 => &[
                "in_hot_standby",
                "integer_datetimes",
                "TimeZone",
                "IntervalStyle",
                "is_superuser",
                "application_name",
                "default_transaction_read_only",
                "scram_iterations",
                "DateStyle",
                "standard_conforming_strings",
                "session_authorization",
                "client_encoding",
                "server_version",
                "server_encoding",
            ],
            Self::V18 => &[
                "in_hot_standby",
                "integer_datetimes",
                "TimeZone",
                "IntervalStyle",
                "search_path",
                "is_superuser",
                "application_name",
                "default_transaction_read_only",
                "scram_iterations",
                "DateStyle",
                "standard_conforming_strings",
                "session_authorization",
                "client_encoding",
                "server_version",
                "server_encoding",
            ],
            Self::V14 | Self::V15 => &[
                "application_name",
                "client_encoding",
                "DateStyle",
                "default_transaction_read_only",
                "in_hot_standby",
                "integer_datetimes",
                "IntervalStyle",
                "is_superuser",
                "server_encoding",
                "server_version",
                "session_authorization",
                "standard_conforming_strings",
                "TimeZone",
            ],
            _ => &[
                "application_name",
                "client_encoding",
                "DateStyle",
                "integer_datetimes",
                "IntervalStyle",
                "is_superuser",
                "server_encoding",
                "server_version",
                "session_authorization",
                "standard_conforming_strings",
                "TimeZone",
            ],
        }
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

    /// How long after the shutdown checkpoint walsenders learn that it was written. Since 18 the checkpointer says so itself;
    /// before, the postmaster waits until that process has gone, which gives clients the time to answer unasked.
    pub fn shutdown_signal_delay(self) -> Duration {
        if self >= Self::V18 { Duration::ZERO } else { Duration::from_millis(10) }
    }

    /// Whether the postmaster is told that a crash recovery has begun to replay, as it always is of a standby's: connections
    /// are then refused as "not yet accepting" (15), before as "in recovery mode" to the end.
    pub fn announces_crash_recovery(self) -> bool {
        self >= Self::V15
    }

    /// Whether a standby that takes no connections in says why (14); before, it is "starting up".
    pub fn explains_refusals(self) -> bool {
        self >= Self::V14
    }

    /// Whether a session that hears of changed settings reports `client_encoding`, `DateStyle` and `TimeZone` again, though
    /// they are the same (up to 13).
    pub fn repeats_settings_after_reload(self) -> bool {
        self < Self::V14
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

    /// Whether `data_directory_mode` exists: since 11 the group may be allowed to read a data directory.
    pub fn has_group_access(self) -> bool {
        self >= Self::V11
    }

    /// Whether a standby is made by `standby.signal` and settings in `postgresql.auto.conf`, not by `recovery.conf`.
    pub fn has_recovery_signal(self) -> bool {
        self >= Self::V12
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

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no release in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown PostgreSQL version {0:?}: expected one of 9.1 to 9.6, or 10 to 18")]
pub struct UnknownVersion(pub String);

impl FromStr for ServerVersion {
    type Err = UnknownVersion;

    fn from_str(name: &str) -> Result<Self, UnknownVersion> {
        let row = TABLE.iter().find(|row| row.name == name);
        row.map(|row| row.version).ok_or_else(|| UnknownVersion(name.to_owned()))
    }
}

impl Serialize for ServerVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ServerVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_releases() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.version as usize, index, "{}", row.name);
            assert_eq!(row.name.parse(), Ok(row.version));
        }
    }

    #[test]
    fn reads_what_servers_announce() {
        for version in ServerVersion::ALL {
            assert_eq!(ServerVersion::from_announced(version.announced()), Some(version));
        }
        assert_eq!(ServerVersion::from_announced("15.18 (Debian 15.18-0+deb12u1)"), Some(ServerVersion::V15));
        assert_eq!(ServerVersion::from_announced("19devel"), None);
        assert_eq!(ServerVersion::from_announced(""), None);
    }

    #[test]
    fn names_the_version_directory() {
        assert_eq!(ServerVersion::V18.tablespace_version_directory(), "PG_18_202506291");
    }
}
