//! What a caller may watch while a backup runs.

use std::fmt;
use std::path::PathBuf;

use backstop_protocol::backend::Diagnostic;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

/// What the client is doing: each is announced once, when it begins or, where the name says so, when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Connecting and authenticating.
    Connecting,
    /// The manifest of the backup before is on its way to the server (UPLOAD_MANIFEST).
    UploadingManifest,
    /// BASE_BACKUP was sent. With a spread checkpoint a long silence is normal here.
    WaitingForCheckpoint,
    /// The start position arrived.
    CheckpointCompleted {
        /// Where WAL must be kept from.
        start: Lsn,
        /// On which timeline.
        timeline: TimelineId,
    },
    /// The second connection is being opened.
    StartingWalReceiver,
    /// A slot was created on the second connection.
    CreatedSlot {
        /// Its name.
        name: String,
        /// Whether it ends with its connection.
        temporary: bool,
    },
    /// Archives and manifest are arriving.
    Receiving,
    /// All of an incremental backup by LSN arrived and was found good.
    LeftOut {
        /// How many files it left out.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// The start of the backup before, since which they have not changed.
        since: Lsn,
    },
    /// All data arrived; the server may be waiting for its archiver.
    WaitingForEnd,
    /// The end position arrived.
    EndPosition {
        /// WAL must be kept up to here.
        end: Lsn,
    },
    /// WAL up to the end position has yet to arrive.
    WaitingForWal,
    /// The WAL stream ended before its time; the error that follows says why.
    WalReceiverFailed,
    /// Files and directories are being forced to disk.
    Syncing,
    /// `backup_manifest` gets its name: from now on this is a backup.
    Publishing,
    /// The backup is whole and published.
    Completed,
    /// The backup failed, and what was made is being removed.
    Removing {
        /// The directory of the backup.
        directory: PathBuf,
        /// Whether the directory was there before, so that only its contents go.
        contents_only: bool,
    },
    /// The backup failed, and the slot that it had created is gone again.
    DroppedSlot {
        /// Its name.
        name: String,
    },
    /// The backup failed, and the slot that it had created is still there: it keeps WAL until somebody drops it.
    SlotRemains {
        /// Its name.
        name: String,
        /// Why it could not be dropped.
        problem: String,
    },
    /// The backup failed, and what was made is left as it is.
    NotRemoving {
        /// The directory of the backup.
        directory: PathBuf,
    },
}

impl fmt::Display for Phase {
    /// In the words of `timed out while …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting to the server",
            Self::UploadingManifest => "uploading the manifest",
            Self::WaitingForCheckpoint => "waiting for the checkpoint",
            Self::CheckpointCompleted { .. } | Self::Receiving | Self::LeftOut { .. } => "receiving the backup",
            Self::StartingWalReceiver | Self::CreatedSlot { .. } => "starting the WAL receiver",
            Self::WaitingForEnd => "waiting for the end of the backup",
            Self::EndPosition { .. } | Self::WaitingForWal | Self::WalReceiverFailed => {
                "waiting for write-ahead log up to the end position"
            }
            Self::Syncing => "syncing data to disk",
            Self::Publishing | Self::Completed => "publishing the backup",
            Self::Removing { .. } | Self::NotRemoving { .. } | Self::DroppedSlot { .. } | Self::SlotRemains { .. } => {
                "removing what was made"
            }
        })
    }
}

/// How far the archives are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of archives received, unpacked; of a backup that goes elsewhere, what the server says of them.
    pub done: u64,
    /// The server's estimate of the whole in bytes, if it was asked for one. `done` may pass it.
    pub total: Option<u64>,
    /// Archives completely received.
    pub tablespaces_done: usize,
    /// Archives announced, the base directory's included.
    pub tablespaces: usize,
    /// The current archive: `16391.tar`, `base.tar.gz`.
    pub archive: String,
    /// The path in the backup of the current member, safe to show; none before the first, and at the end.
    pub member: Option<String>,
    /// Whether this is the last report.
    pub finished: bool,
}

/// Told about everything that a user might like to see. All methods do nothing unless they are implemented.
pub trait Observer: Send + Sync {
    /// The server sent a NOTICE or WARNING.
    fn notice(&self, _notice: &Diagnostic) {}

    /// Bytes arrived, or a member began.
    fn progress(&self, _progress: &Progress) {}

    /// Something begins.
    fn phase(&self, _phase: &Phase) {}

    /// Something went wrong that is no failure yet.
    fn warning(&self, _text: &str) {}

    /// Something that a curious user might like to know.
    fn detail(&self, _text: &str) {}

    /// SQL is sent by the session that is called `session`.
    fn statement(&self, _session: &str, _sql: &str) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
