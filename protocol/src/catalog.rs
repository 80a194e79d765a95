//! SQL that backups are made of: types, functions and one view, by release.
//!
//! The facts of `pg_proc` and of `pg_type`, for the functions that backup tools call. Names, arguments and results changed
//! with nearly every release: `pg_start_backup` became `pg_backup_start`, `xlog` became `wal`, positions were texts before
//! `pg_lsn` was a type.

use crate::version::ServerVersion;

/// A type of `pg_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub enum SqlType {
    Bool,
    Bytea,
    Name,
    Int8,
    Int4,
    Text,
    Oid,
    Xid,
    Lsn,
    Timestamptz,
    Record,
    Void,
    Unknown,
    TextArray,
}

/// Type, OID, `typlen`, the name in `pg_type`, and the name in messages (`format_type`).
const TYPES: [(SqlType, u32, i16, &str, &str); 14] = [
    (SqlType::Bool, 16, 1, "bool", "boolean"),
    (SqlType::Bytea, 17, -1, "bytea", "bytea"),
    (SqlType::Name, 19, 64, "name", "name"),
    (SqlType::Int8, 20, 8, "int8", "bigint"),
    (SqlType::Int4, 23, 4, "int4", "integer"),
    (SqlType::Text, 25, -1, "text", "text"),
    (SqlType::Oid, 26, 4, "oid", "oid"),
    (SqlType::Xid, 28, 4, "xid", "xid"),
    (SqlType::Lsn, 3220, 8, "pg_lsn", "pg_lsn"),
    (SqlType::Timestamptz, 1184, 8, "timestamptz", "timestamp with time zone"),
    (SqlType::Record, 2249, -1, "record", "record"),
    (SqlType::Void, 2278, 4, "void", "void"),
    (SqlType::Unknown, 705, -2, "unknown", "unknown"),
    (SqlType::TextArray, 1009, -1, "_text", "text[]"),
];

impl SqlType {
    fn row(self) -> &'static (SqlType, u32, i16, &'static str, &'static str) {
        &TYPES[self as usize]
    }

    /// Its OID.
    pub fn oid(self) -> u32 {
        self.row().1
    }

    /// `typlen`: bytes, -1 for variable length, -2 for a C string.
    pub fn length(self) -> i16 {
        self.row().2
    }

    /// Its name in `pg_type`, which is also the name of a column that a cast to it makes: `int4`.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    /// Its name in messages: `integer`.
    pub fn shown(self) -> &'static str {
        self.row().4
    }

    /// The type with this OID.
    pub fn from_oid(oid: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == oid).map(|row| row.0)
    }

    /// The type with this name, in either spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.3 == name || row.4 == name).map(|row| row.0)
    }
}

/// What a function does, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the functions say it")]
pub enum FunctionId {
    StartBackup,
    StopExclusiveBackup,
    StopBackup,
    IsInBackup,
    BackupStartTime,
    SwitchWal,
    CurrentWal,
    LastReceivedWal,
    LastReplayedWal,
    WalFileName,
    WalFileNameOffset,
    IsInRecovery,
    Promote,
    CreateSlot,
    DropSlot,
    Version,
    CurrentSetting,
    SetConfig,
    Now,
    BackendPid,
    PostmasterStartTime,
    ReadBinaryFile,
    ListDirectory,
    StatFile,
    ListWalDirectory,
    TablespaceLocation,
}

/// A function of a release.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// What it does.
    pub id: FunctionId,
    /// What it is called.
    pub name: &'static str,
    /// Names and types of its arguments. A name is empty where it has none.
    pub arguments: &'static [(&'static str, SqlType)],
    /// How many of them have no default.
    pub required: usize,
    /// Its result.
    pub result: SqlType,
    /// The columns of a result that is a record.
    pub columns: &'static [(&'static str, SqlType)],
    since: ServerVersion,
    until: ServerVersion,
}

use FunctionId as F;
use ServerVersion as V;
use SqlType::{Bool, Bytea, Int4, Int8, Lsn, Name, Oid, Record, Text, Timestamptz, Void};

const STOPPED: &[(&str, SqlType)] = &[("lsn", Lsn), ("labelfile", Text), ("spcmapfile", Text)];
const FILE_AND_OFFSET: &[(&str, SqlType)] = &[("file_name", Text), ("file_offset", Int4)];
const SLOT_NAME: (&str, SqlType) = ("slot_name", Name);
const RESERVE: (&str, SqlType) = ("immediately_reserve", Bool);

const FILE: (&str, SqlType) = ("filename", Text);
const STATUS: &[(&str, SqlType)] = &[
    ("size", Int8),
    ("access", Timestamptz),
    ("modification", Timestamptz),
    ("change", Timestamptz),
    ("creation", Timestamptz),
    ("isdir", Bool),
];
const WAL_FILE: &[(&str, SqlType)] = &[("name", Text), ("size", Int8), ("modification", Timestamptz)];

#[rustfmt::skip]
const FUNCTIONS: [Function; 50] = {
    type Columns = &'static [(&'static str, SqlType)];
    const fn f(id: F, name: &'static str, since: V, until: V, arguments: Columns, required: usize, result: SqlType) -> Function {
        Function { id, name, arguments, required, result, columns: &[], since, until }
    }
    const fn r(id: F, name: &'static str, since: V, until: V, arguments: Columns, required: usize, columns: Columns) -> Function {
        Function { id, name, arguments, required, result: Record, columns, since, until }
    }
    [
        f(F::StartBackup, "pg_start_backup", V::V9_1, V::V9_5, &[("label", Text), ("fast", Bool)], 1, Lsn),
        f(F::StartBackup, "pg_start_backup", V::V9_6, V::V14, &[("label", Text), ("fast", Bool), ("exclusive", Bool)], 1, Lsn),
        f(F::StartBackup, "pg_backup_start", V::V15, V::V18, &[("label", Text), ("fast", Bool)], 1, Lsn),
        f(F::StopExclusiveBackup, "pg_stop_backup", V::V9_1, V::V14, &[], 0, Lsn),
        r(F::StopBackup, "pg_stop_backup", V::V9_6, V::V9_6, &[("exclusive", Bool)], 1, STOPPED),
        r(F::StopBackup, "pg_stop_backup", V::V10, V::V14, &[("exclusive", Bool), ("wait_for_archive", Bool)], 1, STOPPED),
        r(F::StopBackup, "pg_backup_stop", V::V15, V::V18, &[("wait_for_archive", Bool)], 0, STOPPED),
        f(F::IsInBackup, "pg_is_in_backup", V::V9_3, V::V14, &[], 0, Bool),
        f(F::BackupStartTime, "pg_backup_start_time", V::V9_3, V::V14, &[], 0, Timestamptz),
        f(F::SwitchWal, "pg_switch_xlog", V::V9_1, V::V9_6, &[], 0, Lsn),
        f(F::SwitchWal, "pg_switch_wal", V::V10, V::V18, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_xlog_location", V::V9_1, V::V9_6, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_xlog_insert_location", V::V9_1, V::V9_6, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_xlog_flush_location", V::V9_6, V::V9_6, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_wal_lsn", V::V10, V::V18, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_wal_insert_lsn", V::V10, V::V18, &[], 0, Lsn),
        f(F::CurrentWal, "pg_current_wal_flush_lsn", V::V10, V::V18, &[], 0, Lsn),
        f(F::LastReceivedWal, "pg_last_xlog_receive_location", V::V9_1, V::V9_6, &[], 0, Lsn),
        f(F::LastReceivedWal, "pg_last_wal_receive_lsn", V::V10, V::V18, &[], 0, Lsn),
        f(F::LastReplayedWal, "pg_last_xlog_replay_location", V::V9_1, V::V9_6, &[], 0, Lsn),
        f(F::LastReplayedWal, "pg_last_wal_replay_lsn", V::V10, V::V18, &[], 0, Lsn),
        f(F::WalFileName, "pg_xlogfile_name", V::V9_1, V::V9_6, &[("", Lsn)], 1, Text),
        f(F::WalFileName, "pg_walfile_name", V::V10, V::V18, &[("lsn", Lsn)], 1, Text),
        r(F::WalFileNameOffset, "pg_xlogfile_name_offset", V::V9_1, V::V9_6, &[("wal_location", Lsn)], 1, FILE_AND_OFFSET),
        r(F::WalFileNameOffset, "pg_walfile_name_offset", V::V10, V::V18, &[("lsn", Lsn)], 1, FILE_AND_OFFSET),
        f(F::IsInRecovery, "pg_is_in_recovery", V::V9_1, V::V18, &[], 0, Bool),
        f(F::Promote, "pg_promote", V::V12, V::V18, &[("wait", Bool), ("wait_seconds", Int4)], 0, Bool),
        r(F::CreateSlot, "pg_create_physical_replication_slot", V::V9_4, V::V9_5, &[SLOT_NAME], 1, &[SLOT_NAME, ("xlog_position", Lsn)]),
        r(F::CreateSlot, "pg_create_physical_replication_slot", V::V9_6, V::V9_6, &[SLOT_NAME, RESERVE], 1, &[SLOT_NAME, ("xlog_position", Lsn)]),
        r(F::CreateSlot, "pg_create_physical_replication_slot", V::V10, V::V18, &[SLOT_NAME, RESERVE, ("temporary", Bool)], 1, &[SLOT_NAME, ("lsn", Lsn)]),
        f(F::DropSlot, "pg_drop_replication_slot", V::V9_4, V::V18, &[SLOT_NAME], 1, Void),
        f(F::Version, "version", V::V9_1, V::V18, &[], 0, Text),
        f(F::CurrentSetting, "current_setting", V::V9_1, V::V18, &[("", Text)], 1, Text),
        f(F::CurrentSetting, "current_setting", V::V9_6, V::V18, &[("", Text), ("", Bool)], 2, Text),
        f(F::SetConfig, "set_config", V::V9_1, V::V18, &[("", Text), ("", Text), ("", Bool)], 3, Text),
        f(F::Now, "now", V::V9_1, V::V18, &[], 0, Timestamptz),
        f(F::Now, "transaction_timestamp", V::V9_1, V::V18, &[], 0, Timestamptz),
        f(F::Now, "statement_timestamp", V::V9_1, V::V18, &[], 0, Timestamptz),
        f(F::Now, "clock_timestamp", V::V9_1, V::V18, &[], 0, Timestamptz),
        f(F::BackendPid, "pg_backend_pid", V::V9_1, V::V18, &[], 0, Int4),
        f(F::PostmasterStartTime, "pg_postmaster_start_time", V::V9_1, V::V18, &[], 0, Timestamptz),
        f(F::ReadBinaryFile, "pg_read_binary_file", V::V9_1, V::V18, &[FILE], 1, Bytea),
        f(F::ReadBinaryFile, "pg_read_binary_file", V::V9_1, V::V18, &[FILE, ("", Int8), ("", Int8)], 3, Bytea),
        f(F::ReadBinaryFile, "pg_read_binary_file", V::V9_5, V::V18, &[FILE, ("", Int8), ("", Int8), ("", Bool)], 4, Bytea),
        f(F::ListDirectory, "pg_ls_dir", V::V9_1, V::V18, &[("dirname", Text)], 1, Text),
        f(F::ListDirectory, "pg_ls_dir", V::V9_5, V::V18, &[("dirname", Text), ("", Bool), ("", Bool)], 3, Text),
        r(F::StatFile, "pg_stat_file", V::V9_1, V::V18, &[FILE], 1, STATUS),
        r(F::StatFile, "pg_stat_file", V::V9_5, V::V18, &[FILE, ("", Bool)], 2, STATUS),
        r(F::ListWalDirectory, "pg_ls_waldir", V::V10, V::V18, &[], 0, WAL_FILE),
        f(F::TablespaceLocation, "pg_tablespace_location", V::V9_2, V::V18, &[("tablespace_oid", Oid)], 1, Text),
    ]
};

impl Function {
    /// The type of an argument or of a result in `version`: positions are texts before 9.4.
    pub fn type_in(ty: SqlType, version: ServerVersion) -> SqlType {
        if ty == Lsn && !version.has_lsn_type() { Text } else { ty }
    }

    /// Whether a NULL argument makes its result NULL without a call. Of these functions, only `set_config` is called.
    pub fn is_strict(&self) -> bool {
        self.id != F::SetConfig
    }
}

/// The functions of a release that are called `name`: more than one where the number of arguments decides.
pub fn functions(name: &str, version: ServerVersion) -> impl Iterator<Item = &'static Function> {
    FUNCTIONS
        .iter()
        .filter(move |function| function.name == name && (function.since..=function.until).contains(&version))
}

/// The columns of the view `pg_replication_slots` (since 9.4), in their order.
pub fn slot_columns(version: ServerVersion) -> Vec<(&'static str, SqlType)> {
    let all = [
        ("slot_name", Name, V::V9_4),
        ("plugin", Name, V::V9_4),
        ("slot_type", Text, V::V9_4),
        ("datoid", Oid, V::V9_4),
        ("database", Name, V::V9_4),
        ("temporary", Bool, V::V10),
        ("active", Bool, V::V9_4),
        ("active_pid", Int4, V::V9_5),
        ("xmin", SqlType::Xid, V::V9_4),
        ("catalog_xmin", SqlType::Xid, V::V9_4),
        ("restart_lsn", Lsn, V::V9_4),
        ("confirmed_flush_lsn", Lsn, V::V9_6),
        ("wal_status", Text, V::V13),
        ("safe_wal_size", Int8, V::V13),
        ("two_phase", Bool, V::V14),
        ("two_phase_at", Lsn, V::V18),
        ("inactive_since", Timestamptz, V::V17),
        ("conflicting", Bool, V::V16),
        ("invalidation_reason", Text, V::V17),
        ("failover", Bool, V::V17),
        ("synced", Bool, V::V17),
    ];
    let of_release = all.into_iter().filter(|(_, _, since)| version >= *since && version.has_slots());
    of_release.map(|(name, ty, _)| (name, ty)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_stand_in_their_order() {
        for (ty, oid, _, name, shown) in TYPES {
            assert_eq!(
                (SqlType::from_oid(oid), SqlType::from_name(name), SqlType::from_name(shown)),
                (Some(ty), Some(ty), Some(ty))
            );
            assert_eq!(ty.oid(), oid);
        }
    }

    #[test]
    fn a_name_and_a_number_of_arguments_are_one_function() {
        for version in ServerVersion::ALL {
            for function in &FUNCTIONS {
                let alike: Vec<_> = functions(function.name, version)
                    .filter(|other| (other.required..=other.arguments.len()).contains(&function.arguments.len()))
                    .collect();
                assert!(
                    alike.len() <= 1 || function.name == "pg_stop_backup",
                    "{version} {}: {alike:?}",
                    function.name
                );
            }
        }
    }

    #[test]
    fn names_change_with_releases() {
        let known = |name, version| functions(name, version).count();
        assert_eq!([known("pg_start_backup", V::V14), known("pg_start_backup", V::V15)], [1, 0]);
        assert_eq!([known("pg_backup_start", V::V14), known("pg_backup_start", V::V15)], [0, 1]);
        assert_eq!([known("pg_stop_backup", V::V9_5), known("pg_stop_backup", V::V9_6)], [1, 2]);
        assert_eq!([known("pg_switch_xlog", V::V9_6), known("pg_switch_wal", V::V10)], [1, 1]);
        assert_eq!(slot_columns(V::V9_3), []);
        // As `SELECT *` gave them on servers 15 and 18.
        assert_eq!([slot_columns(V::V15).len(), slot_columns(V::V18).len()], [15, 21]);
    }
}
