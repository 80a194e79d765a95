//! Tar files: a directory of them, or one on a stream.
//!
//! Archives are kept byte for byte as they came, with the two zero blocks that servers up to 14 leave out, and compressed if
//! this client was asked to. Only where something has to be added (recovery settings, or the manifest on a stream) an archive
//! is put together again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use backstop_protocol::base_backup::tar::MemberHeader;
use bytes::Bytes;

use super::tar_writer::{TRAILER, TarWriter, file_header};
use super::wal::WalTar;
use super::{Directory, Sink, SinkSettings, WalFiles, recovery};
use crate::archive_check::Member;
use crate::compression::Encoder;
use crate::disk::File;
use crate::error::ClientError;
use crate::receive::Tablespace;
use crate::tree::Tree;

const MANIFEST: &str = "backup_manifest";
/// `postgresql.auto.conf` is held in memory while it is added to.
const MAX_SETTINGS: u64 = 16 << 20;

/// A member of an archive that is put together again.
enum Current {
    /// Goes through.
    Copied,
    /// The settings file, which is added to.
    Settings(MemberHeader, Vec<u8>),
    /// Left out: one of ours takes its place.
    Skipped,
}

/// Puts an archive together again, with recovery settings if it is the base archive and they are wanted.
struct Rewriter<W: Write> {
    writer: TarWriter<Encoder<W>>,
    current: Option<Current>,
    /// Whether the settings still have to be added.
    pending: bool,
}

impl<W: Write> Rewriter<W> {
    fn new(out: Encoder<W>, settings: &SinkSettings) -> Self {
        Self { writer: TarWriter::new(out), current: None, pending: settings.recovery.is_some() }
    }

    fn begin(&mut self, header: &MemberHeader, member: &Member, settings: &SinkSettings) -> io::Result<()> {
        if self.pending && member.path == recovery::settings_file(settings.version).as_bytes() {
            if header.size > MAX_SETTINGS {
                return Err(io::Error::other("the settings file is too large to be added to"));
            }
            self.current = Some(Current::Settings(header.clone(), Vec::new()));
            return Ok(());
        }
        if settings.recovery.is_some() && member.path == b"standby.signal" {
            self.current = Some(Current::Skipped);
            return Ok(());
        }
        self.current = Some(Current::Copied);
        self.writer.begin(header)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.current {
            Some(Current::Settings(_, content)) => {
                content.extend_from_slice(bytes);
                Ok(())
            }
            Some(Current::Copied) => self.writer.data(bytes),
            Some(Current::Skipped) | None => Ok(()),
        }
    }

    fn end_member(&mut self, settings: &SinkSettings) -> io::Result<()> {
        match self.current.take() {
            Some(Current::Settings(header, mut content)) => {
                if !settings.version.has_recovery_signal() {
                    // recovery.conf is all about how this server was made.
                    content.clear();
                }
                if let Some(recovery) = &settings.recovery {
                    content.extend_from_slice(recovery::settings(recovery, settings.version).as_bytes());
                }
                self.pending = false;
                self.writer.begin(&MemberHeader { size: content.len() as u64, ..header })?;
                self.writer.data(&content)?;
                self.writer.end()
            }
            Some(Current::Copied) => self.writer.end(),
            Some(Current::Skipped) | None => Ok(()),
        }
    }

    /// Ends the archive and its compression.
    fn finish(&mut self) -> io::Result<()> {
        self.writer.finish()?;
        self.writer.get_mut().finish()
    }

    /// Adds what is still to be added behind the last member.
    fn add_recovery(&mut self, settings: &SinkSettings) -> io::Result<()> {
        let Some(recovery) = &settings.recovery else { return Ok(()) };
        let (mode, now) = (settings.modes.file(), settings.clock.unix_seconds());
        if self.pending {
            let text = recovery::settings(recovery, settings.version);
            let name = recovery::settings_file(settings.version);
            self.writer.file(name.as_bytes(), mode, now, text.as_bytes())?;
            self.pending = false;
        }
        if settings.version.has_recovery_signal() {
            self.writer.begin(&file_header(b"standby.signal", mode, now, 0))?;
            self.writer.end()?;
        }
        Ok(())
    }
}

enum Archive {
    /// As it comes, compressed by the server or here.
    Raw(Encoder<File>),
    /// Compressed here, whoever was asked to do it.
    Rewritten(Rewriter<File>),
}

/// `base.tar`, `<oid>.tar`, `pg_wal.tar` and `backup_manifest` in a directory, the archives with the suffix of their compression.
/// Until the backup is published, every name ends in `.tmp`.
pub(super) struct TarDirectory {
    tree: Tree,
    settings: SinkSettings,
    tablespaces: Vec<Tablespace>,
    current: Option<(Archive, PathBuf)>,
    /// Final names, in the order in which they are given.
    names: Vec<String>,
    manifest: bool,
}

impl TarDirectory {
    pub(super) fn open(directory: &Path, settings: SinkSettings) -> Result<Self, ClientError> {
        let tree = Tree::create(directory, settings.modes, &settings.disk)?;
        Ok(Self { tree, settings, tablespaces: Vec::new(), current: None, names: Vec::new(), manifest: false })
    }

    /// Makes a file under its unpublished name.
    fn create(&mut self, name: &str) -> Result<(File, PathBuf), ClientError> {
        let unpublished = format!("{name}.tmp");
        let file = self.tree.create_file(unpublished.as_bytes())?;
        Ok((file, self.tree.full(unpublished.as_bytes())))
    }

    /// Writes to the current archive.
    fn with(&mut self, work: impl FnOnce(&mut Archive, &SinkSettings) -> io::Result<()>) -> Result<(), ClientError> {
        let Some((archive, path)) = &mut self.current else { return Ok(()) };
        work(archive, &self.settings).map_err(|source| ClientError::Local {
            doing: "write to file",
            path: path.clone(),
            source,
        })
    }
}

impl Sink for TarDirectory {
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        self.tablespaces = tablespaces.to_vec();
        Ok(())
    }

    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError> {
        // Streamed WAL is compressed with gzip or not at all, and never by the server.
        let mut compression = self.settings.compression.on_client();
        if compression.algorithm != CompressionAlgorithm::Gzip {
            compression = Compression::plain(CompressionAlgorithm::None);
        }
        let suffix = compression.algorithm.suffix();
        let name = format!("{}.tar{suffix}", self.settings.version.wal_directory());
        let (file, path) = self.create(&name)?;
        self.names.push(name);
        let file = Encoder::new(file, &compression).map_err(ClientError::local("create file", &path))?;
        Ok(Box::new(WalTar::new(file, path, self.settings.modes, self.settings.clock.clone())))
    }

    fn begin_archive(&mut self, tablespace: usize) -> Result<(), ClientError> {
        let Some(tablespace) = self.tablespaces.get(tablespace) else { return Ok(()) };
        let rewritten = tablespace.oid.is_none() && self.settings.recovery.is_some();
        let stored = self.settings.compression.stored();
        let name = format!("{}{}", tablespace.archive_name(), stored.algorithm.suffix());
        let (file, path) = self.create(&name)?;
        self.names.push(name);
        let here = if rewritten { stored } else { self.settings.compression.on_client() };
        let file = Encoder::new(file, &here).map_err(ClientError::local("create file", &path))?;
        let archive =
            if rewritten { Archive::Rewritten(Rewriter::new(file, &self.settings)) } else { Archive::Raw(file) };
        self.current = Some((archive, path));
        Ok(())
    }

    fn raw(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        self.with(|archive, _| if let Archive::Raw(file) = archive { file.write_all(bytes) } else { Ok(()) })
    }

    fn begin_member(&mut self, header: &MemberHeader, member: &Member) -> Result<(), ClientError> {
        self.with(|archive, settings| match archive {
            Archive::Raw(_) => Ok(()),
            Archive::Rewritten(rewriter) => rewriter.begin(header, member, settings),
        })
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        self.with(|archive, _| match archive {
            Archive::Raw(_) => Ok(()),
            Archive::Rewritten(rewriter) => rewriter.data(bytes),
        })
    }

    fn end_member(&mut self) -> Result<(), ClientError> {
        self.with(|archive, settings| match archive {
            Archive::Raw(_) => Ok(()),
            Archive::Rewritten(rewriter) => rewriter.end_member(settings),
        })
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        self.with(|archive, settings| match archive {
            Archive::Raw(file) => {
                if !settings.version.sends_tar_trailer() {
                    file.write_all(&TRAILER)?;
                }
                file.finish()
            }
            Archive::Rewritten(rewriter) => {
                rewriter.add_recovery(settings)?;
                rewriter.finish()
            }
        })?;
        self.current = None;
        Ok(())
    }

    fn profile(&mut self, text: &[u8], listed: bool) -> Result<(), ClientError> {
        for (name, content) in super::profile_files(text, listed) {
            let (mut file, path) = self.create(name)?;
            file.write_all(&content).map_err(ClientError::local("write to file", path))?;
            self.names.push(name.to_owned());
        }
        Ok(())
    }

    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError> {
        if let Some(manifest) = manifest {
            let (mut file, path) = self.create(MANIFEST)?;
            file.write_all(manifest).map_err(ClientError::local("write to file", path))?;
            self.manifest = true;
        }
        Ok(())
    }

    fn sync_some(&mut self) -> Result<bool, ClientError> {
        self.tree.sync_some(self.settings.sync_method)
    }

    fn publish(&mut self) -> Result<(), ClientError> {
        // The base archive, which holds pg_control, is behind the tablespaces; the manifest is behind everything.
        let sync = |tree: &Tree, sync: bool| if sync { tree.sync_directory(b"") } else { Ok(()) };
        for name in std::mem::take(&mut self.names) {
            self.tree.rename(format!("{name}.tmp").as_bytes(), name.as_bytes())?;
        }
        sync(&self.tree, self.settings.sync)?;
        if self.manifest {
            self.tree.rename(format!("{MANIFEST}.tmp").as_bytes(), MANIFEST.as_bytes())?;
            sync(&self.tree, self.settings.sync)?;
        }
        self.keep();
        Ok(())
    }

    fn directory(&self) -> Option<Directory> {
        Some(Directory { path: self.tree.path().to_path_buf(), existed: self.tree.existed() })
    }

    fn keep(&mut self) {
        self.tree.keep();
    }
}

/// One tar file on a stream. The manifest is its last member; without that and the two zero blocks behind it, what a reader of
/// the stream has got is no backup.
pub(super) struct TarStream {
    rewriter: Rewriter<Box<dyn Write + Send + Sync>>,
    settings: SinkSettings,
}

impl TarStream {
    /// # Errors
    /// A compression that does not start.
    pub(super) fn new(out: Box<dyn Write + Send + Sync>, settings: SinkSettings) -> Result<Self, ClientError> {
        let out = Encoder::new(out, &settings.compression.stored()).map_err(stream_error)?;
        Ok(Self { rewriter: Rewriter::new(out, &settings), settings })
    }
}

fn stream_error(source: io::Error) -> ClientError {
    ClientError::Local { doing: "write to file", path: "-".into(), source }
}

impl Sink for TarStream {
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        if tablespaces.len() > 1 {
            let count = tablespaces.len();
            let text = format!("can only write single tablespace to stdout, database has {count}");
            return Err(ClientError::Refused(text));
        }
        Ok(())
    }

    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError> {
        Err(ClientError::Refused("cannot stream write-ahead logs in tar mode to stdout".to_owned()))
    }

    fn begin_archive(&mut self, _tablespace: usize) -> Result<(), ClientError> {
        Ok(())
    }

    fn begin_member(&mut self, header: &MemberHeader, member: &Member) -> Result<(), ClientError> {
        self.rewriter.begin(header, member, &self.settings).map_err(stream_error)
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        self.rewriter.data(bytes).map_err(stream_error)
    }

    fn end_member(&mut self) -> Result<(), ClientError> {
        self.rewriter.end_member(&self.settings).map_err(stream_error)
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        self.rewriter.add_recovery(&self.settings).map_err(stream_error)
    }

    fn profile(&mut self, text: &[u8], listed: bool) -> Result<(), ClientError> {
        let (mode, now) = (self.settings.modes.file(), self.settings.clock.unix_seconds());
        let writer = &mut self.rewriter.writer;
        let mut files = super::profile_files(text, listed).into_iter();
        files.try_for_each(|(name, content)| writer.file(name.as_bytes(), mode, now, &content)).map_err(stream_error)
    }

    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError> {
        let (mode, now) = (self.settings.modes.file(), self.settings.clock.unix_seconds());
        let writer = &mut self.rewriter.writer;
        let added = manifest.map_or(Ok(()), |manifest| writer.file(MANIFEST.as_bytes(), mode, now, manifest));
        added.map_err(stream_error)
    }

    fn publish(&mut self) -> Result<(), ClientError> {
        self.rewriter.finish().map_err(stream_error)
    }

    fn directory(&self) -> Option<Directory> {
        None
    }

    fn keep(&mut self) {}
}
