//! Base backups over ordinary connections: files are read with SQL, by several sessions at once.
//!
//! The backup is started and stopped by functions of the server on one session that stays open. Others list the files, read them in
//! pieces of 8 MiB and share the work by size; one more follows the WAL. Whatever changes meanwhile, WAL repairs, as it does in
//! every base backup: so what BASE_BACKUP sends is taken, and as it sends it.
//!
//! | to | see |
//! |---|---|
//! | know the statements | [`statement`] |
//! | know how servers are asked, and how answers are read | [`session`], [`files`], [`values`] |
//! | know what belongs to a backup | [`listing`] |
//! | see how work is shared | [`work`], [`fetch`] |
//! | see how WAL is followed | [`wal`] |
//!
//! What SQL cannot tell is that something is a link: outside of `pg_tblspc`, links are followed.

mod auxiliary;
mod backup;
mod fetch;
mod fetched;
mod files;
mod force;
mod language;
mod listing;
mod place;
mod profile;
mod session;
mod statement;
mod values;
mod wal;
mod work;

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

pub use self::auxiliary::{fetch_files, follow_wal};
pub use self::backup::parallel_backup;

use crate::clock::{Clock, FixedClock};
use crate::disk::{Disk, RealDisk};
use crate::login::{Login, Replication};
use crate::mutation::Weakness;
use crate::options::{Deadlines, SyncMethod, UnmappedTablespace};

/// How long the loop that fetches WAL pauses by default.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(2);

/// The most connections that fetch files.
pub const MAX_JOBS: usize = 128;

/// Everything about a parallel backup but the way to the server.
#[derive(Clone)]
pub struct ParallelOptions {
    /// Who logs in, and how.
    pub login: Login,
    /// The data directory: new, or existing and empty.
    pub directory: PathBuf,
    /// Whether what is in it is removed first, if it is a backup.
    pub force: bool,
    /// The backup's label.
    pub label: String,
    /// Whether the checkpoint is made at once instead of spread over time.
    pub fast_checkpoint: bool,
    /// Whether WAL is taken along, and how long the loop that fetches it pauses.
    pub wal: Option<Duration>,
    /// Connections that fetch files.
    pub jobs: NonZero<usize>,
    /// Files that are fetched before all others, in this order.
    pub first: Vec<Vec<u8>>,
    /// Leaves out files whose pages are all older than this: the start of the backup that this one builds on. A file is fetched whole
    /// to know, and is kept if in doubt: [`has_page_lsns`](backstop_protocol::base_backup::profile::has_page_lsns) says when.
    pub incremental_from: Option<Lsn>,
    /// Whether files cross the wire compressed, where the server has a language that can do it.
    pub compress: bool,
    /// Whether the checksums of pages are verified, where they have any.
    pub verify_checksums: bool,
    /// Old and new locations of tablespaces, both absolute.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// What happens to other tablespaces.
    pub unmapped_tablespaces: UnmappedTablespace,
    /// Whether everything is forced to disk before the backup is published.
    pub sync: bool,
    /// How.
    pub sync_method: SyncMethod,
    /// How long to wait. `data` is for every answer of a session that fetches, `finish` for the end of the backup.
    pub deadlines: Deadlines,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// What happens to files.
    pub disk: Arc<dyn Disk>,
    /// What is wrong with this client: nothing, but in tests of tests.
    pub weakness: Weakness,
}

impl ParallelOptions {
    /// A backup with one job and without WAL: everything else is set on the result.
    pub fn new(user: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        let user = user.into();
        let mut login = Login::new(user.clone(), "parallelbackup");
        login.database = user;
        Self {
            login: ordinary(login),
            directory: directory.into(),
            force: false,
            label: "parallelbackup".to_owned(),
            fast_checkpoint: false,
            wal: None,
            jobs: NonZero::<usize>::MIN,
            first: Vec::new(),
            incremental_from: None,
            compress: true,
            verify_checksums: true,
            tablespace_mapping: Vec::new(),
            unmapped_tablespaces: UnmappedTablespace::Refuse,
            sync: true,
            sync_method: SyncMethod::Fsync,
            deadlines: Deadlines::default(),
            clock: Arc::new(FixedClock::EPOCH),
            disk: Arc::new(RealDisk),
            weakness: Weakness::NONE,
        }
    }
}

/// A login for ordinary sessions whose texts are bytes: nothing is converted on the way, names of files least of all.
pub fn ordinary(login: Login) -> Login {
    Login { replication: Replication::Off, client_encoding: Some("SQL_ASCII".to_owned()), ..login }
}

impl fmt::Debug for ParallelOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParallelOptions")
            .field("login", &self.login)
            .field("directory", &self.directory)
            .field("label", &self.label)
            .field("wal", &self.wal)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// What was backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParallelSummary {
    /// Where recovery begins.
    pub start: Lsn,
    /// Where recovery may end.
    pub end: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
    /// The cluster.
    pub system_identifier: u64,
    /// Files fetched, WAL excluded.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were listed and gone when they were to be read.
    pub gone: u64,
    /// Files that an incremental backup leaves out.
    pub left_out: u64,
    /// Bytes of them.
    pub left_out_bytes: u64,
    /// WAL segments kept.
    pub wal_segments: usize,
    /// Bytes of WAL that were fetched, some of them more than once.
    pub wal_bytes: u64,
}

/// What a helper fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSummary {
    /// Files that are here now.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that the server does not have, or no more.
    pub gone: u64,
}

/// What a helper made of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowSummary {
    /// The redo position from which it begins, rounded down to a segment.
    pub start: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// The end of the last valid record.
    pub end: Option<Lsn>,
    /// Segments kept.
    pub segments: usize,
    /// Bytes that were fetched, some of them more than once.
    pub bytes: u64,
}
