//! The client under test: what a scenario asks of a client, turned into calls or command lines.

pub mod builtin;
pub mod command;
pub mod commands;
pub(crate) mod machine;
pub mod parallel;
pub mod receivewal;
pub mod signals;
pub(crate) mod small_disk;

use std::fmt;

use backstop_client::Weakness;

use crate::plan::SubjectSpec;
use crate::scenario::Case;
use command::Tool;

/// A client that is there and can be run.
#[derive(Debug)]
pub enum Subject {
    /// The client of this project, in process, sound or with a weakness.
    Builtin(Weakness),
    /// A program.
    Command(Tool),
}

impl Subject {
    /// Looks for the client and asks a known one for its version.
    ///
    /// # Errors
    /// The program's name and why it cannot be run.
    pub fn prepare(spec: &SubjectSpec) -> Result<Self, String> {
        match spec {
            SubjectSpec::Builtin => Ok(Self::Builtin(Weakness::NONE)),
            other => Tool::find(other).map(Self::Command),
        }
    }

    /// Whether this is the built-in client without a weakness.
    pub fn is_sound(&self) -> bool {
        matches!(self, Self::Builtin(weakness) if *weakness == Weakness::NONE)
    }

    /// Why this client cannot run this case, if it cannot.
    pub fn cannot_run(&self, case: &Case) -> Option<String> {
        match self {
            Self::Builtin(_) => None,
            Self::Command(_)
                if case.scenario.clients.iter().any(|client| client.tool == crate::scenario::model::Tool::Commands) =>
            {
                Some("no other client can be told which commands to send".to_owned())
            }
            Self::Command(tool) => tool.cannot_run(case),
        }
    }
}

impl fmt::Display for Subject {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(_) => SubjectSpec::Builtin.fmt(f),
            Self::Command(tool) => tool.spec.fmt(f),
        }
    }
}
