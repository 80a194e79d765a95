//! What a fault does, in the words of what the peer observes.

use backstop_protocol::backend::{Severity, SqlState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::member::{HeaderField, MemberType, Mode};
use crate::units::{ByteRate, ByteSize, Span};

fn all_bits() -> u8 {
    8
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_nothing(size: &ByteSize) -> bool {
    size.0 == 0
}

fn error_severity() -> NoticeSeverity {
    NoticeSeverity::Warning
}

/// What happens at a [`Point`](super::Point).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Action {
    // On the wire.
    /// The message comes late.
    Delay {
        /// By how much.
        r#for: Span,
    },
    /// The server falls silent; the connection stays open.
    Stall {
        /// For how long; for ever without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        r#for: Option<Span>,
    },
    /// From here on the session sends no faster than this.
    Throttle {
        /// Bytes in a second.
        rate: ByteRate,
    },
    /// From here on CopyData with bytes of archives, of the manifest or of WAL carries no more than this.
    Chop {
        /// Payload of one message.
        into: ByteSize,
    },
    /// The server closes the connection without a word; what was sent before arrives.
    Close {},
    /// The connection is reset.
    Reset {},
    /// The byte at the point arrives with its lowest bits flipped.
    Garble {
        /// How many, 1 to 8.
        #[serde(default = "all_bits")]
        bits: u8,
    },
    /// The message never comes; the rest goes on.
    Drop {},
    /// The message comes twice.
    Repeat {},
    /// The message and the one after it change places.
    Swap {},
    /// Bytes that nobody asked for come before the message: on the wire, or inside the archive or manifest if the point is
    /// one of its bytes.
    Insert {
        /// The bytes.
        hex: Hex,
    },
    /// The archive or manifest ends here, and the protocol goes on in good order.
    Truncate {
        /// Where it ends, if the point is its beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<ByteSize>,
    },

    // By the server.
    /// ERROR: the command ends, its backup is aborted, the session stays usable. During start-up it is FATAL.
    Error {
        /// Its code.
        #[schemars(with = "String")]
        sqlstate: SqlState,
        /// Its text.
        message: String,
    },
    /// A WARNING or a NOTICE comes before the message.
    Notice {
        /// `warning` without it.
        #[serde(default = "error_severity")]
        severity: NoticeSeverity,
        /// Its text.
        message: String,
    },
    /// The result set at the point, or the first one of the command's answer, has another value.
    ChangeRow {
        /// The column's name, as the server gives it: `spclocation`.
        column: String,
        /// Which row, from 1; all of them without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<u32>,
        /// The value; NULL without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// From here on ParameterStatus reports another value of the setting. The server goes by its own.
    ChangeParameter {
        /// The setting: `server_version`.
        name: String,
        /// Its value.
        to: String,
    },
    /// `pg_terminate_backend()`: FATAL 57P01 and the end of the connection.
    Terminate {
        /// Whose connections, as in [`Point`](super::Point); the session's own without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// The server shuts down.
    Shutdown {
        /// How.
        mode: ShutdownMode,
    },
    /// A server process crashes: every session ends as that release ends them, and connections are refused with 57P03.
    Crash {
        /// When connections are accepted again; never without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restart_after: Option<Span>,
    },
    /// `pg_promote()`: a standby becomes a primary on a new timeline.
    Promote {},
    /// A checkpoint removes WAL up to and with this segment, needed or not.
    RecycleWal {
        /// The last segment to go.
        through: String,
    },
    /// `pg_switch_wal()`.
    SwitchWal {},
    /// The slot is dropped, whoever uses it.
    DropSlot {
        /// The slot.
        slot: String,
    },
    /// `pg_backup_start()` in a session of its own.
    StartBackup {
        /// `pg_start_backup(…, exclusive => true)` instead, up to 14: the backup belongs to no session and leaves its label
        /// in the data directory.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exclusive: bool,
    },
    /// `pg_backup_stop()` in the session of the oldest `start-backup` that runs.
    StopBackup {
        /// `pg_stop_backup()` of the exclusive backup instead, whoever began it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exclusive: bool,
    },
    /// The sessions of `start-backup` go away without `pg_backup_stop()`. An exclusive backup goes on.
    AbortBackup {},

    // On the client's machine. Whoever started the client does it; a server that is merely served to strangers cannot.
    /// `kill(1)`: SIGINT, SIGHUP and SIGSTOP go to everything that the client has started, as from a terminal, and the others to
    /// the client alone.
    KillClient {
        /// Whose; without it, that of the connection that came to the point.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        /// Which.
        signal: Signal,
    },
    /// The client's disk takes so much more and is then full: ENOSPC.
    FillDisk {
        /// Whose; without it, that of the connection that came to the point.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        /// Nothing more without it.
        #[serde(default, skip_serializing_if = "is_nothing")]
        after: ByteSize,
    },
    /// From here on nothing can be forced to the client's disk: EIO.
    FailFsync {
        /// Whose; without it, that of the connection that came to the point.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// The client's disk becomes read-only, as file systems do after an error: EROFS.
    ProtectDisk {
        /// Whose; without it, that of the connection that came to the point.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// A client starts. No scenario says so in these words: `starts` of the client does.
    #[serde(skip)]
    StartClient {
        /// Which.
        client: String,
    },

    // In its files.
    /// A file is removed, as by DROP TABLE: a backup that has not begun to send it leaves it out without a word.
    RemoveFile {
        /// Its path in the manifest.
        path: String,
    },
    /// A file shrinks, as by VACUUM: a backup that is sending it fills up with zeros, a later one sends what is left.
    ShrinkFile {
        /// Its path in the manifest.
        path: String,
        /// What is left, in whole blocks of 8 KiB.
        to: ByteSize,
    },

    /// A file of a relation grows, as by INSERT: a backup that is sending it sends what it had announced, a later one all.
    GrowFile {
        /// Its path in the manifest.
        path: String,
        /// Its new size, in whole blocks of 8 KiB.
        to: ByteSize,
    },
    /// The blocks of a file are written anew, as by a checkpoint: a backup that is sending it sends old ones up to here and new
    /// ones from here on.
    ChangeFile {
        /// Its path in the manifest.
        path: String,
    },
    /// A file appears, as by CREATE TABLE: a backup whose walk has not come to the end of its archive sends it.
    AddFile {
        /// Its path in the manifest.
        path: String,
        /// What it holds.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        content: String,
    },

    // In the archive: a broken or hostile server.
    /// The member's header has another name.
    RenameMember {
        /// At most 100 bytes.
        to: String,
    },
    /// The member's header has another type; its content still follows.
    RetypeMember {
        /// Which.
        to: MemberType,
    },
    /// The member's header has another link target.
    RelinkMember {
        /// At most 100 bytes.
        to: String,
    },
    /// The member's header has another size; its content does not.
    ResizeHeader {
        /// Which.
        to: ByteSize,
    },
    /// The member's header has other permission bits.
    RemodeMember {
        /// In octal digits, as in `chmod`: `4777`.
        to: Mode,
    },
    /// A field of the member's header holds these bytes, and zeros behind them. Its checksum is right.
    WriteHeader {
        /// Which.
        field: HeaderField,
        /// The bytes, at most as many as the field has.
        hex: Hex,
    },
    /// The file holds another text. Its header and the manifest agree with it, as if it had lain so on the server.
    RewriteMember {
        /// The text.
        content: String,
    },
    /// `pg_control` is another cluster's. Its CRC and the manifest agree with it.
    ChangeControl {
        /// The other cluster.
        system_identifier: u64,
    },
    /// The member's header has a wrong checksum.
    BreakHeader {},
    /// The member never comes: header, content and padding.
    OmitMember {},
    /// The archive never comes, though the tablespace list announced it; or the manifest, though it was asked for.
    OmitArchive {},
    /// The archive ends without its two zero blocks (15 and newer).
    OmitTrailer {},
    /// A member that the cluster does not have comes before the point.
    ExtraMember {
        /// At most 100 bytes.
        name: String,
        /// `file` without it.
        #[serde(default)]
        kind: MemberType,
        /// Where a link points.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// What a file holds, or a header that describes the member after it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        content: String,
        /// What its header says of the size; the truth without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<ByteSize>,
    },
}

impl Action {
    /// Whose machine it is about, if it is about a client's machine: `Some(None)` is that of the connection at the point.
    pub fn client_machine(&self) -> Option<Option<&str>> {
        match self {
            Self::KillClient { client, .. }
            | Self::FillDisk { client, .. }
            | Self::FailFsync { client }
            | Self::ProtectDisk { client } => Some(client.as_deref()),
            Self::StartClient { client } => Some(Some(client)),
            _ => None,
        }
    }

    /// The action's name, as scenario files spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Stall { .. } => "stall",
            Self::Throttle { .. } => "throttle",
            Self::Chop { .. } => "chop",
            Self::Close {} => "close",
            Self::Reset {} => "reset",
            Self::Garble { .. } => "garble",
            Self::Drop {} => "drop",
            Self::Repeat {} => "repeat",
            Self::Swap {} => "swap",
            Self::Insert { .. } => "insert",
            Self::Truncate { .. } => "truncate",
            Self::Error { .. } => "error",
            Self::Notice { .. } => "notice",
            Self::ChangeRow { .. } => "change-row",
            Self::ChangeParameter { .. } => "change-parameter",
            Self::Terminate { .. } => "terminate",
            Self::Shutdown { .. } => "shutdown",
            Self::Crash { .. } => "crash",
            Self::Promote {} => "promote",
            Self::RecycleWal { .. } => "recycle-wal",
            Self::SwitchWal {} => "switch-wal",
            Self::DropSlot { .. } => "drop-slot",
            Self::StartBackup { .. } => "start-backup",
            Self::StopBackup { .. } => "stop-backup",
            Self::AbortBackup {} => "abort-backup",
            Self::KillClient { .. } => "kill-client",
            Self::FillDisk { .. } => "fill-disk",
            Self::FailFsync { .. } => "fail-fsync",
            Self::ProtectDisk { .. } => "protect-disk",
            Self::StartClient { .. } => "start-client",
            Self::RemoveFile { .. } => "remove-file",
            Self::ShrinkFile { .. } => "shrink-file",
            Self::GrowFile { .. } => "grow-file",
            Self::ChangeFile { .. } => "change-file",
            Self::AddFile { .. } => "add-file",
            Self::RenameMember { .. } => "rename-member",
            Self::RetypeMember { .. } => "retype-member",
            Self::RelinkMember { .. } => "relink-member",
            Self::ResizeHeader { .. } => "resize-header",
            Self::RemodeMember { .. } => "remode-member",
            Self::WriteHeader { .. } => "write-header",
            Self::RewriteMember { .. } => "rewrite-member",
            Self::ChangeControl { .. } => "change-control",
            Self::BreakHeader {} => "break-header",
            Self::OmitMember {} => "omit-member",
            Self::OmitArchive {} => "omit-archive",
            Self::OmitTrailer {} => "omit-trailer",
            Self::ExtraMember { .. } => "extra-member",
        }
    }
}

/// A signal, by its name in `signal(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the operating system's")]
pub enum Signal {
    #[serde(rename = "SIGHUP")]
    Hup,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGKILL")]
    Kill,
    #[serde(rename = "SIGSTOP")]
    Stop,
    #[serde(rename = "SIGCONT")]
    Cont,
}

impl Signal {
    /// Whether it ends a program that does nothing about it.
    pub fn is_deadly(self) -> bool {
        !matches!(self, Self::Stop | Self::Cont)
    }
}

/// `pg_ctl stop -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownMode {
    /// Waits for sessions to end by themselves; streaming ones are sent everything and end.
    Smart,
    /// Sessions are terminated; streaming ones are sent everything and end.
    Fast,
    /// Sessions end as in a crash.
    Immediate,
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub enum NoticeSeverity {
    Notice,
    Warning,
}

impl NoticeSeverity {
    /// The code that goes with it where no other is known.
    pub(crate) fn code(self) -> SqlState {
        match self {
            Self::Notice => SqlState::SUCCESSFUL_COMPLETION,
            Self::Warning => SqlState::WARNING,
        }
    }
}

impl From<NoticeSeverity> for Severity {
    fn from(severity: NoticeSeverity) -> Self {
        match severity {
            NoticeSeverity::Notice => Self::Notice,
            NoticeSeverity::Warning => Self::Warning,
        }
    }
}

/// Bytes, written as pairs of hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = || format!("invalid bytes {text:?}: expected pairs of hexadecimal digits such as \"4500000004\"");
        let pairs = text.as_bytes().chunks(2);
        let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        pairs
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(problem)
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        use std::fmt::Write as _;
        hex.0.iter().fold(Self::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_hexadecimal() {
        for text in ["4", "4g", "+1", "0x45"] {
            assert!(Hex::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            let text = String::from(Hex(bytes.clone()));
            prop_assert_eq!(Hex::try_from(text), Ok(Hex(bytes)));
        }
    }
}
