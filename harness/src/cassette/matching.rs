//! Whether a client asks what was asked when the cassette was recorded.

use backstop_protocol::base_backup::options::{BaseBackupOptions, ServerFacts};
use backstop_protocol::command::{self, Command, CreateSlot, StartKind, StartReplication};
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::{Flavour, ServerVersion};

use super::format::FromClient;
use super::redact;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A replication command, and what it says if it is a valid one.
    Command { text: String, command: Option<Command> },
    /// SQL: its first word and a checksum.
    Sql { begins: String, sha256: String },
    /// Messages of the extended query protocol.
    Extended,
}

impl Question {
    /// A replication command to a server of `version`.
    pub(super) fn command(text: String, version: ServerVersion) -> Self {
        let command = command::parse(&text, version).ok().map(|parsed| parsed.command);
        Self::Command { text, command }
    }

    /// What the text of a Query asks.
    pub(super) fn of(text: &[u8], version: ServerVersion, walsender: bool) -> Self {
        match redact::Question::new(text, version, walsender).said {
            FromClient::Query(text) => Self::command(text, version),
            FromClient::Sql { begins, sha256 } => Self::Sql { begins, sha256 },
            _ => Self::Extended,
        }
    }

    /// As people say it.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Command { text, .. } => text.clone(),
            Self::Sql { begins, .. } => format!("{begins} …"),
            Self::Extended => "an extended query".to_owned(),
        }
    }

    /// The command's first word.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Command { command: Some(command), .. } => command.name(),
            Self::Command { text, .. } => text.split_whitespace().next().unwrap_or_default(),
            Self::Sql { begins, .. } => begins,
            Self::Extended => "",
        }
    }

    /// The timeline of which WAL is asked for.
    pub(super) fn timeline(&self) -> Option<TimelineId> {
        match self {
            Self::Command {
                command:
                    Some(Command::StartReplication(StartReplication { kind: StartKind::Physical { timeline }, .. })),
                ..
            } => *timeline,
            _ => None,
        }
    }

    /// Whether the answer to `recorded` answers this, too. What says nothing of what is answered may differ: labels, how the checkpoint
    /// is made, the rate, names of slots.
    pub(super) fn is(&self, recorded: &Self, version: ServerVersion) -> bool {
        match (self, recorded) {
            (Self::Command { command: Some(one), .. }, Self::Command { command: Some(other), .. }) => {
                substance(one.clone(), version) == substance(other.clone(), version)
            }
            (Self::Command { text, .. }, Self::Command { text: other, .. }) => text == other,
            (one, other) => one == other,
        }
    }
}

/// A command, or what it asks for.
#[derive(Debug, PartialEq)]
enum Substance {
    Backup(Box<BaseBackupOptions>),
    Other(Box<Command>),
}

fn substance(command: Command, version: ServerVersion) -> Substance {
    Substance::Other(Box::new(match command {
        Command::BaseBackup(options) => {
            // Whatever the recorded server allowed.
            let facts = ServerFacts {
                flavour: Flavour::Stock,
                wal_summaries: true,
                manifest_uploaded: true,
                writes_server_files: true,
                gzip: true,
                lz4: true,
                zstd: true,
            };
            match BaseBackupOptions::from_command(&options, version, &facts) {
                Ok(options) => {
                    let of_no_account = BaseBackupOptions::default();
                    return Substance::Backup(Box::new(BaseBackupOptions {
                        label: of_no_account.label,
                        fast_checkpoint: of_no_account.fast_checkpoint,
                        max_rate: of_no_account.max_rate,
                        wait: of_no_account.wait,
                        ..options
                    }));
                }
                Err(_) => Command::BaseBackup(options),
            }
        }
        Command::StartReplication(start) => {
            Command::StartReplication(StartReplication { slot: start.slot.map(|_| String::new()), ..start })
        }
        Command::CreateReplicationSlot(create) => {
            Command::CreateReplicationSlot(CreateSlot { slot: String::new(), ..create })
        }
        Command::DropReplicationSlot { wait, .. } => Command::DropReplicationSlot { slot: String::new(), wait },
        Command::ReadReplicationSlot(_) => Command::ReadReplicationSlot(String::new()),
        other => other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        let version = ServerVersion::V18;
        let question = |text: &str| Question::of(text.as_bytes(), version, true);
        question(one).is(&question(other), version)
    }

    #[test]
    fn what_matters_has_to_be_the_same() {
        assert!(same("IDENTIFY_SYSTEM", " IDENTIFY_SYSTEM ;"));
        assert!(same(
            "BASE_BACKUP (LABEL 'a', MANIFEST 'yes', CHECKPOINT 'fast')",
            "BASE_BACKUP (MANIFEST 'yes', LABEL 'b', MAX_RATE 64)"
        ));
        assert!(!same("BASE_BACKUP (MANIFEST 'yes')", "BASE_BACKUP (MANIFEST 'no')"));
        assert!(!same("BASE_BACKUP (WAL)", "BASE_BACKUP"));
        assert!(same(
            "START_REPLICATION SLOT \"a\" 0/3000000 TIMELINE 1",
            "START_REPLICATION SLOT \"b\" 0/3000000 TIMELINE 1"
        ));
        assert!(!same("START_REPLICATION 0/3000000 TIMELINE 1", "START_REPLICATION 0/4000000 TIMELINE 1"));
        assert!(same("SELECT 1", "SELECT 1") && !same("SELECT 1", "SELECT 2"));
    }
}
