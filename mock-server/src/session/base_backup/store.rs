//! A backup that stays on the server: `basebackup_server.c`.

use std::sync::Arc;

use backstop_protocol::backend::Diagnostic;

use crate::cluster::{ServerFile, ServerFiles};

/// As the manifest is called until it is complete.
const UNFINISHED_MANIFEST: &str = "backup_manifest.tmp";

/// The directory of a backup on the server, and the file that is being written there.
#[derive(Debug)]
pub(super) struct Store {
    files: Arc<ServerFiles>,
    /// TARGET_DETAIL.
    directory: String,
    file: Option<ServerFile>,
}

impl Store {
    /// Prepares `directory`, which must be empty if it exists.
    pub(super) fn new(files: &Arc<ServerFiles>, directory: &str) -> Result<Self, Diagnostic> {
        files.prepare(directory)?;
        Ok(Self { files: Arc::clone(files), directory: directory.to_owned(), file: None })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Begins an archive.
    pub(super) fn begin_archive(&mut self, name: &str) -> Result<(), Diagnostic> {
        self.file = Some(self.files.create(self.path(name))?);
        Ok(())
    }

    /// Begins the manifest, which has another name until it is complete: a backup with a manifest is a complete one.
    pub(super) fn begin_manifest(&mut self) -> Result<(), Diagnostic> {
        self.begin_archive(UNFINISHED_MANIFEST)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Diagnostic> {
        self.file.as_mut().map_or(Ok(()), |file| file.write(bytes))
    }

    pub(super) fn end_archive(&mut self) {
        if let Some(file) = self.file.take() {
            file.close();
        }
    }

    pub(super) fn end_manifest(&mut self) -> Result<(), Diagnostic> {
        self.end_archive();
        self.files.rename(&self.path(UNFINISHED_MANIFEST), &self.path("backup_manifest"))
    }
}
