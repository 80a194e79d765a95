//! Where a backup goes.
//!
//! A sink gets what was received and found good, writes it under names that no tool takes for a backup, and gives it its real
//! names when the caller says that everything is there. A sink that is dropped before that removes what it made.

mod discard;
mod plain;
mod recovery;
mod tar;
mod tar_writer;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;

use backstop_protocol::base_backup::tar::MemberHeader;
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;

pub(crate) use self::wal::WalFiles;

use crate::archive_check::Member;
use crate::clock::Clock;
use crate::compression::ArchiveCompression;
use crate::disk::Disk;
use crate::error::ClientError;
use crate::mutation::Weakness;
use crate::options::{RecoveryConfiguration, SyncMethod, Target, UnmappedTablespace, WalMethod};
use crate::receive::Tablespace;
use crate::tree::Modes;

/// What sinks need to know of the options and the server.
pub(crate) struct SinkSettings {
    pub(crate) version: ServerVersion,
    pub(crate) modes: Modes,
    pub(crate) wal: WalMethod,
    pub(crate) mapping: Vec<(PathBuf, PathBuf)>,
    pub(crate) unmapped: UnmappedTablespace,
    pub(crate) recovery: Option<RecoveryConfiguration>,
    pub(crate) compression: ArchiveCompression,
    pub(crate) sync: bool,
    pub(crate) sync_method: SyncMethod,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) weakness: Weakness,
}

/// Keeps a backup. Calls come in the order of the archives; every member was judged before.
pub(crate) trait Sink: Send {
    /// The tablespaces are known: the last chance to refuse before anything is sent.
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError>;

    /// Where streamed WAL goes. Called once, after [`prepare`](Self::prepare).
    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError>;

    /// The archive of the tablespace with this index begins.
    fn begin_archive(&mut self, tablespace: usize) -> Result<(), ClientError>;

    /// Bytes of the archive as they came; what they hold follows in the calls below.
    fn raw(&mut self, _bytes: &Bytes) -> Result<(), ClientError> {
        Ok(())
    }

    /// A member begins.
    fn begin_member(&mut self, header: &MemberHeader, member: &Member) -> Result<(), ClientError>;

    /// Content of the member.
    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError>;

    /// The member is complete.
    fn end_member(&mut self) -> Result<(), ClientError>;

    /// The archive is complete.
    fn end_archive(&mut self) -> Result<(), ClientError>;

    /// Writes what is left to write, the manifest above all, and forces everything to disk.
    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError>;

    /// Gives the backup its names and keeps it. Called last.
    fn publish(&mut self) -> Result<(), ClientError>;

    /// Where progress is shown to happen: the directory of the base backup.
    fn directory(&self) -> Option<Directory>;

    /// Leaves everything as it is, unpublished.
    fn keep(&mut self);
}

/// The directory of a backup.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Whether it was there before.
    pub(crate) existed: bool,
}

/// Opens the sink of `target`: directories are made or found empty here.
pub(crate) fn open(target: Target, settings: SinkSettings) -> Result<Box<dyn Sink>, ClientError> {
    Ok(match target {
        Target::Plain { directory, waldir } => Box::new(plain::Plain::open(&directory, waldir.as_deref(), settings)?),
        Target::Tar { directory } => Box::new(tar::TarDirectory::open(&directory, settings)?),
        Target::Stream(writer) => Box::new(tar::TarStream::new(writer, settings)?),
        Target::Discard | Target::Elsewhere { .. } => Box::new(discard::Discard),
    })
}
