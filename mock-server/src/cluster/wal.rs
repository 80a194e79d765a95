//! The write-ahead log that a server keeps.

use std::io;

use backstop_protocol::wal_file::WalFileName;

/// WAL that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// The segment was recycled, or never was on this timeline.
    #[error("requested WAL segment {0} has already been removed")]
    Removed(WalFileName),
    /// Not written yet, or on a timeline that this server does not know.
    #[error("requested WAL is not there")]
    NotThere,
    /// A segment on disk cannot be read.
    #[error("could not read WAL segment: {0}")]
    Io(#[from] io::Error),
}
