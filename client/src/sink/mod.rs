//! Where a backup goes: a stream of typed parts into a [`Sink`].
//!
//! A sink gets what was received and found good, writes it under names that no tool takes for a backup, and gives it its real
//! names when the client says that everything is there. A sink that is dropped before that removes what it made.
//!
//! For each archive there are [`begin_archive`](Sink::begin_archive), its members, and [`end_archive`](Sink::end_archive); for
//! each member [`begin_member`](Sink::begin_member), its content in pieces, and [`end_member`](Sink::end_member). The base
//! directory's archive is the last one, and in it `global/pg_control` the last file but for fetched WAL. Streamed WAL arrives
//! meanwhile, in [`WalFiles`]. Nothing of all this is a backup before [`publish`](Sink::publish).
//!
//! The sinks of `pg_basebackup` are those of [`Target`]; [`Target::Sink`] takes any other.

mod discard;
mod plain;
mod recovery;
mod tar;
mod tar_writer;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;

use backstop_protocol::base_backup::profile;
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;

pub(crate) use self::plain::{CONTROL_UNPUBLISHED, Plain};
pub use self::wal::WalFiles;
pub use crate::archive_check::{Kind, Member};
pub use crate::receive::Tablespace;
pub use backstop_protocol::base_backup::tar::MemberHeader;

use crate::clock::Clock;
use crate::compression::ArchiveCompression;
use crate::disk::Disk;
use crate::error::ClientError;
use crate::mutation::Weakness;
use crate::options::{RecoveryConfiguration, SyncMethod, Target, UnmappedTablespace, WalMethod};
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
///
/// Any error ends the backup, and the sink is dropped; [`ClientError::sink`] makes one of whatever went wrong. Calls block the
/// task that polls [`base_backup`](crate::base_backup). That task may move from thread to thread, and everything with it: no two
/// calls come at the same time.
pub trait Sink: Send + Sync {
    /// The tablespaces are known, the base directory among them, in the order of their archives: the last chance to refuse.
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError>;

    /// Where streamed WAL goes. Called once, after [`prepare`](Self::prepare), if WAL is streamed at all
    /// ([`WalMethod::Stream`]). A sink that has no place for it refuses.
    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError> {
        Err(ClientError::Refused("this sink takes no streamed write-ahead log".to_owned()))
    }

    /// The archive of the tablespace with this index begins.
    fn begin_archive(&mut self, _tablespace: usize) -> Result<(), ClientError> {
        Ok(())
    }

    /// Bytes of the archive as they came, compressed if the server did so, and told once what they hold was told.
    fn raw(&mut self, _bytes: &Bytes) -> Result<(), ClientError> {
        Ok(())
    }

    /// A member begins. `header` is what the archive says of it; paths are `member`'s.
    fn begin_member(&mut self, header: &MemberHeader, member: &Member) -> Result<(), ClientError>;

    /// Content of the member: the next bytes of it.
    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError>;

    /// The member is complete.
    fn end_member(&mut self) -> Result<(), ClientError>;

    /// The archive is complete.
    fn end_archive(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    /// `backup_profile`, after everything arrived and was found good, and before [`finish`](Self::finish). It is to be kept where it
    /// cannot be changed unnoticed: in the manifest (`listed`), or with its
    /// [checksum](backstop_protocol::base_backup::profile::checksum_file) beside it.
    fn profile(&mut self, _text: &[u8], _listed: bool) -> Result<(), ClientError> {
        Ok(())
    }

    /// Everything arrived, agrees with itself, and is a backup. Writes what is left to write, the manifest above all, still without a
    /// name. No manifest comes from servers before 13, or if none was asked for.
    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError>;

    /// Forces some of what was written to disk, and says whether that was all: called after [`finish`](Self::finish) until it was, unless
    /// [`BackupOptions::sync`](crate::BackupOptions::sync) says otherwise. Between the calls others have their turn.
    fn sync_some(&mut self) -> Result<bool, ClientError> {
        Ok(true)
    }

    /// Gives the backup its names and keeps it. Called last.
    fn publish(&mut self) -> Result<(), ClientError>;

    /// The directory of the base backup, if there is one: what is said to be removed after a failure.
    fn directory(&self) -> Option<Directory> {
        None
    }

    /// From now on, what was made is left as it is, published or not ([`BackupOptions::clean`](crate::BackupOptions::clean)).
    fn keep(&mut self) {}
}

/// The directory of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was there before.
    pub existed: bool,
}

/// Opens the sink of `target`: directories are made or found empty here.
pub(crate) fn open(target: Target, settings: SinkSettings) -> Result<Box<dyn Sink>, ClientError> {
    Ok(match target {
        Target::Plain { directory, waldir } => Box::new(plain::Plain::open(&directory, waldir.as_deref(), settings)?),
        Target::Tar { directory } => Box::new(tar::TarDirectory::open(&directory, settings)?),
        Target::Stream(writer) => Box::new(tar::TarStream::new(writer, settings)?),
        Target::Sink(sink) => sink,
        Target::Discard | Target::Elsewhere { .. } => Box::new(discard::Discard),
    })
}

/// `backup_profile`, and its checksum if the manifest does not have it.
fn profile_files(text: &[u8], listed: bool) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = vec![(profile::FILE_NAME, text.to_vec())];
    if !listed {
        files.push((profile::CHECKSUM_FILE_NAME, profile::checksum_file(text).into_bytes()));
    }
    files
}
