//! A base backup client that publishes a backup only when it is whole.
//!
//! [`base_backup`] speaks to a walsender of any release through a [`Connector`], receives archives, manifest and WAL, checks
//! all of it against all of it, and keeps it in the form that [`BackupOptions`] ask for. It is strict: what PostgreSQL's own
//! servers never send is an error, and after an error nothing is left that could pass for a backup.
//!
//! | to | see |
//! |---|---|
//! | open connections | [`Connector`], [`NetConnector`] |
//! | say what is wanted | [`BackupOptions`] and what it is made of |
//! | watch | [`Observer`] |
//! | keep an archive of WAL | [`receivewal`] |
//! | read connection strings as libpq does | [`conninfo`] |
//! | verify a backup that lies on disk | [`verifybackup`] |
//! | combine a full backup with incremental ones | [`combine`] |
//! | run a command line | [`cli`] |
//! | break it on purpose | [`Weakness`], with the feature `mutants` |
//!
//! Everything runs on the task that polls [`base_backup`]'s future: file work is done inline, time is tokio's, the time of day
//! comes from a [`Clock`]. With an in-memory transport and a paused clock, a backup is a function of what the server sends.

mod archive_check;
mod auth;
mod backup;
mod backup_files;
pub mod cli;
mod clock;
pub mod combine;
pub mod commands;
mod compression;
mod connection;
mod connector;
pub mod conninfo;
mod contents;
mod disk;
mod error;
mod incremental;
mod login;
mod mutation;
mod observer;
mod options;
mod ordered;
mod receive;
pub mod receivewal;
mod request;
mod session;
mod sink;
mod slot;
mod start_up;
pub mod tls;
mod transfer;
mod tree;
mod verify;
pub mod verifybackup;
mod wal_check;
mod wal_receiver;
mod wal_stream;

pub use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
pub use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm, ManifestOption};
pub use backup::{BackupSummary, base_backup};
pub use clock::{Clock, FixedClock, SystemClock};
pub use compression::ArchiveCompression;
pub use connector::{
    Address, BoxStream, Connecting, Connector, Host, NetConnector, Place, Purpose, Resolving, SessionKey, Stream,
};
pub use disk::{Disk, RealDisk};
pub use error::ClientError;
pub use login::{ChannelBinding, Login, Methods, Replication, SessionKind};
pub use mutation::{Mutation, Weakness};
pub use observer::{Observer, Phase, Progress, Silent};
pub use options::{
    BackupOptions, Deadlines, RecoveryConfiguration, SlotOption, SyncMethod, Target, UnmappedTablespace, WalMethod,
};
pub use start_up::cancel_backup;
