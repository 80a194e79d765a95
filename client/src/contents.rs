//! What the archives held: sizes and checksums of all files, and the few that say what the backup is.

use std::collections::BTreeMap;

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use bytes::Bytes;

use crate::archive_check::{Kind, Member, wal_segment};
use crate::error::ClientError;
use crate::incremental::BlockFile;
use crate::receive::Position;
use crate::wal_check::WalCheck;

/// Files that are kept in memory to be read at the end, and how large they may be.
const KEPT: [(&[u8], u64); 4] =
    [(b"backup_label", 64 << 10), (b"tablespace_map", 64 << 20), (b"PG_VERSION", 64), (b"global/pg_control", 8192)];

/// A file as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) size: u64,
    /// When it was changed last, by its archive: Unix seconds.
    pub(crate) modified: u64,
    /// Empty with [`ChecksumAlgorithm::None`].
    pub(crate) checksum: Vec<u8>,
}

/// Why content is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Something about the current member.
    Member(String),
    /// WAL that is none.
    Wal(ClientError),
}

struct Current {
    path: Vec<u8>,
    size: u64,
    modified: u64,
    hasher: ChecksumHasher,
    kept: Option<Vec<u8>>,
    /// The segment, and how much of it came.
    wal: Option<(WalFileName, u64)>,
    /// Of a file that holds changed blocks only.
    blocks: Option<BlockFile>,
}

/// Everything that the archives held.
pub(crate) struct Contents {
    version: ServerVersion,
    segment_size: WalSegmentSize,
    start: Position,
    algorithm: ChecksumAlgorithm,
    current: Option<Current>,
    files: BTreeMap<Vec<u8>, Received>,
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    segments: Vec<WalFileName>,
    wal: WalCheck,
}

impl Contents {
    pub(crate) fn new(
        version: ServerVersion,
        segment_size: WalSegmentSize,
        start: Position,
        algorithm: ChecksumAlgorithm,
        wal: WalCheck,
    ) -> Self {
        Self {
            version,
            segment_size,
            start,
            algorithm,
            current: None,
            files: BTreeMap::new(),
            kept: BTreeMap::new(),
            segments: Vec::new(),
            wal,
        }
    }

    /// A member begins.
    pub(crate) fn begin(&mut self, member: &Member, modified: u64) -> Result<(), String> {
        let Kind::File { size } = member.kind else { return Ok(()) };
        let kept = KEPT.iter().find(|(name, _)| *name == member.path);
        if kept.is_some_and(|(_, limit)| size > *limit) {
            return Err(format!("{size} bytes, far too many for this file"));
        }
        let wal = self.segment(&member.path);
        if wal.is_some() && size != self.segment_size.bytes() {
            return Err(format!("unexpected WAL file size: {size} bytes, not {}", self.segment_size.bytes()));
        }
        self.current = Some(Current {
            path: member.path.clone(),
            size,
            modified,
            hasher: ChecksumHasher::new(if wal.is_some() { ChecksumAlgorithm::None } else { self.algorithm }),
            kept: kept.map(|_| Vec::new()),
            wal: wal.map(|name| (name, 0)),
            blocks: member.changed_blocks.then(|| BlockFile::new(size)),
        });
        Ok(())
    }

    /// The WAL segment that this is a file of.
    fn segment(&self, path: &[u8]) -> Option<WalFileName> {
        let name = path.strip_prefix(self.version.wal_directory().as_bytes())?.strip_prefix(b"/")?;
        wal_segment(str::from_utf8(name).ok()?)
    }

    /// Content of the current member.
    pub(crate) fn data(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Some(blocks) = &mut current.blocks {
            blocks.push(bytes).map_err(Refusal::Member)?;
        }
        current.hasher.update(bytes);
        if let Some(kept) = &mut current.kept {
            kept.extend_from_slice(bytes);
        }
        if let Some((name, done)) = &mut current.wal {
            let segment = name.segment(self.segment_size).unwrap_or_default();
            let at = self.segment_size.start_of(segment).saturating_add(*done);
            *done += bytes.len() as u64;
            self.wal.push(name.timeline, at, bytes).map_err(Refusal::Wal)?;
        }
        Ok(())
    }

    /// The current member is complete.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if let Some(blocks) = &current.blocks {
            blocks.finish()?;
        }
        if let Some((name, _)) = current.wal {
            // Segments are not in the manifest.
            self.segments.push(name);
            return Ok(());
        }
        if let Some(kept) = current.kept {
            self.kept.insert(current.path.clone(), kept);
        }
        let (size, modified) = (current.size, current.modified);
        self.files.insert(current.path, Received { size, modified, checksum: current.hasher.finish() });
        Ok(())
    }

    /// A file that came otherwise than in an archive.
    pub(crate) fn add(&mut self, path: &[u8], content: &[u8]) {
        let mut hasher = ChecksumHasher::new(self.algorithm);
        hasher.update(content);
        let received = Received { size: content.len() as u64, modified: 0, checksum: hasher.finish() };
        self.files.insert(path.to_vec(), received);
    }

    /// What files were hashed with.
    pub(crate) fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// All files but WAL segments, by path.
    pub(crate) fn files(&self) -> &BTreeMap<Vec<u8>, Received> {
        &self.files
    }

    /// The content of one of the files that are kept.
    pub(crate) fn kept(&self, path: &[u8]) -> Option<&[u8]> {
        self.kept.get(path).map(Vec::as_slice)
    }

    /// Requires that the WAL in the base archive covers the backup.
    pub(crate) fn check_wal(&self, end: Position) -> Result<(), ClientError> {
        let size = self.segment_size;
        for segment in size.segment_of(self.start.lsn)..=size.segment_before(end.lsn) {
            let there = self.segments.iter().any(|name| {
                (self.start.timeline..=end.timeline).contains(&name.timeline) && name.segment(size) == Some(segment)
            });
            if !there {
                let name = WalFileName::new(end.timeline, segment, size);
                return Err(ClientError::Incomplete(format!("could not find WAL file \"{name}\"")));
            }
        }
        self.wal.covers(end.lsn)
    }
}
