//! The SQL that is sent, by release. All of it but [`settings`] goes by the extended protocol, with binary parameters and results.

use backstop_protocol::catalog::SqlType;
use backstop_protocol::version::ServerVersion;
use bytes::{BufMut, BytesMut};

/// The OID of `text[]`.
const TEXT_ARRAY: u32 = 1009;

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    Text(&'a [u8]),
    Bool(bool),
    Int8(i64),
    Texts(&'a [Vec<u8>]),
}

impl Parameter<'_> {
    /// The OID of its type.
    pub(super) fn type_oid(&self) -> u32 {
        match self {
            Self::Text(_) => SqlType::Text.oid(),
            Self::Bool(_) => SqlType::Bool.oid(),
            Self::Int8(_) => SqlType::Int8.oid(),
            Self::Texts(_) => TEXT_ARRAY,
        }
    }

    /// Appends its binary form.
    pub(super) fn put(&self, out: &mut BytesMut) {
        let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        match self {
            Self::Text(text) => out.put_slice(text),
            Self::Bool(value) => out.put_u8((*value).into()),
            Self::Int8(value) => out.put_i64(*value),
            Self::Texts(texts) => {
                // Dimensions, whether there are NULLs, the type of elements; of the only dimension its size and first index.
                let dimensions = i32::from(!texts.is_empty());
                out.put_i32(dimensions);
                out.put_i32(0);
                out.put_u32(SqlType::Text.oid());
                if dimensions > 0 {
                    out.put_i32(length(texts.len()));
                    out.put_i32(1);
                }
                for text in *texts {
                    out.put_i32(length(text.len()));
                    out.put_slice(text);
                }
            }
        }
    }
}

/// What every session says first, as one Query: nothing of a database may stand in for a function of `pg_catalog`, and a session
/// that has nothing to do for hours, or much, is not to be ended for it.
pub(super) fn settings(version: ServerVersion) -> &'static str {
    if version.has_idle_session_timeout() {
        "SET search_path = pg_catalog; SET statement_timeout = 0; SET idle_session_timeout = 0"
    } else {
        "SET search_path = pg_catalog; SET statement_timeout = 0"
    }
}

/// Who the server is: recovery, its start, the size of segments, and since 11 the mode of its data directory.
pub(super) fn identity(version: ServerVersion) -> &'static str {
    if version.has_group_access() {
        "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), current_setting('wal_segment_size'), \
         current_setting('data_directory_mode')"
    } else {
        "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), current_setting('wal_segment_size')"
    }
}

/// A piece of a file: path, offset, length.
pub(super) fn read(version: ServerVersion) -> &'static str {
    if version.files_may_be_missing() {
        "SELECT pg_read_binary_file($1, $2, $3, true)"
    } else {
        "SELECT pg_read_binary_file($1, $2, $3)"
    }
}

/// Everything below a directory, but not below those of a list: path, whether it is a directory, size, change time. Since 9.5.
pub(super) const TREE: &str = "WITH RECURSIVE tree (path, isdir, size, change, depth) AS (\
    SELECT $1, true, 0::bigint, 0::bigint, 0 \
    UNION ALL \
    SELECT tree.path || '/' || name, stat.isdir, stat.size, extract(epoch FROM stat.change)::bigint, tree.depth + 1 \
    FROM tree, LATERAL pg_ls_dir(tree.path, true, false) AS name, \
    LATERAL pg_stat_file(tree.path || '/' || name, true) AS stat \
    WHERE tree.isdir AND tree.depth < 32 AND tree.path <> ALL ($2)) \
    SELECT path, isdir, size, change FROM tree WHERE depth > 0 AND isdir IS NOT NULL";

/// The names in a directory, before 9.5.
pub(super) const NAMES: &str = "SELECT pg_ls_dir($1)";

/// What lies at a path, before 9.5.
pub(super) const STATUS: &str = "SELECT isdir, size, extract(epoch FROM change)::bigint FROM pg_stat_file($1)";

/// OIDs and locations of tablespaces.
pub(super) fn tablespaces(version: ServerVersion) -> &'static str {
    if version.has_tablespace_location() {
        "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid NOT IN (1663, 1664)"
    } else {
        "SELECT oid, spclocation FROM pg_tablespace WHERE oid NOT IN (1663, 1664)"
    }
}

/// The start of the backup: label, whether the checkpoint is made at once.
pub(super) fn start(version: ServerVersion) -> &'static str {
    match (version.has_exclusive_backup(), version.has_non_exclusive_backup()) {
        (false, _) => "SELECT pg_backup_start($1, $2)",
        (true, true) => "SELECT pg_start_backup($1, $2, false)",
        (true, false) => "SELECT pg_start_backup($1, $2)",
    }
}

/// The end of the backup, and whether it takes a parameter: whether to wait until WAL is archived.
pub(super) fn stop(version: ServerVersion) -> (&'static str, bool) {
    match (version.has_exclusive_backup(), version.has_non_exclusive_backup()) {
        (false, _) => ("SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop($1)", true),
        (true, true) if version.stop_waits_on_request() => {
            ("SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, $1)", true)
        }
        (true, true) => ("SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false)", false),
        (true, false) => ("SELECT pg_stop_backup()", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_change_with_releases() {
        use ServerVersion as V;
        let all = [V::V9_1, V::V9_4, V::V9_5, V::V9_6, V::V10, V::V11, V::V14, V::V15, V::V18].map(|version| {
            let (stop, _) = stop(version);
            let lines =
                [settings(version), identity(version), read(version), tablespaces(version), start(version), stop];
            format!("{version}\n  {}\n", lines.join("\n  "))
        });
        insta::assert_snapshot!(all.concat());
        insta::assert_snapshot!("tree", TREE);
    }

    #[test]
    fn parameters_are_binary() {
        let binary = |parameter: Parameter<'_>| {
            let mut out = BytesMut::new();
            parameter.put(&mut out);
            out.to_vec()
        };
        assert_eq!(binary(Parameter::Bool(true)), [1]);
        assert_eq!(binary(Parameter::Int8(-2)), (-2_i64).to_be_bytes());
        assert_eq!(binary(Parameter::Text(b"a")), b"a");
        assert_eq!(binary(Parameter::Texts(&[])), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
        let one = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'a'];
        assert_eq!(binary(Parameter::Texts(&[b"a".to_vec()])), one);
    }
}
