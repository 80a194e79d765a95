//! One file, directory or link of a cluster, as a base backup announces it.

use std::path::PathBuf;
use std::sync::Arc;

/// What a base backup finds when it walks the data directory or a tablespace.
///
/// A cluster's contents can be read through an entry as long as the cluster lives, whatever else happens meanwhile.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name as in the archive: relative, directories and links with a slash at the end; the directories below
    /// `pg_wal` begin with `./`. Bytes, because file names need not be text.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Unix seconds of the last change.
    pub mtime: u64,
    pub(super) origin: Origin,
}

impl Entry {
    /// Bytes of content: 0 for everything but files.
    pub fn size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::Special => 0,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file of so many bytes.
    File {
        /// Bytes at the time of the walk.
        size: u64,
    },
    /// A directory; what it holds follows.
    Directory,
    /// A tablespace's link.
    Symlink {
        /// The absolute location.
        target: Vec<u8>,
    },
    /// A socket, a device, a link elsewhere: skipped with `WARNING skipping special file`.
    Special,
}

/// Where the bytes of an entry come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// No content.
    Nothing,
    /// Real, small content.
    Bytes(Arc<[u8]>),
    /// One segment of a relation's fork.
    Pages(super::synthetic::contents::Pages),
    /// The same with damaged blocks, ascending.
    Damaged(super::synthetic::contents::Pages, Arc<[u32]>),
    /// A sparse file.
    Zeros,
    /// Something else, as a backup found it.
    Found(Box<Origin>, super::Found),
    /// A file on disk.
    Disk(PathBuf),
}

impl Origin {
    /// Where the bytes came from at first.
    pub(super) fn original(&self) -> &Self {
        match self {
            Self::Found(origin, _) => origin.original(),
            origin => origin,
        }
    }
}
