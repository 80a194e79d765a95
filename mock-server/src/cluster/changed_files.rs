//! Files that change while the server runs: they are removed, shrink, grow, are written anew, or appear.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use backstop_protocol::lsn::Lsn;

use super::entry::Origin;
use super::{Cluster, Entry, EntryKind, ground_truth};

/// What has become of a file. The last change counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Removed,
    /// It has so many bytes.
    Size(u64),
    /// Its blocks were written anew, with this position in their headers.
    Rewritten(Lsn),
    /// It was not there before.
    Added(Arc<[u8]>),
}

/// The files that have changed, by their paths in the manifest.
pub(super) type ChangedFiles = BTreeMap<Vec<u8>, Change>;

/// What a backup found of a file that the cluster had otherwise at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Beginning(u64),
    /// From here on it sent zeros.
    ZerosFrom(u64),
    /// So many bytes, more than there were.
    Grown(u64),
    /// From here on it sent blocks that were written anew.
    RewrittenFrom {
        /// Where.
        offset: u64,
        /// The position in their headers.
        lsn: Lsn,
    },
    /// The whole file, which had not been there.
    Added,
}

impl Cluster {
    /// Removes a file, or all of it beyond `size`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn shrink_file(&self, path: &str, size: Option<u64>) -> io::Result<()> {
        self.file(path)?;
        self.change(path, size.map_or(Change::Removed, Change::Size));
        Ok(())
    }

    /// Makes a file of a relation longer.
    ///
    /// # Errors
    /// There is no such file, it is another kind of file, or it is not shorter.
    pub fn grow_file(&self, path: &str, size: u64) -> io::Result<()> {
        let entry = self.file(path)?;
        if !matches!(entry.origin, Origin::Pages(_) | Origin::Zeros) {
            return Err(invalid(format!("\"{path}\" is not a file of a relation")));
        }
        if entry.size() >= size {
            return Err(invalid(format!("\"{path}\" has {} bytes already", entry.size())));
        }
        self.change(path, Change::Size(size));
        Ok(())
    }

    /// Writes the blocks of a file anew.
    ///
    /// # Errors
    /// There is no such file.
    pub fn rewrite_file(&self, path: &str) -> io::Result<()> {
        self.file(path)?;
        self.change(path, Change::Rewritten(self.flush_position()));
        Ok(())
    }

    /// Makes a file that was not there.
    ///
    /// # Errors
    /// It was there, or the directory is not there in which it is to be.
    pub fn add_file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        if self.file(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("the cluster has a file \"{path}\"")));
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            let is_directory = |entry: Entry| entry.kind == EntryKind::Directory;
            if !self.find(parent)?.is_some_and(is_directory) {
                let message = format!("the cluster has no directory \"{parent}\"");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        }
        self.change(path, Change::Added(content.into()));
        Ok(())
    }

    fn change(&self, path: &str, change: Change) {
        self.inner.lock().changed_files.insert(path.as_bytes().to_vec(), change);
    }

    fn find(&self, path: &str) -> io::Result<Option<Entry>> {
        for entry in ground_truth(self)? {
            let (name, entry) = entry?;
            if name == path.as_bytes() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn file(&self, path: &str) -> io::Result<Entry> {
        let file = self.find(path)?.filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the cluster has no file \"{path}\"")))
    }

    /// What has become of a file.
    pub(crate) fn change_of(&self, path: &[u8]) -> Option<Change> {
        self.inner.lock().changed_files.get(path).cloned()
    }

    /// The size that a file had before anything happened to it.
    pub(crate) fn size_at_first(&self, path: &[u8]) -> Option<u64> {
        self.file(str::from_utf8(path).ok()?).ok().map(|entry| entry.size())
    }

    /// The files that were removed below a directory, at any depth.
    pub(crate) fn removed_below(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let below = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let state = self.inner.lock();
        let removed =
            state.changed_files.iter().filter(|(path, change)| path.starts_with(&below) && **change == Change::Removed);
        removed.map(|(path, _)| path.clone()).collect()
    }

    /// The files that were added to a tablespace or to the base directory, with their names in its archive.
    pub(crate) fn added_entries(&self, oid: Option<u32>) -> Vec<Entry> {
        let below = oid.map(|oid| format!("pg_tblspc/{oid}/").into_bytes());
        let mtime = u64::try_from(self.epoch()).unwrap_or(0);
        let state = self.inner.lock();
        let added = state.changed_files.iter().filter_map(|(path, change)| {
            let Change::Added(content) = change else { return None };
            let name = match &below {
                Some(below) => path.strip_prefix(&below[..])?,
                None if path.starts_with(b"pg_tblspc/") => return None,
                None => path,
            };
            Some(added(name.to_vec(), Arc::clone(content), mtime))
        });
        added.collect()
    }

    /// The file as a backup found it: its size, and what is read of it.
    pub(crate) fn as_found(entry: Entry, found: Found) -> Entry {
        let EntryKind::File { size } = entry.kind else { return entry };
        match found {
            Found::Beginning(left) => Entry { kind: EntryKind::File { size: left.min(size) }, ..entry },
            Found::Grown(size) => Entry { kind: EntryKind::File { size }, ..entry },
            Found::ZerosFrom(_) | Found::RewrittenFrom { .. } => {
                let origin = Origin::Found(Box::new(entry.origin), found);
                Entry { origin, ..entry }
            }
            Found::Nothing | Found::Added => entry,
        }
    }

    /// A file that was added, by its path in the manifest.
    pub(super) fn added_file(&self, path: &[u8]) -> Option<Entry> {
        let mtime = u64::try_from(self.epoch()).unwrap_or(0);
        match self.change_of(path)? {
            Change::Added(content) => Some(added(path.to_vec(), content, mtime)),
            _ => None,
        }
    }
}

impl Found {
    /// Changes what was read of `entry` at `offset`, a multiple of the size of a block, to what was found there.
    pub(crate) fn apply(self, entry: &Entry, offset: u64, bytes: &mut [u8]) {
        apply(&entry.origin, self, offset, bytes);
    }
}

/// Changes what was read of a file at `offset`, a multiple of the size of a block, to what was `found` there.
pub(super) fn apply(origin: &Origin, found: Found, offset: u64, bytes: &mut [u8]) {
    let within = |from: u64| usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
    match found {
        Found::ZerosFrom(from) => bytes.get_mut(within(from)..).unwrap_or_default().fill(0),
        Found::RewrittenFrom { offset: from, lsn } => {
            if let Some(rewritten) = bytes.get_mut(within(from)..) {
                rewrite(origin, lsn, from.max(offset), rewritten);
            }
        }
        Found::Nothing | Found::Beginning(_) | Found::Grown(_) | Found::Added => {}
    }
}

/// Writes blocks anew: other tuples, a newer position, a checksum that agrees. Of what has no blocks every byte is another.
fn rewrite(origin: &Origin, lsn: Lsn, offset: u64, bytes: &mut [u8]) {
    match origin {
        Origin::Pages(pages) | Origin::Damaged(pages, _) => pages.rewrite(lsn, offset, bytes),
        _ => bytes.iter_mut().for_each(|byte| *byte = !*byte),
    }
}

fn added(name: Vec<u8>, content: Arc<[u8]>, mtime: u64) -> Entry {
    let kind = EntryKind::File { size: content.len() as u64 };
    Entry { name, kind, mode: 0o600, mtime, origin: Origin::Bytes(content) }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
