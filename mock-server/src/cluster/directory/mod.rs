//! A real data directory whose server has been shut down.
//!
//! [`mod@load`] checks that it can be served, [`walk`] lists what a base backup sends of it. Files are read
//! through [`page_cache`]. Its WAL is read from `pg_wal`; new WAL is generated right behind the shutdown
//! checkpoint and never written, with images of the blocks that [`blocks`] finds in it.

mod blocks;
mod load;
mod page_cache;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::wal::WalReadError;
use super::{Entries, Tablespace};

use walk::Walk;

pub(super) use load::{Loaded, load};

/// The files of a data directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    version: ServerVersion,
    tablespaces: Vec<Tablespace>,
}

impl Directory {
    pub(super) fn new(root: PathBuf, version: ServerVersion, tablespaces: Vec<Tablespace>) -> Self {
        Self { root, version, tablespaces }
    }

    pub(super) fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Walks the data directory or a tablespace. A tablespace that does not exist, or has no directory of this release, is
    /// empty.
    pub(super) fn entries(&self, oid: Option<u32>) -> io::Result<Entries> {
        let Some(oid) = oid else { return Ok(Box::new(Walk::base(&self.root, self.version, &self.tablespaces)?)) };
        let location = self.tablespaces.iter().find(|tablespace| tablespace.oid == oid);
        // The location of a tablespace in place is relative to the data directory; joining an absolute one replaces it.
        let location = location.map(|tablespace| self.root.join(&tablespace.location));
        Ok(match location {
            Some(location) => Box::new(Walk::tablespace(&location, self.version)?),
            None => Box::new(std::iter::empty()),
        })
    }

    /// Bytes of all files.
    pub(super) fn size(&self, oid: Option<u32>) -> io::Result<u64> {
        self.entries(oid)?.try_fold(0_u64, |sum, entry| Ok(sum.saturating_add(entry?.size())))
    }
}

/// Reads a file on disk from `offset`, as far as it goes. What was not in the page cache before is not there afterwards.
pub(super) fn read(path: &Path, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    page_cache::read(&File::open(path)?, offset, buf)
}

/// An error that says which file it is about.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The segments in `pg_wal`.
#[derive(Debug)]
pub(super) struct DiskWal {
    directory: PathBuf,
    segment_size: WalSegmentSize,
    /// The timeline at shutdown.
    timeline: TimelineId,
    history: TimelineHistory,
}

impl DiskWal {
    /// Reads WAL of `timeline`.
    pub(super) fn read(&self, timeline: TimelineId, from: Lsn, buf: &mut [u8]) -> Result<(), WalReadError> {
        let mut at = from;
        let mut rest = buf;
        while !rest.is_empty() {
            let offset = self.segment_size.offset_of(at);
            let room = usize::try_from(self.segment_size.bytes() - offset).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut(room);
            self.read_segment(timeline, at, offset, piece)?;
            at = at.saturating_add(room as u64);
            rest = after;
        }
        Ok(())
    }

    /// Reads within one segment. When its timeline ended there, the segment may be left under a descendant's name only,
    /// which then holds the same up to that point.
    fn read_segment(&self, timeline: TimelineId, at: Lsn, offset: u64, buf: &mut [u8]) -> Result<(), WalReadError> {
        let asked = timeline.min(self.timeline);
        let ancestors = self.history.switches.iter().map(|switch| switch.parent);
        for timeline in ancestors.chain([self.timeline]).filter(|candidate| *candidate >= asked) {
            let name = WalFileName::holding(timeline, at, self.segment_size).to_string();
            match read(&self.directory.join(name), offset, buf) {
                Ok(count) if count == buf.len() => return Ok(()),
                Ok(_) => return Err(WalReadError::Io(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(WalReadError::Io(error)),
            }
        }
        Err(WalReadError::Removed(WalFileName::holding(asked, at, self.segment_size)))
    }
}
