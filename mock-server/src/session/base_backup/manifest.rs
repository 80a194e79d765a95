//! The manifest: written while files are sent, sent after them.

use std::io;

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::manifest::{
    ChecksumAlgorithm, ChecksumHasher, ManifestFile, ManifestWriter, WalRange, format_last_modified,
};
use backstop_protocol::version::ServerVersion;

use super::data::Flow;
use super::spool::Spool;
use super::{Backup, Session, Stop};
use crate::cluster::file_access;
use crate::fault::wire::Truncate;
use crate::fault::{Action, Moment};

/// A manifest that grows with the files, some 150 bytes for each.
#[derive(Debug)]
pub(super) struct ManifestInProgress {
    writer: ManifestWriter,
    text: Spool,
    checksums: ChecksumAlgorithm,
}

impl ManifestInProgress {
    pub(super) fn new(
        version: ServerVersion,
        system_identifier: u64,
        checksums: ChecksumAlgorithm,
        force_encode: bool,
    ) -> Self {
        let format = version.manifest_version();
        let system_identifier = (format >= 2).then_some(system_identifier);
        Self { writer: ManifestWriter::new(format, system_identifier, force_encode), text: Spool::default(), checksums }
    }

    pub(super) fn hasher(&self) -> ChecksumHasher {
        ChecksumHasher::new(self.checksums)
    }

    /// Adds a file whose content went through `hasher`.
    pub(super) fn add(&mut self, path: &[u8], size: u64, mtime: u64, hasher: ChecksumHasher) -> Result<(), Diagnostic> {
        let checksum = (self.checksums != ChecksumAlgorithm::None).then(|| (self.checksums, hasher.finish()));
        let last_modified = format_last_modified(i64::try_from(mtime).unwrap_or(i64::MAX));
        let file = ManifestFile { path: path.to_vec(), size, last_modified, checksum };
        self.writer.add_file(&file, self.text.tail());
        self.text.spill().map_err(|error| not_spooled(&error))
    }
}

impl Session {
    /// Ends the manifest and sends it.
    pub(super) async fn send_manifest(
        &mut self,
        backup: &mut Backup,
        manifest: ManifestInProgress,
        ranges: &[WalRange],
    ) -> Result<(), Stop> {
        let ManifestInProgress { writer, mut text, .. } = manifest;
        writer.finish(ranges, text.tail());
        let stops = self.shared.plan(|plan| plan.stops_in_manifest(text.len(), &self.seat.identity()));
        backup.flow = Flow { stops, is_manifest: true, ..Flow::default() };
        let edits = self.at(Moment::ManifestBegin).await?;
        for action in &edits.archive {
            match action {
                Action::OmitArchive(_) => return Ok(()),
                Action::Truncate(Truncate { to: Some(to) }) => backup.flow.cut = Some(to.0),
                _ => {}
            }
        }
        let one_copy = self.version.has_archive_stream();
        if one_copy {
            for _ in 0..edits.copies() {
                self.archive_message(&ArchiveMessage::Manifest, "m").await?;
            }
        } else if !edits.dropped {
            self.emit(Moment::CopyBegin, vec![BackendMessage::CopyOutResponse]).await?;
        }
        if let Some(store) = &mut backup.store {
            store.begin_manifest()?;
        }
        let mut piece = vec![0; self.version.manifest_piece()];
        let mut offset = 0;
        loop {
            let read = text.read_at(offset, &mut piece).map_err(|error| not_spooled(&error))?;
            if read == 0 {
                break;
            }
            self.data(backup, piece.get(..read).unwrap_or_default(), "manifest").await?;
            offset += read as u64;
        }
        self.data(backup, &[], "manifest").await?;
        self.seat.count(|carried| carried.manifest_ended(backup.flow.offset));
        if let Some(store) = &mut backup.store {
            store.end_manifest()?;
        }
        if !one_copy {
            self.emit(Moment::CopyDone, vec![BackendMessage::CopyDone]).await?;
        }
        Ok(())
    }
}

/// What a server says whose temporary file cannot be written or read.
fn not_spooled(error: &io::Error) -> Diagnostic {
    file_access("could not use the temporary file of the backup manifest", error)
}
