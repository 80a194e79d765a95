//! Lists what a base backup sends of a directory, in the order of names, a directory before what it holds.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::exclude;
use backstop_protocol::version::ServerVersion;

use super::super::Tablespace;
use super::super::entry::{Entry, EntryKind, Origin};
use super::about;

/// A walk under way. Links are not followed, except those of `pg_wal` and of the directories that are sent empty, which a
/// backup turns into directories.
#[derive(Debug)]
pub(super) struct Walk {
    version: ServerVersion,
    /// Entries that need no look at the disk: what was found already.
    ready: VecDeque<Entry>,
    /// Directories that are open, the innermost last.
    open: Vec<Open>,
    /// Names of directories whose content a tablespace's own archive holds.
    skipped: BTreeSet<Vec<u8>>,
}

/// A directory whose names have been read.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    /// Its name in the archive, with a slash at the end; empty at the top.
    name: Vec<u8>,
    /// What remains of its names, the first last.
    names: Vec<OsString>,
    /// Relations that have an init fork, if it is a database's directory: unlogged ones.
    unlogged: Option<BTreeSet<Vec<u8>>>,
}

/// Permission bits of a mode.
fn permissions(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn mtime(metadata: &Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

impl Walk {
    fn empty(version: ServerVersion) -> Self {
        Self { version, ready: VecDeque::new(), open: Vec::new(), skipped: BTreeSet::new() }
    }

    /// The data directory at `root`.
    pub(super) fn base(root: &Path, version: ServerVersion, tablespaces: &[Tablespace]) -> io::Result<Self> {
        let mut walk = Self::empty(version);
        let in_place = tablespaces.iter().filter(|tablespace| tablespace.in_place);
        walk.skipped = in_place.map(|tablespace| format!("{}/", tablespace.location).into_bytes()).collect();
        walk.descend(root.to_owned(), Vec::new())?;
        Ok(walk)
    }

    /// The tablespace at `location`: of all it holds, the directory of this release.
    pub(super) fn tablespace(location: &Path, version: ServerVersion) -> io::Result<Self> {
        let mut walk = Self::empty(version);
        let name = version.tablespace_version_directory();
        let path = location.join(&name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(walk),
            Err(error) => return Err(about(&path, &error)),
        };
        let name = format!("{name}/").into_bytes();
        walk.ready.push_back(directory(name.clone(), &metadata));
        walk.descend(path, name)?;
        Ok(walk)
    }

    /// Reads the names of a directory, which come next.
    fn descend(&mut self, path: PathBuf, name: Vec<u8>) -> io::Result<()> {
        let list = || fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
        let mut names = list().map_err(|error| about(&path, &error))?;
        names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        let unlogged = exclude::is_database(&name, self.version).then(|| {
            let relations = names.iter().filter_map(|name| exclude::relation(name.as_bytes()));
            relations.filter(|(_, init)| *init).map(|(number, _)| number.to_vec()).collect()
        });
        self.open.push(Open { path, name, names, unlogged });
        Ok(())
    }

    /// Looks at what has been found at `path`, `name` in the archive. Nothing: it is left out.
    fn look(&mut self, path: PathBuf, name: Vec<u8>, file_name: &[u8]) -> io::Result<Option<Entry>> {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // It has gone since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(about(&path, &error)),
        };
        let with_slash = [&name[..], b"/"].concat();
        let is_wal = name == self.version.wal_directory().as_bytes();
        if is_wal || exclude::sent_empty(file_name) {
            if is_wal {
                self.below_wal(&metadata);
            }
            return Ok(Some(directory(with_slash, &metadata)));
        }
        if metadata.is_dir() {
            if !self.skipped.contains(&with_slash) {
                self.descend(path, with_slash.clone())?;
            }
            return Ok(Some(directory(with_slash, &metadata)));
        }
        let (name, kind, mode, origin) = if metadata.is_file() {
            (name, EntryKind::File { size: metadata.len() }, permissions(&metadata), Origin::Disk(path))
        } else if metadata.is_symlink() && name.strip_suffix(file_name) == Some(b"pg_tblspc/") {
            let target = fs::read_link(&path).map_err(|error| about(&path, &error))?;
            let target = target.into_os_string().into_vec();
            (with_slash, EntryKind::Symlink { target }, 0o777, Origin::Nothing)
        } else {
            (name, EntryKind::Special, permissions(&metadata), Origin::Nothing)
        };
        Ok(Some(Entry { name, kind, mode, mtime: mtime(&metadata), origin }))
    }

    /// The directories below `pg_wal`, which are sent empty whether they exist or not.
    fn below_wal(&mut self, metadata: &Metadata) {
        let wal = self.version.wal_directory();
        self.ready.push_back(directory(format!("./{wal}/archive_status/").into_bytes(), metadata));
        if self.version.has_wal_summaries() {
            self.ready.push_back(directory(format!("./{wal}/summaries/").into_bytes(), metadata));
        }
    }
}

impl Open {
    /// Whether one of its files is a temporary relation, or an unlogged one's that a restart would empty anyway.
    fn hides(&self, file_name: &[u8]) -> bool {
        let Some(unlogged) = &self.unlogged else { return false };
        let of_unlogged = exclude::relation(file_name).is_some_and(|(number, init)| !init && unlogged.contains(number));
        of_unlogged || exclude::temporary_relation(file_name)
    }
}

impl Iterator for Walk {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            let open = self.open.last_mut()?;
            let Some(file_name) = open.names.pop() else {
                self.open.pop();
                continue;
            };
            let bytes = file_name.as_bytes();
            let name = [&open.name, bytes].concat();
            if exclude::left_out(bytes, self.version) || open.hides(bytes) || name == b"global/pg_control" {
                continue;
            }
            let path = open.path.join(&file_name);
            match self.look(path, name, bytes) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    // Nothing after an error can be relied on.
                    self.open.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A directory by its name with a slash at the end. What was a link becomes a directory with the usual permissions.
fn directory(name: Vec<u8>, metadata: &Metadata) -> Entry {
    let mode = if metadata.is_dir() { permissions(metadata) } else { 0o700 };
    Entry { name, kind: EntryKind::Directory, mode, mtime: mtime(metadata), origin: Origin::Nothing }
}
