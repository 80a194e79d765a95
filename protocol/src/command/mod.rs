//! The commands of a walsender connection: their grammar in every release, and the text that stock clients send.
//!
//! [`parse`] reads a command as a server of a given release does; [`Command::to_sql`] writes the text that pg_basebackup
//! and pg_receivewal send to it. One grammar serves all releases: what a release does not know is not a keyword there
//! (`keyword`), and from 15 on options stand in parenthesised lists.
//!
//! What options mean is said elsewhere: [`crate::base_backup::options`] for BASE_BACKUP, [`SlotOptions`] for slots.

mod keyword;
mod lexer;
mod option;
mod parser;
mod printer;
mod slot;

#[cfg(test)]
mod tests;

pub use option::{CommandOption, OptionError, OptionValue};
pub use parser::{parse, parse_as};
pub use slot::{AlterSlotOptions, SlotOptions, SnapshotAction};

pub(crate) use option::parse_boolean_word;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// The longest text that is parsed, in bytes. A real command takes some hundred; the bound keeps a hostile one from
/// turning into millions of options.
pub const MAX_COMMAND: usize = 1 << 20;

/// A replication command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `IDENTIFY_SYSTEM`
    IdentifySystem,
    /// `SHOW` and the name of a setting; the parts of a dotted name are joined again.
    Show(String),
    /// `TIMELINE_HISTORY` and a timeline, never 0.
    TimelineHistory(u32),
    /// `BASE_BACKUP` and its options in the order in which they were given.
    BaseBackup(Vec<CommandOption>),
    /// `CREATE_REPLICATION_SLOT`
    CreateReplicationSlot(CreateSlot),
    /// `DROP_REPLICATION_SLOT`
    DropReplicationSlot {
        /// The slot's name.
        slot: String,
        /// Whether to wait until nobody uses it.
        wait: bool,
    },
    /// `ALTER_REPLICATION_SLOT`
    AlterReplicationSlot {
        /// The slot's name.
        slot: String,
        /// What to change, see [`AlterSlotOptions`].
        options: Vec<CommandOption>,
    },
    /// `READ_REPLICATION_SLOT` and the slot's name.
    ReadReplicationSlot(String),
    /// `START_REPLICATION`
    StartReplication(StartReplication),
    /// `UPLOAD_MANIFEST`
    UploadManifest,
}

/// `CREATE_REPLICATION_SLOT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSlot {
    /// The slot's name.
    pub slot: String,
    /// Whether the slot ends with its session, or with the first error.
    pub temporary: bool,
    /// What the slot is for.
    pub kind: SlotKind,
    /// The options under their names in option lists: `RESERVE_WAL` is `reserve_wal`, `NOEXPORT_SNAPSHOT` is `snapshot`
    /// with the value `nothing`. See [`SlotOptions`].
    pub options: Vec<CommandOption>,
}

/// What a slot is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Streams WAL as it is.
    Physical,
    /// Streams decoded changes.
    Logical {
        /// The output plugin.
        plugin: String,
    },
}

/// `START_REPLICATION`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReplication {
    /// The slot, if one is used. Logical replication always uses one.
    pub slot: Option<String>,
    /// What is streamed.
    pub kind: StartKind,
    /// Where to begin.
    pub start: Lsn,
}

/// What START_REPLICATION streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// WAL as it is.
    Physical {
        /// The timeline, or the server's current one.
        timeline: Option<TimelineId>,
    },
    /// Decoded changes.
    Logical {
        /// The output plugin's options.
        options: Vec<CommandOption>,
    },
}

impl Command {
    /// The command's first word, which is also its tag in CommandComplete since 13: `BASE_BACKUP`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::IdentifySystem => "IDENTIFY_SYSTEM",
            Self::Show(_) => "SHOW",
            Self::TimelineHistory(_) => "TIMELINE_HISTORY",
            Self::BaseBackup(_) => "BASE_BACKUP",
            Self::CreateReplicationSlot(_) => "CREATE_REPLICATION_SLOT",
            Self::DropReplicationSlot { .. } => "DROP_REPLICATION_SLOT",
            Self::AlterReplicationSlot { .. } => "ALTER_REPLICATION_SLOT",
            Self::ReadReplicationSlot(_) => "READ_REPLICATION_SLOT",
            Self::StartReplication(_) => "START_REPLICATION",
            Self::UploadManifest => "UPLOAD_MANIFEST",
        }
    }
}

/// A parsed command and what the server says beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The command.
    pub command: Command,
    /// One NOTICE, SQLSTATE 42622, for each identifier that was cut to 63 bytes.
    pub notices: Vec<String>,
}

/// Why a text is no replication command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It does not begin with a keyword of that release: SQL, which only a walsender that is connected to a database runs.
    #[error("not a replication command")]
    NotReplication,
    /// It begins as a replication command and goes on wrongly.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
}

/// What a server says of a wrong command, SQLSTATE 42601.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The primary message, most often `syntax error`.
    pub message: String,
    /// The byte of the text at which the wrong token begins. Servers do not report it.
    pub at: usize,
}

impl SyntaxError {
    /// `ERRCODE_SYNTAX_ERROR`
    pub const CODE: &'static str = "42601";
}
