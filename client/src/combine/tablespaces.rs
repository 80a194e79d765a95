//! The tablespaces of the last input, and where they go.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{CombineObserver, CombineOptions};
use crate::backup_files::canonical;
use crate::error::ClientError;

/// A tablespace.
#[derive(Clone, Debug)]
pub(crate) struct Tablespace {
    pub(crate) oid: u32,
    /// Where its files are in the last input.
    pub(crate) old: PathBuf,
    /// Where they go.
    pub(crate) new: PathBuf,
    /// Whether it is a directory in the data directory instead of a link out of it.
    pub(crate) in_place: bool,
}

/// `parse_oid`: a number from 1.
pub(crate) fn parse_oid(name: &[u8]) -> Option<u32> {
    let plain = name.iter().all(u8::is_ascii_digit);
    str::from_utf8(name).ok().filter(|_| plain)?.parse().ok().filter(|oid| *oid > 0)
}

/// `scan_for_existing_tablespaces`, in the order of their names.
pub(crate) fn find(
    input: &Path,
    options: &CombineOptions,
    observer: &mut dyn CombineObserver,
) -> Result<Vec<Tablespace>, ClientError> {
    let directory = input.join("pg_tblspc");
    observer.debug(&format!("scanning \"{}\"", directory.display()));
    let entries = std::fs::read_dir(&directory).map_err(ClientError::local("open directory", &directory))?;
    let names: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.map_err(ClientError::local("read directory", &directory))?;
    names.sort_unstable();
    let mut found: Vec<Tablespace> = Vec::new();
    for name in names {
        let path = directory.join(&name);
        let shown = path.display();
        let Some(oid) = parse_oid(name.as_bytes()) else {
            observer.debug(&format!("skipping \"{shown}\" because the filename is not a legal tablespace OID"));
            continue;
        };
        let kind = std::fs::symlink_metadata(&path).map_err(ClientError::local("stat file", &path))?.file_type();
        let tablespace = if kind.is_symlink() {
            linked(oid, &path, options)?
        } else if kind.is_dir() {
            let new = options.output.join("pg_tblspc").join(&name);
            Tablespace { oid, new, old: path.clone(), in_place: true }
        } else {
            observer.debug(&format!("skipping \"{shown}\" because it is neither a symbolic link nor a directory"));
            continue;
        };
        if let Some(other) = found.iter().find(|other| other.new == tablespace.new) {
            return Err(ClientError::Unusable(format!(
                "tablespaces with OIDs {} and {oid} both point at directory \"{}\"",
                other.oid,
                tablespace.new.display()
            )));
        }
        found.push(tablespace);
    }
    Ok(found)
}

fn linked(oid: u32, path: &Path, options: &CombineOptions) -> Result<Tablespace, ClientError> {
    let target = std::fs::read_link(path).map_err(ClientError::local("read symbolic link", path))?;
    if !target.is_absolute() {
        let path = path.display();
        return Err(ClientError::Unusable(format!("target of symbolic link \"{path}\" is relative")));
    }
    let old = canonical(&target);
    // Of several mappings the last counts.
    let mapping = options.tablespace_mapping.iter().rev().find(|(from, _)| canonical(from) == old);
    let Some((_, new)) = mapping else {
        let old = old.display();
        return Err(ClientError::Unusable(format!("tablespace at \"{old}\" has no tablespace mapping")));
    };
    Ok(Tablespace { oid, new: canonical(new), old, in_place: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_are_numbers_from_1() {
        assert_eq!(parse_oid(b"16384"), Some(16384));
        assert_eq!(parse_oid(b"4294967295"), Some(u32::MAX));
        for name in ["", "0", "4294967296", "-1", "1a", " 1"] {
            assert_eq!(parse_oid(name.as_bytes()), None, "{name:?}");
        }
    }
}
