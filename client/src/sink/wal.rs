//! Where streamed WAL goes: `pg_wal` of a plain backup, `pg_wal.tar`, or nowhere.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::tar_writer::{TarWriter, file_header};
use crate::clock::Clock;
use crate::compression::Encoder;
use crate::disk::File;
use crate::error::ClientError;
use crate::options::SyncMethod;
use crate::tree::{Modes, Tree};

/// Keeps WAL as it is streamed: segments one after another, and timeline history files between them.
pub trait WalFiles: Send + Sync {
    /// A segment of `size` bytes begins: `000000010000000000000002`.
    fn begin(&mut self, name: &str, size: u64) -> Result<(), ClientError>;

    /// The next bytes of the segment.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError>;

    /// The segment ends: what is missing becomes zeros. `done` marks it as archived, which keeps a server that starts on the
    /// backup from archiving it again. With `sync` it is on disk afterwards.
    fn end(&mut self, done: bool, sync: bool) -> Result<(), ClientError>;

    /// A timeline history file: `00000002.history`.
    fn history(&mut self, name: &str, content: &[u8], sync: bool) -> Result<(), ClientError>;

    /// Everything up to the end position arrived. Called before [`Sink::finish`](super::Sink::finish).
    fn finish(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    /// As [`Sink::sync_some`](super::Sink::sync_some); called after [`finish`](Self::finish).
    fn sync_some(&mut self) -> Result<bool, ClientError> {
        Ok(true)
    }

    /// What was made stays, even if this is dropped.
    fn keep(&mut self);
}

/// WAL that nobody wants.
pub(super) struct Nowhere;

impl WalFiles for Nowhere {
    fn begin(&mut self, _name: &str, _size: u64) -> Result<(), ClientError> {
        Ok(())
    }

    fn write(&mut self, _bytes: &[u8]) -> Result<(), ClientError> {
        Ok(())
    }

    fn end(&mut self, _done: bool, _sync: bool) -> Result<(), ClientError> {
        Ok(())
    }

    fn history(&mut self, _name: &str, _content: &[u8], _sync: bool) -> Result<(), ClientError> {
        Ok(())
    }

    fn keep(&mut self) {}
}

/// Files in `pg_wal`, marks in `pg_wal/archive_status`.
pub(super) struct WalDirectory {
    tree: Tree,
    sync_method: SyncMethod,
    current: Option<(String, File, u64)>,
}

impl WalDirectory {
    /// `tree` is `pg_wal`, with `archive_status` in it.
    pub(super) fn new(tree: Tree, sync_method: SyncMethod) -> Self {
        Self { tree, sync_method, current: None }
    }

    fn write_file(&mut self, name: &str, content: &[u8], sync: bool) -> Result<(), ClientError> {
        let mut file = self.tree.create_file(name.as_bytes())?;
        let written = file.write_all(content).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        written.map_err(ClientError::local("write file", self.tree.full(name.as_bytes())))
    }
}

impl WalFiles for WalDirectory {
    fn begin(&mut self, name: &str, size: u64) -> Result<(), ClientError> {
        self.current = Some((name.to_owned(), self.tree.create_file(name.as_bytes())?, size));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let Some((name, file, _)) = &mut self.current else { return Ok(()) };
        file.write_all(bytes).map_err(ClientError::local("write file", self.tree.full(name.as_bytes())))
    }

    fn end(&mut self, done: bool, sync: bool) -> Result<(), ClientError> {
        let Some((name, file, size)) = self.current.take() else { return Ok(()) };
        let full = self.tree.full(name.as_bytes());
        file.set_len(size).map_err(ClientError::local("write file", &full))?;
        if sync {
            file.sync_all().map_err(ClientError::local("fsync file", full))?;
            self.tree.sync_directory(b"")?;
        }
        if done { self.write_file(&format!("archive_status/{name}.done"), b"", sync) } else { Ok(()) }
    }

    fn history(&mut self, name: &str, content: &[u8], sync: bool) -> Result<(), ClientError> {
        self.write_file(name, content, sync)?;
        self.write_file(&format!("archive_status/{name}.done"), b"", sync)
    }

    fn sync_some(&mut self) -> Result<bool, ClientError> {
        self.tree.sync_some(self.sync_method)
    }

    fn keep(&mut self) {
        self.tree.keep();
    }
}

/// `pg_wal.tar`, or `pg_wal.tar.gz`, whose members are named relative to `pg_wal`. Its file belongs to the directory of the
/// backup.
pub(super) struct WalTar {
    writer: TarWriter<Encoder<File>>,
    path: PathBuf,
    modes: Modes,
    clock: Arc<dyn Clock>,
    current: Option<String>,
}

impl WalTar {
    pub(super) fn new(file: Encoder<File>, path: PathBuf, modes: Modes, clock: Arc<dyn Clock>) -> Self {
        Self { writer: TarWriter::new(file), path, modes, clock, current: None }
    }

    fn now(&self) -> u64 {
        self.clock.unix_seconds()
    }

    fn sync(&mut self, sync: bool) -> Result<(), ClientError> {
        // What the server is told to be safe must be in the file to be so.
        let file = self.writer.get_mut();
        let synced = if sync { file.flush().and_then(|()| file.get_mut().sync_all()) } else { Ok(()) };
        synced.map_err(ClientError::local("fsync file", &self.path))
    }
}

impl WalFiles for WalTar {
    fn begin(&mut self, name: &str, size: u64) -> Result<(), ClientError> {
        let header = file_header(name.as_bytes(), self.modes.file(), self.now(), size);
        self.current = Some(name.to_owned());
        self.writer.begin(&header).map_err(ClientError::local("write file", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.writer.data(bytes).map_err(ClientError::local("write file", &self.path))
    }

    fn end(&mut self, done: bool, sync: bool) -> Result<(), ClientError> {
        let Some(name) = self.current.take() else { return Ok(()) };
        let mut ended = self.writer.end();
        if done && ended.is_ok() {
            let mark = format!("archive_status/{name}.done");
            ended = self.writer.file(mark.as_bytes(), self.modes.file(), self.now(), b"");
        }
        ended.map_err(ClientError::local("write file", &self.path))?;
        self.sync(sync)
    }

    fn history(&mut self, name: &str, content: &[u8], sync: bool) -> Result<(), ClientError> {
        let (mode, now) = (self.modes.file(), self.now());
        let mark = format!("archive_status/{name}.done");
        let written = self.writer.file(name.as_bytes(), mode, now, content);
        let written = written.and_then(|()| self.writer.file(mark.as_bytes(), mode, now, b""));
        written.map_err(ClientError::local("write file", &self.path))?;
        self.sync(sync)
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        let ended = self.writer.finish().and_then(|()| self.writer.get_mut().finish());
        ended.map_err(ClientError::local("write file", &self.path))
    }

    fn sync_some(&mut self) -> Result<bool, ClientError> {
        let synced = self.writer.get_mut().get_mut().sync_all();
        synced.map(|()| true).map_err(ClientError::local("fsync file", &self.path))
    }

    fn keep(&mut self) {}
}
