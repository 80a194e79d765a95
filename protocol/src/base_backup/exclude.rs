//! What a base backup leaves out of a data directory: the rules of `basebackup.c` since 12.
//!
//! The server applies them to BASE_BACKUP; a client that copies the files itself applies them, too.

use crate::version::ServerVersion;

/// Directories that are sent empty, by name at any depth (`excludeDirContents`).
const EMPTY_DIRECTORIES: [&[u8]; 7] =
    [b"pg_stat_tmp", b"pg_replslot", b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans"];

/// Files that are not sent, by name at any depth (`excludeFiles`).
const FILES: [&[u8]; 6] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"postmaster.pid",
    b"postmaster.opts",
];

/// Beginnings of names that are not sent: relation caches and temporary files.
const PREFIXES: [&[u8]; 2] = [b"pg_internal.init", b"pgsql_tmp"];

/// Whether the content of a directory of this name is left out.
pub fn sent_empty(name: &[u8]) -> bool {
    EMPTY_DIRECTORIES.contains(&name)
}

/// Whether a file or directory of this name is left out, wherever it is.
pub fn left_out(name: &[u8], version: ServerVersion) -> bool {
    FILES.contains(&name)
        || (version.leaves_out_finder_files() && name == b".DS_Store")
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || (version.has_manifest() && name == b"backup_manifest")
}

/// Splits digits off the front of a name.
fn digits(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = name.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    if end == 0 { None } else { name.split_at_checked(end) }
}

/// Whether nothing is left of a name but the number of a file: `.1`.
fn only_segment(rest: &[u8]) -> bool {
    rest.is_empty() || rest.strip_prefix(b".").and_then(digits).is_some_and(|(_, rest)| rest.is_empty())
}

/// Whether a file of a database is a temporary relation's. `looks_like_temp_rel_name`: `t<backend>_<relation>`, perhaps with a
/// fork and the number of a file.
pub fn temporary_relation(name: &[u8]) -> bool {
    let parts = || {
        let (_, rest) = digits(name.strip_prefix(b"t")?)?;
        let (_, rest) = digits(rest.strip_prefix(b"_")?)?;
        let fork = rest.strip_prefix(b"_").and_then(|rest| {
            let fork = [&b"fsm"[..], b"vm", b"init"].into_iter().find(|fork| rest.starts_with(fork))?;
            rest.strip_prefix(fork)
        });
        Some(only_segment(fork.unwrap_or(rest)))
    };
    parts().unwrap_or(false)
}

/// A name of a relation that is not temporary: its number, and whether it is the init fork
/// (`parse_filename_for_nontemp_relation`).
pub fn relation(name: &[u8]) -> Option<(&[u8], bool)> {
    /// `OIDCHARS`.
    const LONGEST: usize = 10;
    let (number, rest) = digits(name)?;
    if number.len() > LONGEST {
        return None;
    }
    let fork = rest.strip_prefix(b"_").and_then(|rest| {
        let forks = [(&b"fsm"[..], false), (b"vm", false), (b"init", true)];
        let (fork, init) = forks.into_iter().find(|(fork, _)| rest.starts_with(fork))?;
        Some((rest.strip_prefix(fork)?, init))
    });
    let (rest, init) = fork.unwrap_or((rest, false));
    only_segment(rest).then_some((number, init))
}

/// Whether a directory holds a database: a number below `base` or below the version directory of a tablespace. `name` is relative to
/// the data directory or to the tablespace, with a slash at the end.
pub fn is_database(name: &[u8], version: ServerVersion) -> bool {
    let parent = |parent: &[u8]| name.strip_prefix(parent).and_then(|rest| rest.strip_suffix(b"/"));
    let top = format!("{}/", version.tablespace_version_directory());
    let number = parent(b"base/").or_else(|| parent(top.as_bytes()));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_finder_left_is_sent_by_old_releases() {
        assert!(!left_out(b".DS_Store", ServerVersion::V11));
        assert!(left_out(b".DS_Store", ServerVersion::V12));
        assert!(!left_out(b"DS_Store", ServerVersion::V18));
    }

    #[test]
    fn knows_temporary_relations() {
        for name in ["t3_16409", "t3_16409.1", "t3_16409_fsm", "t3_16409_vm.2", "t12_16409_init"] {
            assert!(temporary_relation(name.as_bytes()), "{name}");
        }
        for name in
            ["t", "t3", "t3_", "t_16409", "t3_16409_", "t3_16409_xyz", "t3_16409.", "t3_16409.x", "3_16409", "16409"]
        {
            assert!(!temporary_relation(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn knows_relations() {
        assert_eq!(relation(b"16409"), Some((&b"16409"[..], false)));
        assert_eq!(relation(b"16409.12"), Some((&b"16409"[..], false)));
        assert_eq!(relation(b"16409_fsm"), Some((&b"16409"[..], false)));
        assert_eq!(relation(b"16409_init"), Some((&b"16409"[..], true)));
        for name in ["", "x", "16409_", "16409x", "16409_foo", "16409.", "12345678901", "t3_16409"] {
            assert_eq!(relation(name.as_bytes()), None, "{name}");
        }
    }
}
