//! What can end a backup.

use std::fmt;
use std::io;
use std::path::PathBuf;

use backstop_protocol::backend::{Diagnostic, MessageError, Severity, SqlState};
use backstop_protocol::frame::FrameError;
use backstop_protocol::lsn::Lsn;

use crate::observer::Phase;

/// Why a backup failed. Shown in PostgreSQL's words where `pg_basebackup` has words for it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection, or it broke.
    Connection {
        /// What was being done, as `pg_basebackup` begins the message: `could not read COPY data`.
        doing: String,
        /// What the transport said.
        source: io::Error,
    },
    /// Nobody accepted a connection.
    Unreachable {
        /// The server, as in `server at "localhost" (127.0.0.1), port 5432`.
        server: String,
        /// Whether it is on this machine and listens on a Unix socket.
        local: bool,
        /// What the transport said.
        source: io::Error,
    },
    /// What failed at each of several places, in the order in which they were tried.
    Several(Vec<ClientError>),
    /// The server ended the connection where more had to come.
    Closed {
        /// What was being done.
        doing: String,
    },
    /// The server wants a password and none was given.
    PasswordNeeded {
        /// The server, as in `connection to server at "localhost", port 5432 failed`.
        server: String,
    },
    /// The exchange of passwords went wrong on the client's side.
    Authentication {
        /// The server.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The server sent a message that cannot stand here.
    Protocol {
        /// What was being done.
        doing: String,
        /// What may stand here.
        expected: String,
        /// What came.
        got: String,
    },
    /// Bytes that are no message.
    Frame {
        /// What was being done.
        doing: String,
        /// The length that cannot be.
        source: FrameError,
    },
    /// A message that does not have the shape that its type promises.
    Message {
        /// What was being done.
        doing: String,
        /// Where in the message.
        source: MessageError,
    },
    /// The server reported an error.
    Server {
        /// What was being done.
        doing: String,
        /// What the server said.
        diagnostic: Box<Diagnostic>,
    },
    /// An archive that is not what BASE_BACKUP sends.
    Archive {
        /// `base.tar`, `16391.tar`.
        archive: String,
        /// The member at which it was noticed; empty between members.
        member: String,
        /// The offset in the archive behind which it was noticed, in bytes.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A manifest that cannot be read, or does not agree with what was received.
    Manifest(String),
    /// A `backup_profile` that cannot be read, or does not agree with what was received.
    Profile(String),
    /// WAL that is not there or not valid.
    Wal {
        /// Where.
        at: Lsn,
        /// What is wrong.
        problem: String,
    },
    /// Something on this machine.
    Local {
        /// What could not be done: `create file`.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended the backup as if it were whole, and something is missing or contradicts the rest.
    Incomplete(String),
    /// A deadline passed.
    Timeout {
        /// What was being waited for.
        phase: Phase,
    },
    /// The options cannot be followed.
    Refused(String),
    /// A backup on this machine that cannot be used.
    Unusable(String),
    /// A [`Sink`](crate::sink::Sink) of the caller failed.
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// The error of a [`Sink`](crate::sink::Sink) that failed with `error`.
    pub fn sink(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Sink(error.into())
    }

    /// The error code, if the server sent one.
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            Self::Server { diagnostic, .. } => Some(diagnostic.code),
            Self::Several(all) => all.last()?.sqlstate(),
            _ => None,
        }
    }

    /// Whether the role may not do what it was asked to.
    pub(crate) fn lacks_privilege(&self) -> bool {
        self.sqlstate() == Some(SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Whether the server refused a statement, and its session can be asked again.
    pub(crate) fn session_goes_on(&self) -> bool {
        matches!(self, Self::Server { diagnostic, .. } if diagnostic.severity == Severity::Error)
    }

    /// Whether a connection was lost, or none was to be had. On another one the same may succeed.
    pub(crate) fn loses_connection(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Unreachable { .. } | Self::Closed { .. } | Self::Timeout { .. } => true,
            Self::Server { .. } => !self.session_goes_on(),
            Self::Several(all) => all.last().is_some_and(Self::loses_connection),
            _ => false,
        }
    }

    /// Whether the server wants a password and none was given.
    pub fn needs_password(&self) -> bool {
        match self {
            Self::PasswordNeeded { .. } => true,
            Self::Several(all) => all.last().is_some_and(Self::needs_password),
            _ => false,
        }
    }

    /// The same, with a line of ours below what the server said.
    pub(crate) fn with_remark(mut self, remark: &str) -> Self {
        if let Self::Server { diagnostic, .. } = &mut self {
            diagnostic.message = format!("{}\n{remark}", diagnostic.message);
        }
        self
    }

    /// One error for `all` that happened; the last one decides.
    pub(crate) fn all(mut all: Vec<Self>) -> Self {
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => only,
            (Some(last), false) => {
                all.push(last);
                Self::Several(all)
            }
            (None, _) => Self::Refused("no address was given".to_owned()),
        }
    }

    pub(crate) fn local(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { doing, path, source }
    }

    pub(crate) fn errno(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Local { doing, path, source: errno.into() }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { doing, source } => write!(f, "{doing}: {}", Reason(source)),
            Self::Unreachable { server, local, source } => {
                write!(f, "connection to {server} failed: {}", Reason(source))?;
                let asked = match local {
                    // It was there, and of somebody else; or nobody tried.
                    _ if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
                        && source.raw_os_error().is_none() =>
                    {
                        ""
                    }
                    true => "\n\tIs the server running locally and accepting connections on that socket?",
                    false => "\n\tIs the server running on that host and accepting TCP/IP connections?",
                };
                f.write_str(asked)
            }
            Self::Several(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("\n"))
            }
            Self::Closed { doing } => write!(f, "{doing}: server closed the connection unexpectedly"),
            Self::PasswordNeeded { server } => {
                write!(f, "connection to {server} failed: fe_sendauth: no password supplied")
            }
            Self::Authentication { server, problem } => write!(f, "connection to {server} failed: {problem}"),
            Self::Protocol { doing, expected, got } => write!(f, "{doing}: expected {expected}, got {got}"),
            Self::Frame { doing, source } => write!(f, "{doing}: {source}"),
            Self::Message { doing, source } => write!(f, "{doing}: {source}"),
            // The data is in doubt, not the transfer.
            Self::Server { diagnostic, .. } if diagnostic.code == SqlState::DATA_CORRUPTED => {
                write!(f, "checksum error occurred")
            }
            Self::Server { doing, diagnostic } => write!(f, "{doing}: {diagnostic}"),
            Self::Archive { archive, member, offset, problem } => {
                write!(f, "archive \"{archive}\", offset {offset}")?;
                if !member.is_empty() {
                    write!(f, ", member \"{member}\"")?;
                }
                write!(f, ": {problem}")
            }
            Self::Profile(problem) => write!(f, "backup profile: {problem}"),
            Self::Manifest(problem) | Self::Incomplete(problem) | Self::Refused(problem) | Self::Unusable(problem) => {
                f.write_str(problem)
            }
            Self::Wal { at, problem } => write!(f, "write-ahead log at {at}: {problem}"),
            Self::Local { doing, path, source } => {
                write!(f, "could not {doing} \"{}\": {}", path.display(), Reason(source))
            }
            Self::Timeout { phase } => write!(f, "timed out while {phase}"),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source, .. } | Self::Unreachable { source, .. } | Self::Local { source, .. } => {
                Some(source)
            }
            Self::Frame { source, .. } => Some(source),
            Self::Message { source, .. } => Some(source),
            // It shows what the sink's error says.
            Self::Sink(error) => error.source(),
            _ => None,
        }
    }
}

/// What an I/O error says, as `strerror` says it.
pub(crate) fn reason(error: &io::Error) -> String {
    Reason(error).to_string()
}

/// An I/O error without Rust's "(os error 2)": PostgreSQL shows what `strerror` says.
struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.rsplit_once(" (os error ") {
            Some((reason, number)) if number.ends_with(')') => f.write_str(reason),
            _ => f.write_str(&text),
        }
    }
}

/// A name from the server, safe to show: control characters are escaped, and what is not UTF-8 is replaced.
pub(crate) fn shown(name: &[u8]) -> String {
    if let Some(plain) = str::from_utf8(name).ok().filter(|text| !text.contains(char::is_control)) {
        // Every name of every archive comes by here.
        return plain.to_owned();
    }
    String::from_utf8_lossy(name)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_postgresql() {
        let local = ClientError::local("create file", "/x/y")(io::Error::from_raw_os_error(2));
        assert_eq!(local.to_string(), "could not create file \"/x/y\": No such file or directory");
        let diagnostic = Diagnostic::error(SqlState::UNDEFINED_OBJECT, "replication slot \"s\" does not exist");
        let server = ClientError::Server { doing: "backup failed".into(), diagnostic: Box::new(diagnostic) };
        assert_eq!(server.to_string(), "backup failed: ERROR:  replication slot \"s\" does not exist");
        assert_eq!(server.sqlstate(), Some(SqlState::UNDEFINED_OBJECT));
    }

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        assert_eq!(shown(b"a\n\x1b[31mb\xff"), "a\\n\\u{1b}[31mb\u{fffd}");
    }
}
