//! What a caller is told, in `pg_receivewal`'s words.

use std::fmt;
use std::time::Duration;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use crate::error::shown;
use crate::observer::Observer;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Told with `--verbose`.
    Detail,
    /// Told.
    Info,
    /// Told as a warning.
    Warning,
    /// Told as an error: the stream ended.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are called what they are")]
pub enum WalEvent {
    /// A stream begins.
    Starting { at: Lsn, timeline: TimelineId },
    /// A segment is complete.
    FinishedSegment { at: Lsn, timeline: TimelineId },
    /// The end position has come.
    Stopped { at: Lsn, timeline: TimelineId },
    /// A timeline ended at about `at`.
    SwitchedTimeline { at: Lsn, timeline: TimelineId },
    /// The caller asked to stop.
    Interrupted,
    /// A stream ended within a segment.
    NotRenaming { file: String },
    /// A segment in the archive is not complete although its name says so.
    WrongSize { file: String, bytes: u64, compressed: bool },
    /// A segment in the archive cannot be read.
    Unreadable { file: String, problem: String },
    /// A file in the archive is called like a segment, and no segment of this server is.
    NoSegment { file: String },
    /// The beginning of a segment had an odd size and is written anew.
    Mended { file: String, bytes: u64, expected: u64 },
    /// The stream ended, and this is why.
    Failed { problem: String },
    /// The next try comes later.
    Waiting { pause: Duration },
}

impl WalEvent {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Starting { .. }
            | Self::FinishedSegment { .. }
            | Self::Stopped { .. }
            | Self::SwitchedTimeline { .. }
            | Self::Interrupted => Severity::Detail,
            Self::NotRenaming { .. } | Self::Waiting { .. } => Severity::Info,
            Self::WrongSize { .. } | Self::Unreadable { .. } | Self::NoSegment { .. } | Self::Mended { .. } => {
                Severity::Warning
            }
            Self::Failed { .. } => Severity::Error,
        }
    }
}

impl fmt::Display for WalEvent {
    /// Without the program's name and the severity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |name: &str| shown(name.as_bytes());
        match self {
            Self::Starting { at, timeline } => write!(f, "starting log streaming at {at} (timeline {timeline})"),
            Self::FinishedSegment { at, timeline } => write!(f, "finished segment at {at} (timeline {timeline})"),
            Self::Stopped { at, timeline } => write!(f, "stopped log streaming at {at} (timeline {timeline})"),
            Self::SwitchedTimeline { at, timeline } => write!(f, "switched to timeline {timeline} at {at}"),
            Self::Interrupted => f.write_str("received interrupt signal, exiting"),
            Self::NotRenaming { file } => write!(f, "not renaming \"{file}\", segment is not complete"),
            Self::WrongSize { file, bytes, compressed: false } => {
                write!(f, "segment file \"{}\" has incorrect size {bytes}, skipping", safe(file))
            }
            Self::WrongSize { file, bytes, compressed: true } => {
                let file = safe(file);
                write!(f, "compressed segment file \"{file}\" has incorrect uncompressed size {bytes}, skipping")
            }
            Self::Unreadable { file, problem } => {
                write!(f, "segment file \"{}\" could not be read: {problem}, skipping", safe(file))
            }
            Self::NoSegment { file } => {
                write!(f, "file \"{}\" is no segment of the server's segment size, skipping", safe(file))
            }
            Self::Mended { file, bytes, expected } => {
                let file = safe(file);
                write!(
                    f,
                    "write-ahead log file \"{file}\" has {bytes} bytes, should be 0 or {expected}; writing it anew"
                )
            }
            Self::Failed { problem } => f.write_str(problem),
            Self::Waiting { pause } => {
                write!(f, "disconnected; waiting {} seconds to try again", pause.as_secs())
            }
        }
    }
}

/// Told about everything that a user might like to see.
pub trait WalObserver: Observer {
    /// Something happened.
    fn event(&self, _event: &WalEvent) {}
}

impl WalObserver for crate::observer::Silent {}
