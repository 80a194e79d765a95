//! The manifest that a client uploads before an incremental backup: what a server keeps of it.

use std::collections::BTreeSet;

use super::numbers::Numbers;
use super::parse::{ManifestParser, Visitor};
use super::{ManifestError, ManifestFile, WalRange};

/// `MIN_CHUNK`: this much is kept back for the last piece, which must hold the last two lines.
const MIN_CHUNK: usize = 1024;

/// `MAX_CHUNK`: when so much has come, all but [`MIN_CHUNK`] is parsed.
const MAX_CHUNK: usize = 128 * 1024;

/// The longest word of a manifest, in bytes.
const MAX_WORD: usize = 1 << 20;

/// The most bytes that are kept of a manifest: paths and ranges, each with [`OVERHEAD`]. PostgreSQL ends at a gigabyte for its
/// table of files.
const MAX_KEPT: usize = 256 << 20;

/// What a path costs besides its bytes, about.
const OVERHEAD: usize = 32;

/// A manifest on its way to the server (UPLOAD_MANIFEST, since 17): `IncrementalBackupInfo` while it is filled.
///
/// Memory grows with the number of files, by their paths, and not with the size of the manifest.
///
/// ```
/// use backstop_protocol::base_backup::manifest::{ManifestUpload, ManifestWriter, WalRange};
/// # use backstop_protocol::{lsn::Lsn, timeline::TimelineId};
/// let mut bytes = Vec::new();
/// let range = WalRange { timeline: TimelineId(1), start: Lsn(0x200_0028), end: Lsn(0x200_0120) };
/// ManifestWriter::new(2, Some(77), false).finish(&[range], &mut bytes);
///
/// let mut upload = ManifestUpload::new(77);
/// for piece in bytes.chunks(10) {
///     upload.append(piece)?;
/// }
/// assert_eq!(upload.finish()?.wal_ranges(), [range]);
/// # Ok::<(), backstop_protocol::base_backup::manifest::ManifestError>(())
/// ```
#[derive(Debug)]
pub struct ManifestUpload {
    parser: ManifestParser<PriorBackup>,
    /// What has come and is not parsed yet.
    buffer: Vec<u8>,
    /// How full it may be before it is parsed.
    limit: usize,
}

/// What a server remembers of an uploaded manifest.
#[derive(Debug, Default)]
pub struct PriorBackup {
    system_identifier: u64,
    paths: BTreeSet<Box<[u8]>>,
    wal_ranges: Vec<WalRange>,
    /// Bytes of the above, about.
    kept: usize,
}

impl ManifestUpload {
    /// An upload to the server whose system identifier is `system_identifier`.
    pub fn new(system_identifier: u64) -> Self {
        let prior = PriorBackup { system_identifier, ..PriorBackup::default() };
        Self { parser: ManifestParser::new(prior, Numbers::AsC), buffer: Vec::new(), limit: MAX_CHUNK }
    }

    /// Takes the next bytes, `AppendIncrementalManifestData`.
    ///
    /// # Errors
    /// The first problem in what has been parsed so far; [`ManifestError::OutOfMemory`].
    pub fn append(&mut self, data: &[u8]) -> Result<(), ManifestError> {
        let length = self.buffer.len();
        if length > MIN_CHUNK && length.saturating_add(data.len()) > self.limit {
            let used = self.parser.read(self.buffer.get(..length - MIN_CHUNK).unwrap_or_default())?;
            self.buffer.drain(..used);
            if self.buffer.len() > MAX_WORD {
                return Err(ManifestError::OutOfMemory);
            }
            // A long word that is not complete is looked at again only when twice as much is there.
            self.limit = MAX_CHUNK.max(2 * self.buffer.len());
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// Parses the rest and checks the checksum, `FinalizeIncrementalManifest`.
    ///
    /// # Errors
    /// The first problem that was not reported before.
    pub fn finish(self) -> Result<PriorBackup, ManifestError> {
        self.parser.finish(&self.buffer)
    }
}

impl PriorBackup {
    /// The WAL that the backup needs, in the order of the manifest.
    pub fn wal_ranges(&self) -> &[WalRange] {
        &self.wal_ranges
    }

    /// Whether the backup holds the file at `path`, or an incremental file for it (`backup_file_lookup`, twice).
    pub fn has_relation_file(&self, path: &[u8]) -> bool {
        self.paths.contains(path) || self.paths.contains(&*crate::base_backup::incremental::name(path))
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ManifestError> {
        self.kept = self.kept.saturating_add(bytes).saturating_add(OVERHEAD);
        if self.kept > MAX_KEPT { Err(ManifestError::OutOfMemory) } else { Ok(()) }
    }
}

impl Visitor for PriorBackup {
    fn version(&mut self, version: u64) -> Result<(), ManifestError> {
        if version == 1 { Err(ManifestError::NoIncremental) } else { Ok(()) }
    }

    fn system_identifier(&mut self, theirs: u64) -> Result<(), ManifestError> {
        let ours = self.system_identifier;
        if theirs == ours { Ok(()) } else { Err(ManifestError::SystemIdentifier { theirs, ours }) }
    }

    /// A path that occurs twice is one path.
    fn file(&mut self, file: ManifestFile) -> Result<(), ManifestError> {
        self.keep(file.path.len())?;
        self.paths.insert(file.path.into());
        Ok(())
    }

    fn wal_range(&mut self, range: WalRange) -> Result<(), ManifestError> {
        self.keep(0)?;
        self.wal_ranges.push(range);
        Ok(())
    }
}
