//! START_REPLICATION.

use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::{PgTimestamp, StandbyMessage, WalMessage};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::config::{Config, Role};
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics, server, tags};

fn status(flush: Lsn, reply_requested: bool) -> FrontendMessage {
    let sent_at = PgTimestamp(0);
    let update = StandbyMessage::StatusUpdate { write: flush, flush, apply: Lsn::INVALID, sent_at, reply_requested };
    let mut payload = BytesMut::new();
    update.encode(&mut payload);
    FrontendMessage::CopyData(payload.freeze())
}

async fn stream(client: &mut Client, command: &str) {
    client.send(&FrontendMessage::Query(command.to_owned().into())).await;
    assert_eq!(client.next().await, Ok(BackendMessage::CopyBothResponse));
}

/// The next message of the stream.
async fn next(client: &mut Client) -> WalMessage {
    match client.next().await.unwrap() {
        BackendMessage::CopyData(payload) => WalMessage::decode(payload).unwrap(),
        other => panic!("expected WAL, got {other:?}"),
    }
}

/// WAL from `from` up to `end`.
async fn receive(client: &mut Client, from: Lsn, end: Lsn) -> Vec<Bytes> {
    let (mut position, mut pieces) = (from, Vec::new());
    while position < end {
        match next(client).await {
            WalMessage::XLogData { start, data, .. } => {
                assert_eq!(start, position);
                position = start + data.len() as u64;
                pieces.push(data);
            }
            WalMessage::Keepalive { .. } => {}
        }
    }
    assert_eq!(position, end);
    pieces
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_streamed_and_the_copy_ends_from_the_client() {
    for version in [ServerVersion::V12, ServerVersion::V18] {
        let server = server(version, vec![]);
        let cluster = server.cluster();
        cluster.switch_wal();
        let (timeline, end) = (cluster.timeline(), cluster.flush_position());
        let start = cluster.segment_size().round_down(Lsn(end.0 - 1));
        let mut client = Client::start(&server, "test").await;
        stream(&mut client, &format!("START_REPLICATION {start} TIMELINE {timeline}")).await;
        let pieces = receive(&mut client, start, end).await;
        assert!(pieces.iter().all(|piece| piece.len() <= 128 << 10));
        let mut truth = vec![0; usize::try_from(end - start).unwrap()];
        cluster.read_wal(timeline, start, &mut truth).unwrap();
        assert!(pieces.concat() == truth);
        client.send(&status(end, true)).await;
        assert!(matches!(next(&mut client).await, WalMessage::Keepalive { reply_requested: false, .. }));
        client.send(&FrontendMessage::CopyDone).await;
        let (messages, ready) = client.read().await;
        assert_eq!((tags(&messages).as_str(), ready), ("cCCZ", End::Ready));
        assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_ends_at_once_if_the_client_has_ended_it_already() {
    let server = server(ServerVersion::V15, vec![]);
    let mut client = Client::start(&server, "test").await;
    let command = format!("START_REPLICATION {}", server.cluster().flush_position());
    client.send(&FrontendMessage::Query(command.into())).await;
    client.send(&FrontendMessage::CopyDone).await;
    let (messages, ready) = client.read().await;
    // No keepalive: the server waits for nothing.
    assert_eq!((tags(&messages).as_str(), ready), ("WcCCZ", End::Ready));
}

#[tokio::test(start_paused = true)]
async fn new_wal_is_sent_as_it_comes() {
    let server = Server::new(Config { wal_rate: 1 << 20, ..config(ServerVersion::V18, vec![]) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let start = server.cluster().flush_position();
    stream(&mut client, &format!("START_REPLICATION {start}")).await;
    let begun = Instant::now();
    let mut position = start;
    while position - start < 1 << 20 {
        if let WalMessage::XLogData { start, data, .. } = next(&mut client).await {
            assert_eq!(start, position);
            position = start + data.len() as u64;
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(900) && begun.elapsed() < Duration::from_millis(1200));
}

#[tokio::test(start_paused = true)]
async fn a_slot_follows_what_its_client_has_flushed() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    client.query("CREATE_REPLICATION_SLOT s1 PHYSICAL (RESERVE_WAL)").await;
    let end = server.cluster().flush_position();
    stream(&mut client, &format!("START_REPLICATION SLOT s1 {end}")).await;
    let mut other = Client::start(&server, "other").await;
    let (messages, _) = other.query("DROP_REPLICATION_SLOT s1").await;
    assert_eq!(diagnostics(&messages), ["ERROR 55006: replication slot \"s1\" is active for PID 4001"]);
    client.send(&status(end, true)).await;
    next(&mut client).await;
    assert_eq!(server.state().slots[0].restart_lsn, Some(end));
    client.send(&FrontendMessage::CopyDone).await;
    client.read().await;
    assert_eq!(server.state().slots[0].active_pid, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_and_then_dropped() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let begun = Instant::now();
    let start = server.cluster().flush_position();
    stream(&mut client, &format!("START_REPLICATION {start}")).await;
    assert!(matches!(next(&mut client).await, WalMessage::Keepalive { reply_requested: true, .. }));
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    assert_eq!(client.next().await, Err(End::Closed(0)));
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_belong_into_a_stream_ends_it() {
    let fatal = |tag| vec![format!("FATAL 08P01: invalid standby message type \"{tag}\"")];
    for (message, expected) in [
        (FrontendMessage::Query("IDENTIFY_SYSTEM".into()), fatal('Q')),
        (FrontendMessage::CopyFail("no".to_owned()), fatal('f')),
        (FrontendMessage::CopyData(b"zzz".as_slice().into()), vec![]),
    ] {
        let server = server(ServerVersion::V18, vec![]);
        let mut client = Client::start(&server, "test").await;
        let start = server.cluster().flush_position();
        stream(&mut client, &format!("START_REPLICATION {start}")).await;
        client.send(&message).await;
        let (messages, end) = client.read().await;
        assert_eq!((diagnostics(&messages), end), (expected, End::Closed(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_historic_timeline_is_streamed_to_its_end() {
    let server = Server::new(Config { role: Role::Standby, ..config(ServerVersion::V18, vec![]) }).unwrap();
    let start = server.cluster().segment_size().round_down(server.cluster().flush_position());
    server.cluster().promote().unwrap();
    let history = server.cluster().history(server.cluster().timeline()).unwrap();
    let fork = history.switches[0].at;
    let mut client = Client::start(&server, "test").await;
    stream(&mut client, &format!("START_REPLICATION {start} TIMELINE 1")).await;
    receive(&mut client, start, fork).await;
    assert_eq!(client.next().await, Ok(BackendMessage::CopyDone));
    client.send(&FrontendMessage::CopyDone).await;
    let (messages, _) = client.read().await;
    assert_eq!(tags(&messages), "TDCCZ");
    let row = vec![Some(Bytes::from("2")), Some(fork.to_string().into())];
    assert_eq!(messages[1], BackendMessage::DataRow(row));
    // At the fork itself there is no COPY, and beyond it nothing.
    let (messages, _) = client.query(&format!("START_REPLICATION {fork} TIMELINE 1")).await;
    assert_eq!(tags(&messages), "TDCCZ");
    let beyond = fork + 8;
    let (messages, _) = client.query(&format!("START_REPLICATION {beyond} TIMELINE 1")).await;
    let text = format!("ERROR XX000: requested starting point {beyond} on timeline 1 is not in this server's history");
    assert_eq!((tags(&messages).as_str(), diagnostics(&messages)), ("EZ", vec![text]));
}
