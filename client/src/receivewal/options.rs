//! What a caller asks for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use backstop_protocol::lsn::Lsn;

use crate::clock::{Clock, FixedClock};
use crate::disk::{Disk, RealDisk};
use crate::login::Login;
use crate::mutation::Weakness;

/// How long to wait, at most, for what. Without a limit by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveDeadlines {
    /// For a connection up to its first ReadyForQuery.
    pub connect: Option<Duration>,
    /// For the next byte of a connection. The server is then asked to answer every status update.
    pub silence: Option<Duration>,
}

/// Everything about an archive but the way to the server.
#[derive(Clone)]
pub struct ReceiveOptions {
    /// Who logs in, and how.
    pub login: Login,
    /// Where the archive is. It must exist.
    pub directory: PathBuf,
    /// The replication slot to stream through.
    pub slot: Option<String>,
    /// Ends once WAL beyond this position has come.
    pub end: Option<Lsn>,
    /// Whether a lost connection is made again, every five seconds.
    pub reconnect: bool,
    /// Whether segments are forced to disk before they get their names.
    pub sync: bool,
    /// Whether WAL is forced to disk as soon as it has come, and reported.
    pub synchronous: bool,
    /// The time between two status updates; none for zero.
    pub status_interval: Duration,
    /// How segments are compressed. Zstandard is refused, as nobody would find such segments again.
    pub compression: Compression,
    /// How long to wait.
    pub deadlines: ReceiveDeadlines,
    /// What lets files be made and written.
    pub disk: Arc<dyn Disk>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// What is wrong with this client on purpose.
    pub weakness: Weakness,
}

impl ReceiveOptions {
    /// The options of a bare `pg_receivewal`: everything else is set on the result.
    pub fn new(login: Login, directory: impl Into<PathBuf>) -> Self {
        Self {
            login,
            directory: directory.into(),
            slot: None,
            end: None,
            reconnect: true,
            sync: true,
            synchronous: false,
            status_interval: Duration::from_secs(10),
            compression: Compression::plain(CompressionAlgorithm::None),
            deadlines: ReceiveDeadlines::default(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(FixedClock::EPOCH),
            weakness: Weakness::NONE,
        }
    }
}

impl fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("login", &self.login)
            .field("directory", &self.directory)
            .field("slot", &self.slot)
            .field("end", &self.end)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
