//! What a backup is a copy of, as far as oracles ask: a server that is still there, or what was written down of it.

use std::fmt;
use std::io;
use std::ops::Range;

use backstop_mock::cluster::{Cluster, Entry, EntryKind, Tablespace, ground_truth, ground_truth_of};
use backstop_mock::{BackupRecord, Server};
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;

use super::bytes::first_difference;
use super::postgres::Installation;
use super::wal::blank;

/// A member that a sound copy holds.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its path in the manifest.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ExpectedKind,
    /// How its bytes are known.
    pub(crate) known: Known,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedKind {
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A link of a tablespace.
    Symlink,
    /// What no archive holds.
    Special,
}

/// How the bytes of a file are known.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// The server can be asked.
    Live { entry: Entry, changed: Option<Vec<u32>> },
    /// It lies in a data directory under its path.
    Disk { changed: Option<Vec<u32>> },
    /// Their checksums were written down: CRC-32C of each block.
    Blocks { checksums: Vec<u32>, changed: Option<Vec<u32>> },
}

impl Expected {
    /// In an incremental backup, the blocks that have changed since the backup before.
    pub fn changed_blocks(&self) -> Option<&[u32]> {
        match &self.known {
            Known::Live { changed, .. } | Known::Disk { changed } | Known::Blocks { changed, .. } => changed.as_deref(),
        }
    }
}

/// What a backup is a copy of.
pub trait Original: fmt::Debug + Send + Sync {
    /// The release.
    fn version(&self) -> ServerVersion;
    /// `system_identifier` of its `pg_control`.
    fn system_identifier(&self) -> u64;
    /// The size of its WAL segments.
    fn segment_size(&self) -> WalSegmentSize;
    /// Its tablespaces besides `pg_default` and `pg_global`.
    fn tablespaces(&self) -> Vec<Tablespace>;
    /// The server's cluster, for what only it can answer. Nothing, if it was written down or is not known.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }
    /// PostgreSQL's programs, if it is PostgreSQL that was copied: what was made of it has to start.
    fn postgres(&self) -> Option<&Installation> {
        None
    }
    /// Whether its files are known: [`expected`](Self::expected) then says what a copy holds.
    fn knows_files(&self) -> bool;
    /// What a sound backup holds, as `backup` found it.
    fn expected(&self, backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>>;
    /// Reads what `file` holds at `offset` into all of `bytes`.
    ///
    /// # Errors
    /// Those of reading, and that only checksums are known.
    fn read(&self, file: &Expected, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Where `stored`, which was read at `offset`, a multiple of the size of a block, differs from what `file` holds: the
    /// bytes of the file in which the first difference is, as closely as it is known.
    fn difference(&self, file: &Expected, offset: u64, stored: &[u8]) -> io::Result<Option<Range<u64>>>;
    /// Reads WAL at `position` into all of `bytes`; false if it is not known any more.
    fn read_wal(&self, timeline: TimelineId, position: Lsn, bytes: &mut [u8]) -> bool;
    /// Where `stored` differs first from the WAL at `position`, in which `unread` is zero. What is no longer known differs
    /// nowhere.
    fn wal_difference(
        &self,
        timeline: TimelineId,
        position: Lsn,
        stored: &[u8],
        unread: &[Range<usize>],
    ) -> Option<Lsn>;
}

impl Original for Server {
    fn version(&self) -> ServerVersion {
        Self::cluster(self).version()
    }

    fn system_identifier(&self) -> u64 {
        Self::cluster(self).system_identifier()
    }

    fn segment_size(&self) -> WalSegmentSize {
        Self::cluster(self).segment_size()
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        Self::cluster(self).tablespaces()
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(Self::cluster(self))
    }

    fn knows_files(&self) -> bool {
        true
    }

    fn expected(&self, backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>> {
        let cluster = Self::cluster(self);
        // As the backup found the cluster, which may have changed since.
        let truth = match backup {
            Some(backup) => ground_truth_of(cluster, backup)?,
            None => ground_truth(cluster)?,
        };
        let since = backup.and_then(|backup| BackupLabel::parse(&backup.label_text).ok()?.incremental_from);
        let mut all = Vec::new();
        for entry in truth {
            let (path, entry) = entry?;
            all.push(expected(cluster, path, entry, since.map(|(since, _)| since)));
        }
        Ok(all)
    }

    fn read(&self, file: &Expected, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let read = read(Self::cluster(self), file, offset, bytes)?;
        if read < bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn difference(&self, file: &Expected, offset: u64, stored: &[u8]) -> io::Result<Option<Range<u64>>> {
        let mut theirs = vec![0; stored.len()];
        let known = read(Self::cluster(self), file, offset, &mut theirs)?;
        Ok(difference_in(&theirs, known, offset, stored))
    }

    fn read_wal(&self, timeline: TimelineId, position: Lsn, bytes: &mut [u8]) -> bool {
        Self::cluster(self).read_wal(timeline, position, bytes).is_ok()
    }

    fn wal_difference(
        &self,
        timeline: TimelineId,
        position: Lsn,
        stored: &[u8],
        unread: &[Range<usize>],
    ) -> Option<Lsn> {
        let read = |theirs: &mut [u8]| self.read_wal(timeline, position, theirs);
        wal_difference_by(read, position, stored, unread)
    }
}

/// Where `stored` differs first from the WAL at `position` that `read` gives, without what is `unread`.
pub(crate) fn wal_difference_by(
    read: impl FnOnce(&mut [u8]) -> bool,
    position: Lsn,
    stored: &[u8],
    unread: &[Range<usize>],
) -> Option<Lsn> {
    let mut theirs = vec![0; stored.len()];
    if !read(&mut theirs) {
        return None;
    }
    blank(&mut theirs, unread);
    first_difference(stored, &theirs).map(|at| position + at as u64)
}

/// Where `stored` differs first from `theirs`, of which the first `known` bytes are known: the place in a file when they begin at
/// `offset`.
pub(crate) fn difference_in(theirs: &[u8], known: usize, offset: u64, stored: &[u8]) -> Option<Range<u64>> {
    let differs = first_difference(stored.get(..known).unwrap_or(stored), theirs);
    let at = differs.or((known < stored.len()).then_some(known)).map(|at| offset + at as u64);
    at.map(|at| at..at + 1)
}

/// How much could be read.
fn read(cluster: &Cluster, file: &Expected, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let Known::Live { entry, .. } = &file.known else { return Ok(0) };
    cluster.read(entry, offset, bytes)
}

fn expected(cluster: &Cluster, path: Vec<u8>, entry: Entry, since: Option<Lsn>) -> Expected {
    let mut changed = None;
    let kind = match &entry.kind {
        EntryKind::File { size } => {
            changed = since.map(|since| cluster.changed_blocks(&entry, since));
            ExpectedKind::File { size: *size }
        }
        EntryKind::Directory => ExpectedKind::Directory,
        EntryKind::Symlink { .. } => ExpectedKind::Symlink,
        EntryKind::Special => ExpectedKind::Special,
    };
    Expected { path, kind, known: Known::Live { entry, changed } }
}

/// The checksums of the blocks of `bytes`, the last of which may be a part of one.
pub(crate) fn block_checksums(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks(BLOCK_SIZE).map(crc32c::crc32c)
}

/// Where `bytes`, which were read at `offset`, first disagree with the `checksums` of all blocks.
pub(crate) fn against_checksums(checksums: &[u32], offset: u64, bytes: &[u8]) -> Option<Range<u64>> {
    let block = BLOCK_SIZE as u64;
    let first = usize::try_from(offset / block).unwrap_or(usize::MAX);
    let known = checksums.get(first..).unwrap_or_default();
    let at = block_checksums(bytes).enumerate().position(|(index, found)| known.get(index) != Some(&found))? as u64;
    let end = bytes.len() as u64;
    Some(offset + at * block..offset + end.min((at + 1) * block))
}
