//! What a server had to be, and what befell it, for a recorded session: notes say a part of it, the script that recorded did
//! the rest.

use std::time::Duration;

use backstop_mock::Server;
use backstop_mock::config::{Config, DamagedPages, ExtraFile, ExtraFileKind, Role, RoleConfig, TablespaceConfig};
use backstop_mock::fault::server::{Crash, Promote, Shutdown, SwitchWal, Terminate};
use backstop_mock::fault::{Action, ShutdownMode};
use backstop_mock::units::Span;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;

use crate::compare::SEGMENT;
use crate::recording::{Event, Session};

/// The moment of a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the connection is opened.
    First,
    /// The session is ready for its first command.
    Started,
    /// A note begins with these words.
    Note(&'static str),
    /// The client is about to send this command for the nth time, from 1.
    Before(&'static str, usize),
    /// So many CopyData messages have come.
    Copied(u64),
    /// A message of this type has come.
    After(u8),
    /// So many NoticeResponse messages have come.
    Noticed(usize),
}

/// Something that is done outside the connection.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// What a fault could do.
    Act(Action),
    /// WAL is written, about so many bytes.
    Grow(u64),
    /// A setting is changed and the configuration reloaded.
    Set(&'static str, &'static str),
    /// The server is stopped at once, and started again.
    Restart,
    /// So much time passes.
    Wait(Duration),
    /// Four segments of WAL are written, each with a checkpoint.
    FourSegments,
    /// A full backup is taken, for the incremental ones that follow.
    FullBackup,
    /// A backup is begun and given up.
    AbandonedBackup,
    /// All WAL summaries are removed.
    RemoveSummaries,
    /// Other walsenders connect and stay.
    Crowd(usize),
    /// Another walsender streams, perhaps from a slot.
    Stream(Option<&'static str>),
    /// The other walsenders hang up.
    Leave,
    /// A CancelRequest with the session's key.
    Cancel,
}

/// A server and what befalls it.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) deeds: Vec<(When, Deed)>,
    /// The role that connects where the start-up was not recorded.
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

/// Sets the stage for a session.
pub(crate) fn set(session: &Session, version: ServerVersion) -> Result<Stage, String> {
    let mut config = config(session, version)?;
    let wanted = wal_start(session);
    let mut server = Err("no position".to_owned());
    // Not at every byte can a record begin.
    for start in [Some(wanted), Some(wanted.next_multiple_of(8)), Some(wanted / SEGMENT * SEGMENT + 0x28), None] {
        config.wal_start = start.map(Lsn);
        server = Server::new(config.clone()).map_err(|error| error.to_string());
        if server.is_ok() {
            break;
        }
    }
    let server = server?;
    if session.group == "timeline" {
        server.cluster().promote().map_err(|refusal| refusal.to_string())?;
    }
    if session.group == "slots" {
        // RESERVE_WAL keeps what the last checkpoint needs.
        server.cluster().checkpoint();
    }
    let superuser = session.database || session.name == "target-server";
    Ok(Stage {
        server,
        deeds: deeds(session, version),
        user: if superuser { "postgres" } else { "repl" },
        password: if session.name.ends_with("-wrong") { "wrong" } else { "secret" },
    })
}

/// Where the WAL of the server stood.
fn wal_start(session: &Session) -> u64 {
    let first = session.first_lsn().unwrap_or(3 * SEGMENT + 0x28);
    let backup = session.events.iter().find_map(|event| match event {
        Event::Front(front) => front.sql.clone(),
        _ => None,
    });
    let backup = backup.is_some_and(|command| command.starts_with("BASE_BACKUP"));
    // A backup of a primary begins a segment.
    if backup && first % SEGMENT == 0x28 && session.group != "standby" { first - SEGMENT / 2 } else { first }
}

fn config(session: &Session, version: ServerVersion) -> Result<Config, String> {
    let mut config = Config {
        version,
        size: 2 << 20,
        tablespaces: vec![TablespaceConfig { oid: 16391, location: "/srv/cap/pg/ts1".to_owned(), size: 64 << 10 }],
        max_wal_senders: 5,
        seed: 1,
        ..Config::default()
    };
    let mut set = |name: &str, value: &str| drop(config.settings.insert(name.to_owned(), value.to_owned()));
    set("max_replication_slots", "4");
    if version == ServerVersion::V15 {
        set("server_version", "15.18 (Debian 15.18-0+deb12u1)");
    }
    match session.name.as_str() {
        "archiving" | "archiving-stuck" => {
            set("archive_mode", "on");
            set("archive_command", if session.name == "archiving" { "/bin/true" } else { "/bin/false" });
        }
        "hot-standby-off" => set("hot_standby", "off"),
        "without-summaries" => {}
        _ if session.group == "incremental" && version.has_incremental() => {
            set("summarize_wal", "on");
            set("backstop.changed_blocks", "5%");
            // Large enough that some files are sent whole in more than one piece.
            config.size = 8 << 20;
        }
        _ => {}
    }
    // Debian's 15 was built with everything, the others with zlib alone.
    if version != ServerVersion::V15 {
        set("backstop.compression", "gzip");
    }
    config.extra_files = extra_files(session);
    if session.group == "checksum" {
        // The table of the cluster that is large enough.
        let damaged = DamagedPages { path: "base/16384/16385".to_owned(), blocks: (1..9).collect() };
        config.damaged_pages = vec![damaged];
    }
    if session.group == "logical" {
        set("wal_level", "logical");
    }
    if session.name == "wal-level-minimal" {
        set("wal_level", "minimal");
        config.max_wal_senders = 0;
    }
    config.roles = ROLES.map(role).into();
    config.hba = HBA.iter().map(|line| line.parse().map_err(|error| format!("{error}"))).collect::<Result<_, _>>()?;
    // It was built with GSSAPI.
    config.gssapi = version == ServerVersion::V15;
    if session.group == "standby" || session.group == "timeline" {
        config.role = Role::Standby;
    }
    Ok(config)
}

/// The roles of every server that was recorded.
const ROLES: [&str; 8] = ["postgres", "repl", "norepl", "nohba", "rejuser", "scramuser", "md5user", "pwuser"];

fn role(name: &str) -> RoleConfig {
    RoleConfig {
        password: ["scramuser", "md5user", "pwuser"].contains(&name).then(|| "secret".to_owned()),
        superuser: name == "postgres",
        replication: name != "norepl",
        ..RoleConfig::new(name)
    }
}

/// Its `pg_hba.conf`.
const HBA: [&str; 6] = [
    "host all,replication scramuser 127.0.0.1/32 scram-sha-256",
    "host all,replication md5user 127.0.0.1/32 md5",
    "host all,replication pwuser 127.0.0.1/32 password",
    "host all nohba 127.0.0.1/32 trust",
    "host replication rejuser 127.0.0.1/32 reject",
    "host all,replication postgres,repl,norepl,nosuch 127.0.0.1/32 trust",
];

/// What lay in the data directory.
fn extra_files(session: &Session) -> Vec<ExtraFile> {
    use ExtraFileKind::{Content, Directory, Sparse, Special};
    let file = |path: &[u8], kind| ExtraFile { path: path.to_vec(), kind, mode: 0o644 };
    match session.name.as_str() {
        "odd-files" => vec![
            ExtraFile { mode: 0o640, ..file(b"oddfile", Content(b"x".repeat(700))) },
            file(b"bad\xff", Content(b"y".to_vec())),
            ExtraFile { mode: 0o755, ..file(b"odddir", Directory) },
            ExtraFile { mode: 0o755, ..file(b"odddir/sub", Directory) },
            file(b"odddir/sub/f", Content(b"z".to_vec())),
            file(b"oddfifo", Special),
            file(b"pgsql_tmp_top", Content(b"t".to_vec())),
            file(b"base/pgsql_tmp123", Content(b"t".to_vec())),
            file(b"backup_label.old", Content(b"old".to_vec())),
            file(b"current_logfiles.tmp", Content(b"t".to_vec())),
            file(b"recovery.signal.x", Content(b"t".to_vec())),
            file(b"empty", Content(Vec::new())),
            file(b"oddlink", Special),
        ],
        "name-99" => vec![file(&b"n".repeat(99), Content(b"q".to_vec()))],
        "name-100" => vec![file(&b"n".repeat(100), Content(b"q".to_vec()))],
        "huge-file" => vec![file(b"huge", Sparse(8 << 30))],
        _ => Vec::new(),
    }
}

fn deeds(session: &Session, version: ServerVersion) -> Vec<(When, Deed)> {
    if session.group == "incremental" && version.has_incremental() {
        let full = (When::First, Deed::FullBackup);
        return match session.name.as_str() {
            // The session before these had begun a backup in vain.
            "bad-manifest-timeline-5-in-WAL-range" | "bad-manifest-start-LSN-in-the-future" => {
                vec![full, (When::First, Deed::AbandonedBackup)]
            }
            "summaries-missing" => vec![full, (When::First, Deed::RemoveSummaries)],
            _ => vec![full],
        };
    }
    let shutdown = |mode| Deed::Act(Action::Shutdown(Shutdown { mode }));
    let crash = || Deed::Act(Action::Crash(Crash { restart_after: None }));
    // A backup was under way, a connection idle, or WAL streaming.
    let moment = match session.name.rsplit('-').next() {
        Some("backup") => When::Copied(20),
        Some("stream") => When::After(b'W'),
        _ => When::Started,
    };
    let terminate = || Deed::Act(Action::Terminate(Terminate { client: Some("capture".to_owned()) }));
    match session.name.as_str() {
        "too-many" => vec![(When::First, Deed::Crowd(5))],
        "slots" => vec![
            (When::Note("a second walsender now streams"), Deed::Stream(Some("s1"))),
            (When::Before("READ_REPLICATION_SLOT s1", 3), Deed::Leave),
            (When::Before("DROP_REPLICATION_SLOT s1", 2), Deed::Leave),
        ],
        "archiving-stuck" => vec![(When::Noticed(2), Deed::Cancel)],
        "cancel" => vec![(When::Note("CancelRequest"), Deed::Cancel)],
        "terminate" => vec![(When::Note("pg_terminate_backend"), terminate())],
        "stream-terminate" => vec![(When::After(b'W'), terminate())],
        "stream" => vec![
            (When::Note("SQL activity"), Deed::Grow(100_000)),
            (When::Note("pg_switch_wal"), Deed::Act(Action::SwitchWal(SwitchWal {}))),
        ],
        "stream-slot" if version >= ServerVersion::V13 => {
            let note = "max_slot_wal_keep_size";
            vec![
                (When::Note(note), Deed::Set("max_slot_wal_keep_size", "1MB")),
                (When::Note(note), Deed::FourSegments),
                (When::Before("DROP_REPLICATION_SLOT st1", 1), Deed::Set("max_slot_wal_keep_size", "-1")),
            ]
        }
        "stream-wal-sender-timeout" => vec![(When::Started, Deed::Set("wal_sender_timeout", "1s"))],
        "stream-removed" => vec![(When::First, Deed::FourSegments)],
        "promoted-during-backup" => vec![(When::Note("pg_ctl promote"), Deed::Act(Action::Promote(Promote {})))],
        "stream-across-promotion" => vec![(When::After(b'W'), Deed::Act(Action::Promote(Promote {})))],
        "shutting-down-connect" => vec![(When::First, Deed::Stream(None)), (When::First, shutdown(ShutdownMode::Fast))],
        name if name.starts_with("fast-shutdown") => vec![(moment, shutdown(ShutdownMode::Fast))],
        name if name.starts_with("immediate-shutdown") => vec![(moment, shutdown(ShutdownMode::Immediate))],
        name if name.starts_with("crash") => vec![(moment, crash())],
        // The second refusal was another one: replay had begun.
        "after-crash-connect-2" => {
            let restart_after = Some(Span(Duration::from_secs(4)));
            let crash = Deed::Act(Action::Crash(Crash { restart_after }));
            vec![(When::First, crash), (When::First, Deed::Wait(Duration::from_secs(3)))]
        }
        name if name.starts_with("after-crash") => vec![(When::First, crash())],
        name if name.starts_with("starting-up") => vec![(When::First, Deed::Restart)],
        _ => Vec::new(),
    }
}

/// Why a command and its answer are left out of a session.
pub(crate) fn left_out(session: &Session, command: &str) -> Option<&'static str> {
    match (session.name.as_str(), command) {
        ("logical", "CREATE PUBLICATION pub FOR ALL TABLES") => Some("it changes a catalog, which only SQL can see"),
        ("logical", command) if command.starts_with("START_REPLICATION SLOT l1 LOGICAL") => {
            Some("it streams what an output plugin decodes from the changes of tables")
        }
        _ => None,
    }
}
