//! Every action at every point with which it goes together: it strikes, and nothing hangs or is left behind.

use std::time::Duration;

use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent, TarReader, Trailer};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::{PgTimestamp, StandbyMessage};
use bytes::BytesMut;

use super::testing::sound;
use crate::config::Config;
use crate::fault::Fault;
use crate::server::Server;
use crate::testing::{Client, End, archives, config};

const POINTS: [&str; 24] = [
    r#"{"connect": {}}"#,
    r#"{"startup": {}}"#,
    r#"{"command": {"starts-with": "BASE_BACKUP"}}"#,
    r#"{"ready": {"nth": 3}}"#,
    r#"{"start-position": {}}"#,
    r#"{"tablespace-list": {}}"#,
    r#"{"copy-begin": {}}"#,
    r#"{"archive-begin": {"archive": "base.tar"}}"#,
    r#"{"archive-begin": {"archive": "16400.tar"}}"#,
    r#"{"archive-data": {"archive": "base.tar", "at": "100%"}}"#,
    r#"{"archive-data": {"archive": "16400.tar", "at": "700B"}}"#,
    r#"{"member": {"path": "global/pg_control"}}"#,
    r#"{"member": {"path": "pg_tblspc/16400/*", "at": "1B", "nth": 2}}"#,
    r#"{"archive-end": {"archive": "base.tar"}}"#,
    r#"{"progress": {}}"#,
    r#"{"manifest-begin": {}}"#,
    r#"{"manifest-data": {"at": "50%"}}"#,
    r#"{"copy-done": {}}"#,
    r#"{"end-position": {}}"#,
    r#"{"wal-begin": {"client": "wal"}}"#,
    r#"{"wal-data": {"lsn": "0/2000020"}}"#,
    r#"{"keepalive": {}}"#,
    r#"{"status-update": {}}"#,
    r##"{"message": {"n": 5, "client": "#1"}}"##,
];

const ACTIONS: [&str; 40] = [
    r#"{"delay": {"for": "1s"}}"#,
    r#"{"stall": {}}"#,
    r#"{"throttle": {"rate": "1MiB/s"}}"#,
    r#"{"chop": {"into": "1000B"}}"#,
    r#"{"close": {}}"#,
    r#"{"reset": {}}"#,
    r#"{"garble": {}}"#,
    r#"{"drop": {}}"#,
    r#"{"repeat": {}}"#,
    r#"{"swap": {}}"#,
    r#"{"change-row": {"column": "recptr", "to": "x"}}"#,
    r#"{"change-parameter": {"name": "server_version", "to": "x"}}"#,
    r#"{"insert": {"hex": "4e"}}"#,
    r#"{"truncate": {}}"#,
    r#"{"truncate": {"to": "1B"}}"#,
    r#"{"error": {"sqlstate": "XX000", "message": "no"}}"#,
    r#"{"notice": {"message": "careful"}}"#,
    r#"{"terminate": {}}"#,
    r##"{"terminate": {"client": "#1"}}"##,
    r#"{"shutdown": {"mode": "smart"}}"#,
    r#"{"shutdown": {"mode": "fast"}}"#,
    r#"{"shutdown": {"mode": "immediate"}}"#,
    r#"{"crash": {}}"#,
    r#"{"recycle-wal": {"through": "000000010000000000000001"}}"#,
    r#"{"switch-wal": {}}"#,
    r#"{"remove-file": {"path": "PG_VERSION"}}"#,
    r#"{"shrink-file": {"path": "PG_VERSION", "to": "0B"}}"#,
    r#"{"rename-member": {"to": "x"}}"#,
    r#"{"retype-member": {"to": "fifo"}}"#,
    r#"{"relink-member": {"to": "x"}}"#,
    r#"{"resize-header": {"to": "8GiB"}}"#,
    r#"{"remode-member": {"to": "0777"}}"#,
    r#"{"write-header": {"field": "size", "hex": "ff"}}"#,
    r#"{"rewrite-member": {"content": "x"}}"#,
    r#"{"change-control": {"system-identifier": 1}}"#,
    r#"{"break-header": {}}"#,
    r#"{"omit-member": {}}"#,
    r#"{"omit-archive": {}}"#,
    r#"{"omit-trailer": {}}"#,
    r#"{"extra-member": {"name": "x"}}"#,
];

fn status() -> FrontendMessage {
    let zero = Lsn::INVALID;
    let update = StandbyMessage::StatusUpdate {
        write: zero,
        flush: zero,
        apply: zero,
        sent_at: PgTimestamp(0),
        reply_requested: true,
    };
    let mut payload = BytesMut::new();
    update.encode(&mut payload);
    FrontendMessage::CopyData(payload.freeze())
}

/// A backup, then a stream of its WAL; whoever is refused or cut off goes on with the next.
async fn exercise(server: &Server) {
    let command = "BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'yes')";
    for (name, commands) in [("backup", ["IDENTIFY_SYSTEM", command]), ("wal", ["", ""])] {
        let mut client = Client::connect(server);
        client.start_up(name).await;
        if client.read().await.1 != End::Ready {
            continue;
        }
        for command in commands.into_iter().filter(|command| !command.is_empty()) {
            client.query(command).await;
        }
        if name == "wal" {
            client.send(&FrontendMessage::Query("START_REPLICATION 0/2000000".into())).await;
            client.send(&status()).await;
            // The server has its say before the client ends the COPY.
            tokio::time::sleep(Duration::from_secs(10)).await;
            client.send(&FrontendMessage::CopyDone).await;
            let _ = tokio::time::timeout(Duration::from_secs(3600), client.read()).await;
        }
        client.send(&FrontendMessage::Terminate).await;
    }
}

async fn strikes(fault: Fault, what: &str) {
    let config = Config { size: 0, ..config(ServerVersion::V18, vec![fault]) };
    let server = Server::new(config).unwrap();
    exercise(&server).await;
    server.idle().await;
    assert_eq!(server.fired().len(), 1, "{what} has not struck");
    assert_eq!(server.cluster().running_backups(), 0, "{what} leaves a backup running");
    assert_eq!(server.state().sessions, 0, "{what} leaves a session");
}

async fn all_at(points: &[&str]) {
    let mut struck = 0;
    for point in points {
        for action in ACTIONS {
            let what = format!("{action} at {point}");
            let fault: Fault = serde_json::from_str(&format!("{{\"when\": {point}, \"do\": {action}}}")).unwrap();
            if fault.validate().is_ok() {
                strikes(fault, &what).await;
                struck += 1;
            }
        }
    }
    assert!(struck > points.len() * 10);
}

#[tokio::test(start_paused = true)]
async fn in_the_first_half_of_a_session() {
    all_at(&POINTS[..12]).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_second_half_of_a_session() {
    all_at(&POINTS[12..]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_what_it_says_without_faults() {
    let server = Server::new(Config { size: 0, ..config(ServerVersion::V18, vec![]) }).unwrap();
    exercise(&server).await;
    let transcript = server.transcript();
    let said = |message: &str| transcript.iter().filter(|event| event.message == message).count();
    assert_eq!((said("CopyBothResponse"), said("CopyOutResponse")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_sound_archive_satisfies_the_strict_reader() {
    for (name, archive) in archives(&sound().await).into_iter().filter(|(name, _)| name != "manifest") {
        let mut reader = TarReader::new(Trailer::Required);
        let mut events = Vec::new();
        reader.push(archive.into(), &mut events).unwrap();
        reader.finish().unwrap();
        let directories = events
            .iter()
            .filter(|event| matches!(event, TarEvent::Member(MemberHeader { kind: MemberKind::Directory, .. })));
        assert!(directories.count() > 0, "{name}");
    }
}
