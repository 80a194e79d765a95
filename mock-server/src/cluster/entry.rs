//! One file, directory or link of a cluster, as a base backup announces it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{changed_files, directory, synthetic};

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

    /// Reads the content from `offset`: see [`Cluster::read`](super::Cluster::read).
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        let (buf, _) = buf.split_at_mut(length);
        match &self.origin {
            Origin::Nothing => return Ok(0),
            Origin::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                // As long as the entry says; a size is never larger than the content.
                let (piece, _) = rest.split_at(length.min(rest.len()));
                buf[..piece.len()].copy_from_slice(piece);
                return Ok(piece.len());
            }
            Origin::Pages(pages) => pages.read(offset, buf),
            Origin::Damaged(pages, blocks) => {
                pages.read(offset, buf);
                synthetic::damage(pages, blocks, offset, buf);
            }
            Origin::Zeros => buf.fill(0),
            Origin::Found(origin, found) => {
                let inner = Self { origin: Origin::clone(origin), ..self.clone() };
                let read = inner.read(offset, buf)?;
                changed_files::apply(origin, *found, offset, buf.get_mut(..read).unwrap_or_default());
                return Ok(read);
            }
            Origin::Disk(path) => return directory::read(path, offset, buf),
        }
        Ok(length)
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
    Pages(synthetic::contents::Pages),
    /// The same with damaged blocks, ascending.
    Damaged(synthetic::contents::Pages, Arc<[u32]>),
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
