//! Where a fault strikes: the events of the protocol.

use backstop_protocol::lsn::Lsn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Position, Span};

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_first(nth: &u32) -> bool {
    *nth == 1
}

/// Declares [`Point`]: every point has `client` and `nth`, and serde's `flatten` cannot be combined with
/// `deny_unknown_fields`.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// An event of the protocol. A fault strikes just before the message of its point is written.
        ///
        /// Each takes `client`, which connection it is about: the session's `application_name`; or its role, `backup` once
        /// it has issued BASE_BACKUP and `wal` once it has issued START_REPLICATION; or `#2`, the second connection that the
        /// server accepted. Without `client` every connection counts. And `nth`: which time it strikes, from 1, counted over
        /// all sessions that match.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
        pub enum Point {
            $($(#[$doc])* $name {
                /// Which connection.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                client: Option<String>,
                /// Which time, from 1.
                #[serde(default = "first", skip_serializing_if = "is_first")]
                nth: u32,
                $($(#[$field_doc])* $field: $type,)*
            },)*
        }

        impl Point {
            /// Which connection it is about.
            pub fn client(&self) -> Option<&str> {
                match self { $(Self::$name { client, .. } => client.as_deref(),)* }
            }

            /// Which time it strikes, from 1.
            pub fn nth(&self) -> u32 {
                match self { $(Self::$name { nth, .. } => *nth,)* }
            }
        }
    };
}

points! {
    /// A connection was accepted; nothing was read.
    Connect {}
    /// A StartupMessage was read; before the first message of the answer.
    Startup {}
    /// A command was read; before its answer.
    Command {
        /// The command's first words, as they were sent: `BASE_BACKUP`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        starts_with: Option<String>,
    }
    /// ReadyForQuery. A session's first is the one that ends its start-up.
    Ready {}
    /// BASE_BACKUP's first result set.
    StartPosition {}
    /// BASE_BACKUP's second result set.
    TablespaceList {}
    /// CopyOutResponse: one in a backup since 15, one for each archive and the manifest before.
    CopyBegin {}
    /// The archive's `n` message, or its CopyOutResponse before 15.
    ArchiveBegin {
        /// `base.tar`, `16400.tar`, also before 15, where archives have no names. Any without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<String>,
    }
    /// A byte of an archive.
    ArchiveData {
        /// As in `archive-begin`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<String>,
        /// How far into the archive; a percentage leaves out appended WAL.
        at: Position,
    }
    /// A member's header; with `at` a byte of its content.
    Member {
        /// The member's name as in the archive or as in the manifest, without a trailing `/`. One that ends in `*` stands for
        /// every name that begins so.
        path: String,
        /// How far into the content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Position>,
    }
    /// The two zero blocks that end an archive, or its CopyDone before 15.
    ArchiveEnd {
        /// As in `archive-begin`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<String>,
    }
    /// A progress message. There are none before 15.
    Progress {}
    /// The `m` message, or the manifest's CopyOutResponse before 15.
    ManifestBegin {}
    /// A byte of the manifest.
    ManifestData {
        /// How far into the manifest.
        at: Position,
    }
    /// CopyDone of a backup: one since 15, one for each archive and the manifest before.
    CopyDone {}
    /// BASE_BACKUP's last result set.
    EndPosition {}
    /// CopyBothResponse.
    WalBegin {}
    /// A byte of streamed WAL.
    WalData {
        /// Its position.
        lsn: Lsn,
    }
    /// A keepalive message.
    Keepalive {}
    /// A standby status update was received; before the server acts on it.
    StatusUpdate {}
    /// The time since the server's first connection.
    Clock {
        /// How long.
        at: Span,
    }
    /// A client has ended, whatever it did. Only whoever starts the clients can tell, which a server that is merely served
    /// to strangers cannot.
    ClientEnd {}
    /// A message of a session, whatever it is, CopyData included, counted after the ReadyForQuery that ends its start-up.
    Message {
        /// Which, from 1.
        n: u64,
    }
}

impl Point {
    /// The point's name, as scenario files spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Startup { .. } => "startup",
            Self::Command { .. } => "command",
            Self::Ready { .. } => "ready",
            Self::StartPosition { .. } => "start-position",
            Self::TablespaceList { .. } => "tablespace-list",
            Self::CopyBegin { .. } => "copy-begin",
            Self::ArchiveBegin { .. } => "archive-begin",
            Self::ArchiveData { .. } => "archive-data",
            Self::Member { .. } => "member",
            Self::ArchiveEnd { .. } => "archive-end",
            Self::Progress { .. } => "progress",
            Self::ManifestBegin { .. } => "manifest-begin",
            Self::ManifestData { .. } => "manifest-data",
            Self::CopyDone { .. } => "copy-done",
            Self::EndPosition { .. } => "end-position",
            Self::WalBegin { .. } => "wal-begin",
            Self::WalData { .. } => "wal-data",
            Self::Keepalive { .. } => "keepalive",
            Self::StatusUpdate { .. } => "status-update",
            Self::Clock { .. } => "clock",
            Self::ClientEnd { .. } => "client-end",
            Self::Message { .. } => "message",
        }
    }

    /// Whether the point is a byte of an archive or of the manifest, so that an action can change that byte.
    pub(super) fn is_archived_byte(&self) -> bool {
        matches!(self, Self::ArchiveData { .. } | Self::Member { at: Some(_), .. } | Self::ManifestData { .. })
    }

    /// The columns of the result set at the point, if one stands there.
    pub(super) fn columns(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::StartPosition { .. } | Self::EndPosition { .. } => Some(&["recptr", "tli"]),
            Self::TablespaceList { .. } => Some(&["spcoid", "spclocation", "size"]),
            _ => None,
        }
    }

    /// Whether the point is a member's header.
    pub(super) fn is_header(&self) -> bool {
        matches!(self, Self::Member { at: None, .. })
    }

    /// Whether a session comes to the point, and not the server as a whole.
    pub(super) fn has_session(&self) -> bool {
        !matches!(self, Self::Clock { .. } | Self::ClientEnd { .. })
    }

    /// What it lacks for what is done to a session.
    pub(super) fn lacks_session(&self) -> Option<&'static str> {
        (!self.has_session()).then_some("a session of its own")
    }

    /// What it lacks for what is done to a message.
    pub(super) fn lacks_message(&self) -> Option<&'static str> {
        (!self.has_message()).then_some("a message of its own")
    }

    /// What it lacks for what is done to a header.
    pub(super) fn lacks_header(&self) -> Option<&'static str> {
        (!self.is_header()).then_some("a member's header: member without at")
    }

    /// Whether one message, or one result set, of the server stands at the point, which can be left out or repeated.
    fn has_message(&self) -> bool {
        !matches!(
            self,
            Self::Connect { .. }
                | Self::Startup { .. }
                | Self::Command { .. }
                | Self::StatusUpdate { .. }
                | Self::Clock { .. }
                | Self::ClientEnd { .. }
        )
    }
}

/// What is about to be sent, or has just been received: the question that a session asks the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment<'a> {
    Connect,
    Startup,
    Command(&'a str),
    Ready,
    StartPosition,
    TablespaceList,
    CopyBegin,
    ArchiveBegin(&'a str),
    /// The name in the archive and the path in the manifest, both without a trailing slash.
    Member {
        name: &'a [u8],
        path: &'a [u8],
    },
    ArchiveEnd(&'a str),
    Progress,
    ManifestBegin,
    CopyDone,
    EndPosition,
    WalBegin,
    Keepalive,
    StatusUpdate,
    ClientEnd,
    Message(u64),
}

impl Moment<'_> {
    /// Whether `point` is about this moment. Bytes of data and the clock are asked for in other ways.
    pub(super) fn is_at(self, point: &Point) -> bool {
        let archive_is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        match (self, point) {
            (Self::Connect, Point::Connect { .. })
            | (Self::Startup, Point::Startup { .. })
            | (Self::Ready, Point::Ready { .. })
            | (Self::StartPosition, Point::StartPosition { .. })
            | (Self::TablespaceList, Point::TablespaceList { .. })
            | (Self::CopyBegin, Point::CopyBegin { .. })
            | (Self::Progress, Point::Progress { .. })
            | (Self::ManifestBegin, Point::ManifestBegin { .. })
            | (Self::CopyDone, Point::CopyDone { .. })
            | (Self::EndPosition, Point::EndPosition { .. })
            | (Self::WalBegin, Point::WalBegin { .. })
            | (Self::Keepalive, Point::Keepalive { .. })
            | (Self::StatusUpdate, Point::StatusUpdate { .. })
            | (Self::ClientEnd, Point::ClientEnd { .. }) => true,
            (Self::Command(text), Point::Command { starts_with, .. }) => {
                starts_with.as_ref().is_none_or(|start| text.starts_with(start.as_str()))
            }
            (Self::ArchiveBegin(name), Point::ArchiveBegin { archive, .. })
            | (Self::ArchiveEnd(name), Point::ArchiveEnd { archive, .. }) => archive_is(archive, name),
            (Self::Member { name, path }, Point::Member { path: wanted, at: None, .. }) => {
                names_member(wanted, name, path)
            }
            (Self::Message(number), Point::Message { n, .. }) => number == *n,
            _ => false,
        }
    }
}

/// Whether the `path` of a point stands for a member with this name in the archive and this path in the manifest.
pub(super) fn names_member(wanted: &str, name: &[u8], path: &[u8]) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()) || path.starts_with(start.as_bytes()),
        None => name == wanted.as_bytes() || path == wanted.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstop_protocol::version::ServerVersion;

    use super::*;
    use crate::testing::{Client, End, fault, server};

    #[test]
    fn a_member_is_named_by_either_path_or_by_a_prefix() {
        let (name, path) = (b"PG_18_202506291/5/1259".as_slice(), b"pg_tblspc/16400/PG_18_202506291/5/1259".as_slice());
        for wanted in ["PG_18_202506291/5/1259", "pg_tblspc/16400/PG_18_202506291/5/1259", "pg_tblspc/16400/*", "*"] {
            assert!(names_member(wanted, name, path), "{wanted}");
        }
        for wanted in ["PG_18_202506291/5/125", "5/*", ""] {
            assert!(!names_member(wanted, name, path), "{wanted}");
        }
        assert!(names_member("pg_wal/archive_status", b"./pg_wal/archive_status", b"pg_wal/archive_status"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_strikes_without_a_session_of_its_own() {
        let server = server(ServerVersion::V18, vec![fault(r#"{"clock": {"at": "90s"}}"#, r#"{"close": {}}"#)]);
        let mut client = Client::start(&server, "test").await;
        let begun = tokio::time::Instant::now();
        assert_eq!(client.next().await, Err(End::Closed(0)));
        assert_eq!(begun.elapsed(), Duration::from_secs(90));
        assert_eq!(server.fired().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_client_is_a_point() {
        let when = r#"{"client-end": {"client": "first", "nth": 2}}"#;
        let server = server(ServerVersion::V18, vec![fault(when, r#"{"switch-wal": {}}"#)]);
        for name in ["first", "second", "first"] {
            assert!(server.fired().is_empty());
            server.client_ended(name);
        }
        assert_eq!(server.fired().len(), 1);
    }
}
