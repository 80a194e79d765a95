//! Servers that stop, crash and come back, as the sessions of each release see it.

use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::{PgTimestamp, StandbyMessage, WalMessage};
use bytes::BytesMut;

use super::*;
use crate::config::Role;
use crate::fault::ShutdownMode;
use crate::testing::{Client, End, config, diagnostics, server, tags};

const WARNING: &str = "WARNING 57P02: terminating connection because of crash of another server process";
const FATAL: &str = "FATAL 57P01: terminating connection due to administrator command";
const ABORTING: &str = "WARNING 01000: aborting backup due to backend exiting before pg_backup_stop was called";

/// A backup that is throttled, an idle session and a stream, as in the recordings.
async fn three(server: &Server) -> [Client; 3] {
    let mut clients = [
        Client::start(server, "backup").await,
        Client::start(server, "idle").await,
        Client::start(server, "stream").await,
    ];
    let command = if server.cluster().version().has_option_lists() {
        "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MAX_RATE 32)"
    } else {
        "BASE_BACKUP FAST NOWAIT MAX_RATE 32"
    };
    clients[0].send(&FrontendMessage::Query(command.into())).await;
    clients[0].read_until(|message| matches!(message, BackendMessage::CopyOutResponse)).await;
    let command = format!("START_REPLICATION {} TIMELINE 1", server.cluster().flush_position());
    clients[2].send(&FrontendMessage::Query(command.into())).await;
    assert_eq!(clients[2].next().await, Ok(BackendMessage::CopyBothResponse));
    clients
}

async fn confirm(client: &mut Client, flush: Lsn) {
    let sent_at = PgTimestamp(0);
    let update =
        StandbyMessage::StatusUpdate { write: flush, flush, apply: Lsn::INVALID, sent_at, reply_requested: false };
    let mut payload = BytesMut::new();
    update.encode(&mut payload);
    client.send(&FrontendMessage::CopyData(payload.freeze())).await;
}

/// What the postmaster says to a new connection.
async fn refusal(server: &Server) -> String {
    let mut client = Client::connect(server);
    client.start_up("late").await;
    let (messages, end) = client.read().await;
    match messages.first() {
        Some(BackendMessage::ErrorResponse(refusal)) => {
            assert_eq!(end, End::Closed(0));
            let detail = refusal.detail.as_ref().map(|detail| format!(" DETAIL: {detail}")).unwrap_or_default();
            format!("{} {}{detail}", refusal.code, refusal.message)
        }
        Some(_) => "accepted".to_owned(),
        None => "reset".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_fast_shutdown_ends_sessions_one_kind_after_the_other() {
    for version in ServerVersion::ALL.into_iter().filter(|version| *version >= ServerVersion::V12) {
        let server = server(version, vec![]);
        let [mut backup, mut idle, mut stream] = three(&server).await;
        let before = server.cluster().flush_position();
        server.shut_down(ShutdownMode::Fast);
        let (messages, end) = idle.read().await;
        assert_eq!((diagnostics(&messages), end), (vec![FATAL.to_owned()], End::Closed(0)));
        let (messages, end) = backup.read().await;
        let said = if version.warns_of_aborted_backup() { vec![FATAL, ABORTING] } else { vec![FATAL] };
        assert_eq!((diagnostics(&messages), end), (said.iter().map(ToString::to_string).collect(), End::Closed(0)));
        assert_eq!(server.cluster().running_backups(), 0);
        // The shutdown checkpoint: 120 bytes.
        let Ok(BackendMessage::CopyData(payload)) = stream.next().await else { panic!("expected WAL") };
        let Ok(WalMessage::XLogData { start, data, .. }) = WalMessage::decode(payload) else { panic!("expected WAL") };
        assert_eq!((start, data.len()), (before, 120));
        assert_eq!(refusal(&server).await, "57P03 the database system is shutting down");
        assert_eq!(server.phase(), Phase::EndingStreams);
        let end = start + data.len() as u64;
        confirm(&mut stream, end).await;
        let (messages, closed) = stream.read().await;
        // Since 18 the client is asked before it can have answered.
        let expected = if version >= ServerVersion::V18 { "dC" } else { "C" };
        assert_eq!((tags(&messages).as_str(), closed), (expected, End::Closed(0)), "{version}");
        assert_eq!(messages.last(), Some(&BackendMessage::CommandComplete("COPY 0".to_owned())));
        server.stopped().await;
        assert_eq!(refusal(&server).await, "reset");
        server.start().unwrap();
        let mut again = Client::start(&server, "again").await;
        assert_eq!(again.query("IDENTIFY_SYSTEM").await.1, End::Ready);
        assert_eq!(server.cluster().flush_position(), end, "nothing was to be recovered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_asked_for_its_position() {
    let server = server(ServerVersion::V15, vec![]);
    let [.., mut stream] = three(&server).await;
    server.shut_down(ShutdownMode::Fast);
    let mut asked =
        stream.read_until(|message| matches!(message, BackendMessage::CopyData(data) if data.starts_with(b"k"))).await;
    let Some(BackendMessage::CopyData(payload)) = asked.pop() else { panic!("expected a keepalive") };
    let Ok(WalMessage::Keepalive { reply_requested, wal_end, .. }) = WalMessage::decode(payload) else { panic!() };
    assert!(reply_requested);
    assert_eq!(wal_end, server.cluster().flush_position());
    // Without its answer the server waits, up to wal_sender_timeout.
    assert_eq!(stream.next().await, Err(End::Closed(0)));
    server.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_client_ends_during_a_shutdown_is_all_that_there_was() {
    let server = server(ServerVersion::V15, vec![]);
    let [.., mut stream] = three(&server).await;
    server.shut_down(ShutdownMode::Fast);
    stream.send(&FrontendMessage::CopyDone).await;
    let (messages, end) = stream.read().await;
    assert!(tags(&messages).ends_with('c'), "no CommandComplete: {}", tags(&messages));
    assert_eq!(end, End::Closed(0));
}

#[tokio::test(start_paused = true)]
async fn a_smart_shutdown_does_not_wait_for_walsenders() {
    let server = server(ServerVersion::V17, vec![]);
    let [_backup, mut idle, _stream] = three(&server).await;
    server.shut_down(ShutdownMode::Smart);
    let (messages, end) = idle.read().await;
    assert_eq!((diagnostics(&messages), end), (vec![FATAL.to_owned()], End::Closed(0)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_to_who_has_not_come_in_yet() {
    let server = server(ServerVersion::V18, vec![]);
    let mut silent = Client::connect(&server);
    tokio::task::yield_now().await;
    server.shut_down(ShutdownMode::Fast);
    assert_eq!(silent.read().await, (vec![], End::Closed(0)));
    server.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn an_immediate_shutdown_is_a_crash_to_everybody() {
    for version in [ServerVersion::V12, ServerVersion::V13, ServerVersion::V14, ServerVersion::V18] {
        let server = server(version, vec![]);
        let [mut backup, mut idle, mut stream] = three(&server).await;
        let before = server.cluster().flush_position();
        server.shut_down(ShutdownMode::Immediate);
        let expected = if version.crashes_silently() { vec![] } else { vec![WARNING.to_owned()] };
        for client in [&mut backup, &mut idle, &mut stream] {
            let (messages, _) = client.read().await;
            assert_eq!(diagnostics(&messages), expected, "{version}");
        }
        assert_eq!(server.phase(), Phase::Stopped);
        assert_eq!(server.cluster().flush_position(), before, "no checkpoint");
        server.begin_start(Duration::from_secs(2));
        assert_eq!(refusal(&server).await, "57P03 the database system is starting up");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let replaying = match version {
            ServerVersion::V18 => {
                "57P03 the database system is not yet accepting connections DETAIL: Consistent recovery state has not \
                 been yet reached."
            }
            _ => "57P03 the database system is starting up",
        };
        assert_eq!(refusal(&server).await, replaying, "{version}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Client::start(&server, "again").await;
        assert_eq!(server.cluster().flush_position() - before, 120, "the end-of-recovery checkpoint");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_recovers_without_what_was_in_memory() {
    for version in [ServerVersion::V13, ServerVersion::V15] {
        let server = server(version, vec![]);
        let [mut backup, ..] = three(&server).await;
        let cluster = server.cluster();
        cluster.create_slot("temporary", true, true, 4002).unwrap();
        cluster.create_slot("kept", false, true, 1).unwrap();
        let reserved = cluster.read_slot("kept").unwrap().restart_lsn;
        cluster.confirm_flush("kept", cluster.flush_position());
        server.crash(Some(Duration::from_secs(2)));
        let (_, end) = backup.read().await;
        assert!(matches!(end, End::Closed(_)));
        assert_eq!(refusal(&server).await, "57P03 the database system is in recovery mode");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let replaying = match version {
            ServerVersion::V13 => "57P03 the database system is in recovery mode",
            _ => {
                "57P03 the database system is not yet accepting connections DETAIL: Consistent recovery state has not \
                 been yet reached."
            }
        };
        assert_eq!(refusal(&server).await, replaying);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut again = Client::start(&server, "again").await;
        assert_eq!(again.query("IDENTIFY_SYSTEM").await.1, End::Ready);
        let slots = server.state().slots;
        assert_eq!(slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["kept"]);
        assert_eq!(slots[0].restart_lsn, reserved, "what was confirmed had not been saved");
        assert_eq!((server.state().running_backups, cluster.running_backups()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_crash_begins_recovery_again() {
    let server = server(ServerVersion::V18, vec![]);
    Client::start(&server, "test").await;
    server.crash(Some(Duration::from_secs(4)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.crash(Some(Duration::from_secs(4)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(server.phase(), Phase::Running);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.phase(), Phase::Running);
    server.crash(None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.phase(), Phase::RecoveryMode);
    server.shut_down(ShutdownMode::Fast);
    assert_eq!(server.phase(), Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_server_can_begin_before_it_runs() {
    for (version, phase, expected) in [
        (ServerVersion::V9_1, Phase::StartingUp, "the database system is starting up"),
        (ServerVersion::V18, Phase::StartingUp, "the database system is starting up"),
        (ServerVersion::V12, Phase::RecoveryMode, "the database system is in recovery mode"),
        (ServerVersion::V13, Phase::NotConsistent, "the database system is starting up"),
        (
            ServerVersion::V14,
            Phase::NotConsistent,
            "the database system is not yet accepting connections DETAIL: Consistent recovery state has not been yet \
             reached.",
        ),
    ] {
        let ready_after = Some(Duration::from_secs(9));
        let server = Server::new(Config { phase, ready_after, ..config(version, vec![]) }).unwrap();
        assert_eq!(refusal(&server).await, format!("57P03 {expected}"));
        tokio::time::sleep(Duration::from_secs(10)).await;
        Client::start(&server, "test").await;
    }
    let refused = Server::new(Config { phase: Phase::Stopped, ..config(ServerVersion::V18, vec![]) }).unwrap_err();
    insta::assert_snapshot!(refused, @"invalid server.phase: a server begins as starting-up, recovery-mode, not-consistent or running");
}

#[tokio::test(start_paused = true)]
async fn a_warm_standby_takes_nobody_in() {
    for (version, expected) in [
        (ServerVersion::V12, "the database system is starting up"),
        (ServerVersion::V13, "the database system is starting up"),
        (ServerVersion::V14, "the database system is not accepting connections DETAIL: Hot standby mode is disabled."),
        (ServerVersion::V18, "the database system is not accepting connections DETAIL: Hot standby mode is disabled."),
    ] {
        let mut config = Config { role: Role::Standby, ..config(version, vec![]) };
        config.settings.insert("hot_standby".to_owned(), "off".to_owned());
        let server = Server::new(config).unwrap();
        assert_eq!(refusal(&server).await, format!("57P03 {expected}"));
        server.cluster().promote().unwrap();
        assert_eq!(refusal(&server).await, "accepted", "it is a primary now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_writes_no_checkpoint_when_it_stops() {
    let server = Server::new(Config { role: Role::Standby, ..config(ServerVersion::V16, vec![]) }).unwrap();
    let [.., mut stream] = three(&server).await;
    let position = server.cluster().flush_position();
    server.shut_down(ShutdownMode::Fast);
    // It has confirmed nothing yet, and there is nothing more to send.
    let asked = stream.next().await;
    assert!(matches!(asked, Ok(BackendMessage::CopyData(ref data)) if data.starts_with(b"k")), "{asked:?}");
    confirm(&mut stream, position).await;
    assert_eq!(stream.read().await, (vec![BackendMessage::CommandComplete("COPY 0".to_owned())], End::Closed(0)));
    server.stopped().await;
    assert_eq!(server.cluster().flush_position(), position);
    server.start().unwrap();
    assert!(server.cluster().in_recovery());
    Client::start(&server, "again").await;
}

#[tokio::test(start_paused = true)]
async fn changed_settings_are_heard_of_with_the_next_command() {
    for (version, expected) in [(ServerVersion::V13, "SSSTDCZ"), (ServerVersion::V14, "TDCZ")] {
        let server = server(version, vec![]);
        let mut client = Client::start(&server, "test").await;
        server.cluster().set("WAL_SENDER_TIMEOUT", "1s").unwrap();
        let (messages, _) = client.query("SHOW wal_sender_timeout").await;
        assert_eq!(tags(&messages), expected);
        assert!(messages.contains(&BackendMessage::DataRow(vec![Some("1s".into())])));
        let (messages, _) = client.query("SHOW wal_sender_timeout").await;
        assert_eq!(tags(&messages), "TDCZ", "once");
        let refused = server.cluster().set("max_wal_senders", "1").unwrap_err().to_string();
        assert_eq!(
            refused,
            "invalid settings.max_wal_senders: parameter \"max_wal_senders\" cannot be changed without restarting the server"
        );
    }
}
