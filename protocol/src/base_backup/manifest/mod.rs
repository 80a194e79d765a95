//! The backup manifest, `backup_manifest`: what a backup holds, as the server saw it (since 13).
//!
//! [`ManifestWriter`] writes one while the files pass by, byte for byte as servers do; [`Manifest::parse`] reads one as
//! strictly as `pg_verifybackup`; [`ManifestUpload`] keeps what a server needs of one for an incremental backup.
//! [`ChecksumHasher`] makes the checksums of the files in it.

mod checksum;
mod hex;
mod json;
mod numbers;
mod parse;
#[cfg(test)]
mod tests;
mod time;
mod upload;
mod write;

pub use checksum::{ChecksumAlgorithm, ChecksumHasher, Indivisible, UnrecognizedAlgorithm};
pub use parse::ManifestError;
pub use time::{format_last_modified, format_start_time};
pub use upload::{ManifestUpload, PriorBackup};
pub use write::ManifestWriter;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// One file of a manifest. Directories, links and WAL segments have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Below the data directory: `base/5/1259`, `pg_tblspc/16391/PG_18_202506291/5/16395`.
    pub path: Vec<u8>,
    /// In bytes. Of an incremental file, its own and not the relation's.
    pub size: u64,
    /// When it was changed last, see [`format_last_modified`]. PostgreSQL never reads it back; empty if it is missing.
    pub last_modified: String,
    /// Algorithm and checksum, see [`ChecksumHasher::finish`]; nothing without checksums. As in PostgreSQL the length is not
    /// checked here: `file "%s" has checksum of length %d, but expected %d` is for whoever verifies the file.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// WAL that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte after its last.
    pub end: Lsn,
}

/// A whole manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// 1, or 2 since 17.
    pub version: u64,
    /// Of the server, since version 2.
    pub system_identifier: Option<u64>,
    /// In the order in which the server sent them.
    pub files: Vec<ManifestFile>,
    /// Newest timeline first.
    pub wal_ranges: Vec<WalRange>,
}

impl Manifest {
    /// Reads a manifest of version 1 or 2 and checks its own checksum, which covers everything before the last line.
    ///
    /// As strict as `parse_manifest.c` of 18, with its texts: the version comes first, the checksum last; unknown fields are
    /// refused, missing sections are not; no path may occur twice. Stricter in one thing: numbers and WAL positions end where
    /// their digits end. What a server takes of an upload it takes as servers do, see [`ManifestUpload`].
    ///
    /// # Errors
    /// The first problem, in the order in which `pg_verifybackup` meets them.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        parse::parse(bytes)
    }

    /// Reads a manifest as [`parse`](Self::parse) does, and tells every file instead of keeping it: the result has none. Whoever
    /// listens looks for paths that occur twice.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and what `on_file` returns.
    pub fn scan(
        bytes: &[u8],
        on_file: impl FnMut(ManifestFile) -> Result<(), ManifestError>,
    ) -> Result<Self, ManifestError> {
        parse::scan(bytes, on_file)
    }

    /// The manifest as a server writes it; with `force_encode` every path is in hexadecimal.
    pub fn to_bytes(&self, force_encode: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = ManifestWriter::new(self.version, self.system_identifier, force_encode);
        for file in &self.files {
            writer.add_file(file, &mut bytes);
        }
        writer.finish(&self.wal_ranges, &mut bytes);
        bytes
    }

    /// The entry of the file at `path`.
    pub fn file(&self, path: &[u8]) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.path == path)
    }
}
