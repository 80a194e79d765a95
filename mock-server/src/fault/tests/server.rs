//! Error, notice, terminate, shutdown, crash, promote, recycle-wal, switch-wal, drop-slot, start-backup, abort-backup.

use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::version::ServerVersion;

use super::{COMMAND, struck};
use crate::config::{Config, Role};
use crate::server::{BackupOutcome, Server};
use crate::testing::{Client, End, config, diagnostics, fault, server, tags};

const MIDDLE: &str = r#"{"archive-data": {"archive": "base.tar", "at": "50%"}}"#;
const ABORTING: &str = "WARNING 01000: aborting backup due to backend exiting before pg_backup_stop was called";

#[tokio::test(start_paused = true)]
async fn an_error_aborts_the_backup_and_not_the_session() {
    let action = r#"{"error": {"sqlstate": "58030", "message": "could not read file"}}"#;
    let (server, messages, end) = struck(MIDDLE, action).await;
    assert_eq!(end, End::Ready);
    assert_eq!(tags(&messages), "TDCTDDCHdNEZ");
    assert_eq!(diagnostics(&messages), [ABORTING, "ERROR 58030: could not read file"]);
    assert_eq!(server.backups()[0].ended, BackupOutcome::Failed("could not read file".to_owned()));
    assert_eq!((server.state().running_backups, server.cluster().running_backups()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_during_start_up_is_fatal() {
    let faults = vec![fault(r#"{"startup": {}}"#, r#"{"error": {"sqlstate": "57P03", "message": "no"}}"#)];
    let server = server(ServerVersion::V18, faults);
    let mut client = Client::connect(&server);
    client.start_up("test").await;
    let (messages, end) = client.read().await;
    assert_eq!((diagnostics(&messages), end), (vec!["FATAL 57P03: no".to_owned()], End::Closed(0)));
}

#[tokio::test(start_paused = true)]
async fn a_notice_comes_before_the_message() {
    let (_, messages, end) = struck(r#"{"copy-done": {}}"#, r#"{"notice": {"message": "careful"}}"#).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdNcTDCCZ", End::Ready));
    assert_eq!(diagnostics(&messages), ["WARNING 01000: careful"]);
}

#[tokio::test(start_paused = true)]
async fn terminate_is_fatal_and_then_the_end() {
    let (_, messages, end) = struck(MIDDLE, r#"{"terminate": {}}"#).await;
    let fatal = "FATAL 57P01: terminating connection due to administrator command";
    assert_eq!((diagnostics(&messages), end), (vec![fatal.to_owned(), ABORTING.to_owned()], End::Closed(0)));
}

#[tokio::test(start_paused = true)]
async fn terminate_can_be_about_another_session() {
    let when = r#"{"command": {"starts-with": "IDENTIFY_SYSTEM", "client": "killer"}}"#;
    let server = server(ServerVersion::V18, vec![fault(when, r#"{"terminate": {"client": "victim"}}"#)]);
    let mut victim = Client::start(&server, "victim").await;
    let mut killer = Client::start(&server, "killer").await;
    assert_eq!(killer.query("IDENTIFY_SYSTEM").await.1, End::Ready);
    let (messages, end) = victim.read().await;
    let fatal = "FATAL 57P01: terminating connection due to administrator command";
    assert_eq!((diagnostics(&messages), end), (vec![fatal.to_owned()], End::Closed(0)));
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
async fn a_crash_ends_all_sessions_as_the_release_does() {
    for (version, command, silent) in
        [(ServerVersion::V13, "BASE_BACKUP FAST NOWAIT", false), (ServerVersion::V18, COMMAND, true)]
    {
        let server = server(version, vec![fault(MIDDLE, r#"{"crash": {}}"#)]);
        let mut other = Client::start(&server, "other").await;
        let mut client = Client::start(&server, "test").await;
        let (messages, end) = client.query(command).await;
        let expected: Vec<String> = if silent {
            assert!(matches!(end, End::Closed(1..)), "the last message is cut: {end:?}");
            vec![]
        } else {
            assert_eq!(end, End::Closed(0));
            vec!["WARNING 57P02: terminating connection because of crash of another server process".to_owned()]
        };
        assert_eq!(diagnostics(&messages), expected);
        let (messages, end) = other.read().await;
        assert_eq!((diagnostics(&messages), end), (expected, End::Closed(0)));
        let mut late = Client::connect(&server);
        late.start_up("late").await;
        let (messages, end) = late.read().await;
        let refusal = "FATAL 57P03: the database system is in recovery mode".to_owned();
        assert_eq!((diagnostics(&messages), end), (vec![refusal], End::Closed(0)));
        assert_eq!(server.cluster().running_backups(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_comes_back_if_it_is_to() {
    let faults = vec![fault(r#"{"ready": {}}"#, r#"{"crash": {"restart-after": "3s"}}"#)];
    let server = server(ServerVersion::V18, faults);
    let mut client = Client::connect(&server);
    client.start_up("test").await;
    assert!(matches!(client.read().await.1, End::Closed(_)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    Client::start(&server, "again").await;
}

#[tokio::test(start_paused = true)]
async fn a_fast_shutdown_terminates_backups_and_lets_streams_finish() {
    let when = r#"{"command": {"starts-with": "SHOW"}}"#;
    let server = server(ServerVersion::V18, vec![fault(when, r#"{"shutdown": {"mode": "fast"}}"#)]);
    let mut stream = Client::start(&server, "stream").await;
    let position = server.cluster().flush_position();
    stream.send(&FrontendMessage::Query(format!("START_REPLICATION {position}").into())).await;
    stream.read_until(|message| matches!(message, BackendMessage::CopyBothResponse)).await;
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query("SHOW data_directory_mode").await;
    let fatal = "FATAL 57P01: terminating connection due to administrator command";
    assert_eq!((diagnostics(&messages), end), (vec![fatal.to_owned()], End::Closed(0)));
    let mut refused = Client::connect(&server);
    refused.start_up("refused").await;
    let (messages, _) = refused.read().await;
    assert_eq!(diagnostics(&messages), ["FATAL 57P03: the database system is shutting down"]);
    let (messages, end) = {
        let asked = stream
            .read_until(|message| matches!(message, BackendMessage::CopyData(data) if data.starts_with(b"k")))
            .await;
        let end = server.cluster().flush_position();
        let mut payload = bytes::BytesMut::new();
        backstop_protocol::wal::stream::StandbyMessage::StatusUpdate {
            write: end,
            flush: end,
            apply: end,
            sent_at: backstop_protocol::wal::stream::PgTimestamp(0),
            reply_requested: false,
        }
        .encode(&mut payload);
        stream.send(&FrontendMessage::CopyData(payload.freeze())).await;
        drop(asked);
        stream.read().await
    };
    assert_eq!((messages, end), (vec![BackendMessage::CommandComplete("COPY 0".to_owned())], End::Closed(0)));
    let mut late = Client::connect(&server);
    late.start_up("late").await;
    assert_eq!(late.read().await, (vec![], End::Reset), "nobody is there");
}

fn standby(faults: Vec<crate::fault::Fault>) -> Server {
    Server::new(Config { role: Role::Standby, ..config(ServerVersion::V18, faults) }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_promotion_spoils_a_backup_of_a_standby() {
    let server = standby(vec![fault(MIDDLE, r#"{"promote": {}}"#)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdNESZ", End::Ready));
    let promoted = "ERROR 55000: the standby was promoted during online backup";
    assert_eq!(diagnostics(&messages), [ABORTING, promoted]);
    let status = BackendMessage::ParameterStatus { name: "in_hot_standby".to_owned(), value: "off".to_owned() };
    assert!(messages.contains(&status));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_ends_a_stream_of_the_old_timeline() {
    let when = r#"{"command": {"starts-with": "SHOW"}}"#;
    let server = standby(vec![fault(when, r#"{"promote": {}}"#)]);
    let mut stream = Client::start(&server, "stream").await;
    let position = server.cluster().flush_position();
    stream.send(&FrontendMessage::Query(format!("START_REPLICATION {position} TIMELINE 1").into())).await;
    stream.read_until(|message| matches!(message, BackendMessage::CopyBothResponse)).await;
    let mut client = Client::start(&server, "test").await;
    assert_eq!(client.query("SHOW wal_segment_size").await.1, End::Ready);
    stream.read_until(|message| matches!(message, BackendMessage::CopyDone)).await;
    stream.send(&FrontendMessage::CopyDone).await;
    let (messages, end) = stream.read().await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCCSZ", End::Ready));
}

#[tokio::test(start_paused = true)]
async fn recycled_wal_cannot_be_streamed() {
    let action = r#"{"recycle-wal": {"through": "000000010000000000000002"}}"#;
    let (server, _, end) = struck(r#"{"ready": {"nth": 2}}"#, action).await;
    assert_eq!(end, End::Ready);
    let mut client = Client::start(&server, "wal").await;
    let (messages, end) = client.query("START_REPLICATION 0/2000000 TIMELINE 1").await;
    assert_eq!((tags(&messages).as_str(), end), ("WEZ", End::Ready));
    let removed = "ERROR 58P01: requested WAL segment 000000010000000000000002 has already been removed";
    assert_eq!(diagnostics(&messages), [removed]);
}

#[tokio::test(start_paused = true)]
async fn wal_and_slots_and_backups_change_on_command() {
    let faults = vec![
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 2}}"#, r#"{"switch-wal": {}}"#),
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 3}}"#, r#"{"drop-slot": {"slot": "s1"}}"#),
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 4}}"#, r#"{"start-backup": {}}"#),
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 5}}"#, r#"{"abort-backup": {}}"#),
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 6}}"#, r#"{"start-backup": {}}"#),
        fault(r#"{"command": {"starts-with": "IDENTIFY", "nth": 7}}"#, r#"{"stop-backup": {}}"#),
    ];
    let server = server(ServerVersion::V18, faults);
    let mut client = Client::start(&server, "test").await;
    client.query("CREATE_REPLICATION_SLOT s1 PHYSICAL (RESERVE_WAL)").await;
    client.query("IDENTIFY_SYSTEM").await;
    let before = server.cluster().flush_position();
    client.query("IDENTIFY_SYSTEM").await;
    let after = server.cluster().flush_position();
    assert!(after >= before, "{before} {after}");
    assert_eq!(server.state().slots.len(), 1);
    client.query("IDENTIFY_SYSTEM").await;
    assert_eq!(server.state().slots.len(), 0);
    client.query("IDENTIFY_SYSTEM").await;
    assert_eq!(server.state().running_backups, 1);
    client.query("IDENTIFY_SYSTEM").await;
    assert_eq!(server.state().running_backups, 0);
    client.query("IDENTIFY_SYSTEM").await;
    let (running, before) = (server.state().running_backups, server.cluster().flush_position());
    client.query("IDENTIFY_SYSTEM").await;
    assert_eq!((running, server.state().running_backups), (1, 0));
    assert!(server.cluster().flush_position() > before, "an end-of-backup record and a switch");
    assert_eq!(server.fired().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_backup_keeps_a_crashed_server_down() {
    let faults = vec![
        fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {"exclusive": true}}"#),
        fault(r#"{"command": {"nth": 2}}"#, r#"{"recycle-wal": {"through": "000000010000000000000002"}}"#),
        fault(r#"{"command": {"nth": 3}}"#, r#"{"crash": {"restart-after": "5s"}}"#),
    ];
    let server = server(ServerVersion::V14, faults);
    let mut client = Client::start(&server, "test").await;
    client.query("IDENTIFY_SYSTEM").await;
    let state = server.state();
    assert_eq!(state.running_backups, 1);
    assert!(state.backup_label.is_some_and(|label| label.contains("BACKUP METHOD: pg_start_backup\n")));
    client.query("IDENTIFY_SYSTEM").await;
    let (_, end) = client.query("IDENTIFY_SYSTEM").await;
    assert!(matches!(end, End::Closed(_)), "{end:?}");
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;

    let state = server.state();
    assert_eq!(state.running_backups, 0);
    assert!(
        state.start_up_failure.is_some_and(|failure| failure.message == "could not locate required checkpoint record")
    );
    let mut refused = Client::connect(&server);
    refused.start_up("nobody listens").await;
    assert_eq!(refused.read().await, (Vec::new(), End::Reset));
    assert!(server.start().is_err(), "not by trying again");
    assert!(server.cluster().remove_label_files());
    server.start().expect("without the label");
    assert_eq!(server.state().start_up_failure, None);
    let mut client = Client::start(&server, "later").await;
    assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_fast_shutdown_cancels_an_exclusive_backup() {
    let faults = vec![
        fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {"exclusive": true}}"#),
        fault(r#"{"command": {"nth": 2}}"#, r#"{"shutdown": {"mode": "fast"}}"#),
    ];
    let server = server(ServerVersion::V14, faults);
    let mut client = Client::start(&server, "test").await;
    client.query("IDENTIFY_SYSTEM").await;
    client.query("IDENTIFY_SYSTEM").await;
    assert_eq!((server.state().running_backups, server.state().backup_label), (0, None));
    let logged: Vec<_> = server.transcript().into_iter().filter(|event| event.message == "log").collect();
    insta::assert_snapshot!(logged[0].detail, @r#"
    LOG:  online backup mode canceled
    DETAIL:  Files "backup_label" and "tablespace_map" were renamed to "backup_label.old" and "tablespace_map.old", respectively.
    "#);
}
