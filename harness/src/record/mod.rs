//! What a run of one case left behind: the evidence that the oracles judge.
//!
//! A record lives as long as its server does, whose files the backups are compared with. [`saved`] is what can be put on disk,
//! and be judged again at any later time.

pub mod saved;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backstop_mock::transcript;
use backstop_mock::{BackupRecord, ServerState, SessionCounts};
use serde::{Deserialize, Serialize};

use crate::oracle::original::Original;
use crate::witness::said::Said;

/// How a client ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ending {
    /// It exited with this status; the built-in client's `Ok` is 0 and its `Err` is 1.
    Exited(i32),
    /// A signal ended it.
    Signal(i32),
    /// The built-in client panicked.
    Panicked(String),
    /// It was still running at its deadline, and was stopped.
    TimedOut,
    /// The point at which it starts was never reached.
    NeverStarted,
}

impl Ending {
    /// Whether the client says that the backup is good.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => f.write_str("success"),
            Self::Exited(status) => write!(f, "failure (exit status {status})"),
            Self::Signal(signal) => write!(f, "death by signal {signal}"),
            Self::Panicked(message) => write!(f, "a panic: {message}"),
            Self::TimedOut => f.write_str("timeout"),
            Self::NeverStarted => f.write_str("never started"),
        }
    }
}

/// One client's part of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClientRecord {
    /// Its name in the scenario, and its `application_name`.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// What it said: standard error, or the built-in client's notices and error.
    pub said: String,
    /// From its start to its end, in the run's own time.
    pub elapsed: Duration,
    /// Where it was told to put the backup.
    pub target: PathBuf,
    /// What changed outside its target and its tablespaces.
    pub changes_outside: Vec<String>,
}

/// A fault of the scenario, and whether it came to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultRecord {
    /// As in the scenario file.
    pub description: String,
    /// Whether it fired.
    pub fired: bool,
}

/// Everything that a run left.
#[derive(Debug)]
pub struct Record {
    /// In the scenario's order.
    pub clients: Vec<ClientRecord>,
    /// What the backups are copies of.
    pub original: Box<dyn Original>,
    /// How it stood after the last client had ended.
    pub state: ServerState,
    /// Its backups, in the order in which they began.
    pub backups: Vec<BackupRecord>,
    /// In the scenario's order.
    pub faults: Vec<FaultRecord>,
    /// What was said on the wire, in order.
    pub transcript: Vec<transcript::Event>,
    /// Each connection's number and client, and what it was sent.
    pub session_counts: Vec<SessionCounts>,
    /// ERROR and FATAL messages that were sent: the connection's number and the SQLSTATE.
    pub errors: Vec<(u32, String)>,
    /// What each session said and was told, word for word, if a witness heard it.
    pub said: BTreeMap<u32, Vec<Said>>,
    /// The end of the server's log, if it keeps one.
    pub log: String,
}

impl Record {
    /// Whether connection `session` was opened by `client`.
    pub fn is_session_of(&self, session: u32, client: &str) -> bool {
        let mut sessions = self.session_counts.iter();
        sessions.any(|count| count.session == session && count.application_name.as_deref() == Some(client))
    }

    /// The last backup of a client, as the server saw it.
    pub fn backup_of(&self, client: &str) -> Option<&BackupRecord> {
        self.backups.iter().rev().find(|backup| self.is_session_of(backup.session, client))
    }

    /// Whether WAL was streamed to `client`.
    pub fn has_wal_stream(&self, client: &str) -> bool {
        let mut streams = self.session_counts.iter().filter(|count| count.carried.wal.is_some());
        streams.any(|count| self.is_session_of(count.session, client))
    }

    /// The SQLSTATEs of the errors that the server sent to a client.
    pub fn sqlstates(&self, client: &str) -> Vec<String> {
        let errors = self.errors.iter().filter(|(session, _)| self.is_session_of(*session, client));
        errors.map(|(_, code)| code.clone()).collect()
    }
}
