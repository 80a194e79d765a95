//! What a caller asks for.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::ManifestOption;
use backstop_protocol::lsn::Lsn;

use crate::clock::{Clock, FixedClock};
use crate::compression::ArchiveCompression;
use crate::conninfo::Conninfo;
use crate::disk::{Disk, RealDisk};
use crate::login::Login;
use crate::mutation::Weakness;
use crate::sink::Sink;

/// How the WAL that a backup needs is taken along (`-X`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalMethod {
    /// Not at all: it has to come from an archive.
    None,
    /// Inside the base archive, at its end.
    Fetch,
    /// Over a second connection, while the backup runs.
    Stream,
}

/// Which replication slot the WAL is streamed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotOption {
    /// A temporary one named `pg_basebackup_<backend pid>`, where the server knows them (since 10).
    Temporary,
    /// A permanent one (`--slot`).
    Named {
        /// Its name.
        name: String,
        /// Whether to create it (`--create-slot`).
        create: bool,
    },
    /// None (`--no-slot`).
    None,
}

/// Where a backup goes.
pub enum Target {
    /// A directory that a server can start in.
    Plain {
        /// The data directory: new, or existing and empty.
        directory: PathBuf,
        /// Where `pg_wal` shall be instead (`--waldir`): absolute.
        waldir: Option<PathBuf>,
    },
    /// A directory of tar files.
    Tar {
        /// New, or existing and empty.
        directory: PathBuf,
    },
    /// One tar file, the manifest its last member.
    Stream(Box<dyn io::Write + Send + Sync>),
    /// Nowhere: everything is received and checked, nothing is kept.
    Discard,
    /// A sink of one's own. Tablespaces come with a `tablespace_map` instead of links, as in tar format (since 9.5).
    Sink(Box<dyn Sink>),
    /// Where only the server reaches (`--target`, since 15). Nothing is received and nothing can be checked: what is known of
    /// the backup is what the server says.
    Elsewhere {
        /// `server`, `blackhole`, or what an extension of the server knows.
        target: String,
        /// For `server` a directory there.
        detail: Option<String>,
    },
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { directory, waldir } => {
                f.debug_struct("Plain").field("directory", directory).field("waldir", waldir).finish()
            }
            Self::Tar { directory } => f.debug_struct("Tar").field("directory", directory).finish(),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Discard => f.write_str("Discard"),
            Self::Sink(_) => f.write_str("Sink"),
            Self::Elsewhere { target, detail } => {
                f.debug_struct("Elsewhere").field("target", target).field("detail", detail).finish()
            }
        }
    }
}

/// How files are forced to disk (`--sync-method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMethod {
    /// One by one, with the directories that hold them.
    #[default]
    Fsync,
    /// Whole file systems at once: faster where there are very many files, and it waits for others' files too.
    Syncfs,
}

/// What happens to a tablespace that no mapping names, in plain format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmappedTablespace {
    /// The backup fails: a server must not choose where files are made.
    Refuse,
    /// It goes to the server's own location, as `pg_basebackup` does it.
    ServerLocation,
}

/// How long to wait, at most, for what. Without a limit by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection up to its first ReadyForQuery, and then for the next byte of what is asked before BASE_BACKUP.
    pub connect: Option<Duration>,
    /// For the next byte while the server makes its checkpoint.
    pub checkpoint: Option<Duration>,
    /// For the next byte while archives and manifest arrive.
    pub data: Option<Duration>,
    /// For the next byte after the last archive, while the server may wait for its archiver.
    pub finish: Option<Duration>,
    /// For the next byte on the WAL connection. The server is then asked to answer every status update.
    pub wal_silence: Option<Duration>,
    /// For the WAL up to the end position, once that is known.
    pub wal_end: Option<Duration>,
}

/// What `--write-recovery-conf` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryConfiguration {
    /// How the standby connects: `primary_conninfo` is written as the server's release reads it.
    pub primary_conninfo: Conninfo,
    /// `primary_slot_name`.
    pub primary_slot_name: Option<String>,
}

/// Everything about a backup but the way to the server.
pub struct BackupOptions {
    /// Who logs in, and how.
    pub login: Login,
    /// The backup's label.
    pub label: String,
    /// Whether the checkpoint is made at once instead of spread over time.
    pub fast_checkpoint: bool,
    /// How WAL is taken along.
    pub wal: WalMethod,
    /// The slot that WAL is streamed through.
    pub slot: SlotOption,
    /// Where the backup goes.
    pub target: Target,
    /// Old and new locations of tablespaces, both absolute. Plain format only.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// What happens to other tablespaces. Plain format only.
    pub unmapped_tablespaces: UnmappedTablespace,
    /// The server's limit in kB/s.
    pub max_rate: Option<u32>,
    /// The most that the archives may hold, unpacked, in bytes: a server that compresses can send without end what takes no
    /// room on the wire.
    pub max_size: Option<u64>,
    /// Whether there is a manifest, and how names stand in it. Servers before 13 have none.
    pub manifest: ManifestOption,
    /// What files are hashed with. [`ChecksumAlgorithm::Crc32c`] is the server's default and then not sent.
    pub manifest_checksums: ChecksumAlgorithm,
    /// Who compresses the archives.
    pub compression: ArchiveCompression,
    /// The manifest of the backup on which this one builds (`--incremental`, since 17): only blocks that have changed since are
    /// sent.
    pub incremental: Option<PathBuf>,
    /// The start of the backup on which this one builds (`--incremental-from-lsn`): only files that have changed since are sent, by
    /// servers of [`Flavour::IncrementalPoc`](backstop_protocol::version::Flavour::IncrementalPoc).
    pub incremental_from: Option<Lsn>,
    /// Whether the server checks the checksums of its pages.
    pub verify_checksums: bool,
    /// Whether the server estimates the size before it begins.
    pub estimate_size: bool,
    /// Whether everything is forced to disk before the backup is published.
    pub sync: bool,
    /// How.
    pub sync_method: SyncMethod,
    /// Whether a failed backup is removed.
    pub clean: bool,
    /// The time between two status updates on the WAL connection; none for zero.
    pub status_interval: Duration,
    /// Settings for a standby, if the backup shall become one.
    pub recovery: Option<RecoveryConfiguration>,
    /// How long to wait.
    pub deadlines: Deadlines,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// What happens to files.
    pub disk: Arc<dyn Disk>,
    /// What is wrong with this client on purpose.
    pub weakness: Weakness,
}

impl BackupOptions {
    /// The options of a bare `pg_basebackup`: everything else is set on the result.
    pub fn new(user: impl Into<String>, target: Target) -> Self {
        Self {
            login: Login::new(user, "pg_basebackup"),
            label: "pg_basebackup base backup".to_owned(),
            fast_checkpoint: false,
            wal: WalMethod::Stream,
            slot: SlotOption::Temporary,
            target,
            tablespace_mapping: Vec::new(),
            unmapped_tablespaces: UnmappedTablespace::Refuse,
            max_rate: None,
            max_size: None,
            manifest: ManifestOption::Yes,
            manifest_checksums: ChecksumAlgorithm::Crc32c,
            compression: ArchiveCompression::None,
            incremental: None,
            incremental_from: None,
            verify_checksums: true,
            estimate_size: true,
            sync: true,
            sync_method: SyncMethod::Fsync,
            clean: true,
            status_interval: Duration::from_secs(10),
            recovery: None,
            deadlines: Deadlines::default(),
            clock: Arc::new(FixedClock::EPOCH),
            disk: Arc::new(RealDisk),
            weakness: Weakness::NONE,
        }
    }
}

impl fmt::Debug for BackupOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupOptions")
            .field("login", &self.login)
            .field("label", &self.label)
            .field("wal", &self.wal)
            .field("slot", &self.slot)
            .field("target", &self.target)
            .field("manifest", &self.manifest)
            .field("compression", &self.compression)
            .field("incremental", &self.incremental)
            .finish_non_exhaustive()
    }
}
