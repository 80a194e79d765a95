//! A backup that lies there as tar files: which there are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Finding;
use super::archive::{self, Check, Report};
use super::restorable::Essentials;
use super::subject::{Stop, Subject};
use crate::error::{ClientError, shown};
use crate::ordered::in_order;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Lz4,
    Zstd,
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Base,
    Wal,
    Tablespace(u32),
}

/// One archive of the backup.
#[derive(Clone, Debug)]
pub(super) struct ArchiveFile {
    /// The file's name, for messages.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) role: Role,
    pub(super) compression: Compression,
    /// Of the file, in bytes.
    size: u64,
}

impl ArchiveFile {
    pub(super) fn is_wal(&self) -> bool {
        self.role == Role::Wal
    }
}

/// What the name of an archive says of it.
fn recognise(name: &[u8]) -> Option<(Role, Compression)> {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (role, suffix) = if let Some(suffix) = name.strip_prefix(b"base") {
        (Role::Base, suffix)
    } else if let Some(suffix) = name.strip_prefix(b"pg_wal") {
        (Role::Wal, suffix)
    } else {
        let (oid, suffix) = name.split_at(digits);
        let oid: u32 = str::from_utf8(oid).ok()?.parse().ok().filter(|&oid| oid > 0)?;
        (Role::Tablespace(oid), suffix)
    };
    let compression = match suffix {
        b".tar" => Compression::None,
        b".tgz" | b".tar.gz" => Compression::Gzip,
        b".tar.lz4" => Compression::Lz4,
        b".tar.zst" => Compression::Zstd,
        _ => return None,
    };
    Some((role, compression))
}

/// Finds the archives, the data directory's first. Whatever else lies beside them is a problem.
pub(super) fn list(subject: &mut Subject<'_>) -> Result<Vec<ArchiveFile>, Stop> {
    let directory = subject.directory.clone();
    let read = |error| ClientError::local("read directory", &directory)(error);
    let entries = std::fs::read_dir(&directory).map_err(ClientError::local("open directory", &directory))?;
    let names: Result<Vec<Vec<u8>>, _> = entries.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect();
    let mut names = names.map_err(read)?;
    names.sort_unstable();
    let mut files = Vec::new();
    for name in names {
        // `pg_wal` is ignored as a directory of a plain backup; `pg_wal.tar` is another name.
        if subject.ignored.contains(&name) {
            continue;
        }
        let path = directory.join(OsStr::from_bytes(&name));
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                subject.found(&Finding::local("stat file or directory", &name, &error))?;
                continue;
            }
        };
        let name = shown(&name);
        if !metadata.is_file() {
            subject.found(&Finding::new(format!("file \"{name}\" is not a regular file")))?;
            continue;
        }
        let Some((role, compression)) = recognise(name.as_bytes()) else {
            subject.found(&Finding::new(format!("file \"{name}\" is not expected in a tar format backup")))?;
            continue;
        };
        let taken = files.iter().find(|other: &&ArchiveFile| other.role == role);
        if let Some(other) = taken {
            let text = format!("files \"{}\" and \"{name}\" hold the same archive", other.name);
            subject.found(&Finding::not_restorable(text))?;
        }
        files.push(ArchiveFile { name, path, role, compression, size: metadata.len() });
    }
    files.sort_by_key(|file| file.role != Role::Base);
    Ok(files)
}

/// Reads every archive, several at once, and compares its members with the manifest.
pub(super) fn verify(subject: &mut Subject<'_>, files: &[ArchiveFile]) -> Result<Essentials, Stop> {
    let total = files.iter().map(|file| file.size).sum();
    let done = AtomicU64::new(0);
    subject.progress(0, total, false);
    let mut essentials = Essentials::default();
    let check = Check {
        listed: Arc::clone(&subject.listed),
        ignored: subject.ignored.clone(),
        skip_checksums: subject.options.skip_checksums,
    };
    in_order(
        files,
        |file, stop| archive::verify(file, &check, &done, stop),
        |result| {
            if let Some((_, report)) = result {
                return take(subject, report, &mut essentials);
            }
            subject.progress(done.load(Ordering::Relaxed), total, false);
            Ok(())
        },
    )?;
    subject.progress(done.load(Ordering::Relaxed), total, true);
    Ok(essentials)
}

/// Tells what came out of one archive.
fn take(subject: &mut Subject<'_>, report: Report, essentials: &mut Essentials) -> Result<(), Stop> {
    for index in report.matched {
        let twice = subject.state(index).is_some_and(|state| std::mem::replace(&mut state.matched, true));
        if twice && let Some(file) = subject.listed.manifest.files.get(index) {
            let text = format!("file \"{}\" is present in the archives more than once", shown(&file.path));
            subject.found(&Finding::not_restorable(text))?;
        }
    }
    for index in report.bad {
        if let Some(state) = subject.state(index) {
            state.bad = true;
        }
    }
    for finding in &report.findings {
        subject.found(finding)?;
    }
    essentials.absorb(report.essentials);
    report.fatal.map_or(Ok(()), |error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_an_archive_is() {
        assert_eq!(recognise(b"base.tar"), Some((Role::Base, Compression::None)));
        assert_eq!(recognise(b"base.tgz"), Some((Role::Base, Compression::Gzip)));
        assert_eq!(recognise(b"16384.tar.lz4"), Some((Role::Tablespace(16384), Compression::Lz4)));
        assert_eq!(recognise(b"pg_wal.tar.zst"), Some((Role::Wal, Compression::Zstd)));
        for name in ["base", "base.tar.bz2", "0.tar", "4294967296.tar", ".tar", "16384", "pg_wal.tar.tar"] {
            assert_eq!(recognise(name.as_bytes()), None, "{name}");
        }
    }
}
