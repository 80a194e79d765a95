//! A base backup client that publishes a backup only when it is whole.
//!
//! [`base_backup`] speaks to a walsender of any release through a [`Connector`], receives archives, manifest and WAL, checks
//! all of it against all of it, and keeps it in the form that [`BackupOptions`] ask for. It is strict: what PostgreSQL's own
//! servers never send is an error, and after an error nothing is left that could pass for a backup.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use backstop_client::conninfo::Conninfo;
//! use backstop_client::{BackupOptions, Silent, Target, base_backup};
//!
//! let server = Conninfo::parse("postgresql://backup@db.example.org/?sslmode=verify-full")?;
//! let target = Target::Plain { directory: "/var/backups/monday".into(), waldir: None };
//! let mut options = BackupOptions::new("backup", target);
//! options.login = server.login("nightly")?;
//! options.fast_checkpoint = true;
//! let summary = base_backup(Arc::new(server.connector()?), options, Arc::new(Silent)).await?;
//! println!("{} bytes, from {} to {}", summary.bytes, summary.start, summary.end);
//! # Ok(())
//! # }
//! ```
//!
//! A backup is a stream of typed parts into a [`Sink`](sink::Sink): archives, members, their content, WAL, the manifest. A sink of
//! one's own keeps them wherever it likes; `examples/blobs.rs` keeps each content once, under its hash. This one counts:
//!
//! ```
//! use backstop_client::sink::{Member, MemberHeader, Sink, Tablespace};
//! use backstop_client::{ClientError, Target};
//! use bytes::Bytes;
//!
//! #[derive(Default)]
//! struct Count {
//!     members: u64,
//!     bytes: u64,
//! }
//!
//! impl Sink for Count {
//!     fn prepare(&mut self, _tablespaces: &[Tablespace]) -> Result<(), ClientError> {
//!         Ok(())
//!     }
//!     fn begin_member(&mut self, _header: &MemberHeader, _member: &Member) -> Result<(), ClientError> {
//!         self.members += 1;
//!         Ok(())
//!     }
//!     fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
//!         self.bytes += bytes.len() as u64;
//!         Ok(())
//!     }
//!     fn end_member(&mut self) -> Result<(), ClientError> {
//!         Ok(())
//!     }
//!     fn finish(&mut self, _manifest: Option<&[u8]>) -> Result<(), ClientError> {
//!         Ok(())
//!     }
//!     fn publish(&mut self) -> Result<(), ClientError> {
//!         println!("{} members, {} bytes", self.members, self.bytes);
//!         Ok(())
//!     }
//! }
//!
//! let target = Target::Sink(Box::new(Count::default()));
//! # drop(target);
//! ```
//!
//! | to | see |
//! |---|---|
//! | open connections | [`Connector`], [`NetConnector`] |
//! | say what is wanted | [`BackupOptions`] and what it is made of |
//! | keep it one's own way | [`sink`] |
//! | watch | [`Observer`] |
//! | keep an archive of WAL | [`receivewal`] |
//! | read connection strings as libpq does | [`conninfo`] |
//! | verify a backup that lies on disk | [`verifybackup`] |
//! | combine a full backup with incremental ones | [`combine`] |
//! | run a command line | [`cli`] |
//! | break it on purpose | [`Weakness`], with the feature `mutants` |
//!
//! Everything runs on the task that polls [`base_backup`]'s future, which any runtime can spawn: file work is done inline, time is tokio's, the time of day
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
mod gathering;
mod incremental;
mod keepalive;
mod login;
mod mutation;
mod observer;
mod options;
mod ordered;
pub mod parallel;
mod profile_check;
mod receive;
pub mod receivewal;
pub mod recover;
mod request;
mod session;
pub mod sink;
mod slot;
pub mod sql;
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
pub use profile_check::LeftOut;
pub use start_up::{cancel_backup, connect_only};
