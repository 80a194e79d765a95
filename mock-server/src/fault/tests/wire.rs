//! Delay, stall, throttle, chop, close, reset, garble, drop, repeat, insert, truncate.

use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::version::ServerVersion;
use tokio::time::Instant;

use super::{archive, sound, struck};
use crate::testing::{Client, End, archives, fault, payloads, server, tags};

const MIDDLE: &str = r#"{"archive-data": {"archive": "base.tar", "at": "50%"}}"#;

#[tokio::test(start_paused = true)]
async fn a_delay_makes_the_message_late() {
    let begun = Instant::now();
    let (_, messages, end) = struck(r#"{"end-position": {}}"#, r#"{"delay": {"for": "10s"}}"#).await;
    assert_eq!(end, End::Ready);
    assert!(messages == sound().await);
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_silence_on_an_open_connection() {
    let (server, messages, end) = struck(MIDDLE, r#"{"stall": {}}"#).await;
    assert_eq!(end, End::Silent);
    let half = archive(&messages, "base.tar").len();
    assert_eq!(half, archive(&sound().await, "base.tar").len() / 2);
    // The client is gone, and with it the session.
    server.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_throttle_keeps_to_its_rate() {
    let begun = Instant::now();
    let (_, messages, end) = struck(r#"{"copy-begin": {}}"#, r#"{"throttle": {"rate": "64KiB/s"}}"#).await;
    assert_eq!(end, End::Ready);
    assert!(archive(&messages, "16400.tar") == archive(&sound().await, "16400.tar"));
    let bytes: usize = payloads(&messages).iter().map(|payload| payload.len() + 5).sum();
    let least = Duration::from_secs(bytes as u64 / 65536);
    assert!(begun.elapsed() + Duration::from_secs(1) > least && begun.elapsed() < least + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_chop_cuts_data_into_pieces() {
    let (_, messages, end) = struck(r#"{"connect": {}}"#, r#"{"chop": {"into": "100B"}}"#).await;
    assert_eq!(end, End::Ready);
    assert!(archives(&messages) == archives(&sound().await));
    let data = payloads(&messages).into_iter().filter(|payload| payload.starts_with(b"d"));
    assert_eq!(data.map(|payload| payload.len()).max(), Some(101));
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_the_connection_after_what_was_sent() {
    let when = r#"{"member": {"path": "global/pg_control"}}"#;
    let (_, messages, end) = struck(when, r#"{"close": {}}"#).await;
    assert_eq!(end, End::Closed(0));
    let sound = archive(&sound().await, "base.tar");
    let sent = archive(&messages, "base.tar");
    // The header and the content of pg_control, and two zero blocks.
    assert!(sent == sound[..sound.len() - 512 - 8192 - 1024]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_seen_as_one() {
    let (_, _, end) = struck(MIDDLE, r#"{"reset": {}}"#).await;
    assert_eq!(end, End::Reset);
}

#[tokio::test(start_paused = true)]
async fn garble_flips_bits_of_one_byte() {
    let when = r#"{"member": {"path": "PG_VERSION", "at": "1B"}}"#;
    let (_, messages, end) = struck(when, r#"{"garble": {"bits": 1}}"#).await;
    assert_eq!(end, End::Ready);
    let (struck, sound) = (archive(&messages, "base.tar"), archive(&sound().await, "base.tar"));
    let differs: Vec<_> = struck.iter().zip(&sound).filter(|(struck, sound)| struck != sound).collect();
    assert_eq!(differs, [(&b'9', &b'8')]);
    assert_eq!(struck.len(), sound.len());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_message_never_comes() {
    for (when, expected) in [
        (r#"{"start-position": {}}"#, "TDDCHdcTDCCZ"),
        (r#"{"tablespace-list": {}}"#, "TDCHdcTDCCZ"),
        (r#"{"copy-begin": {}}"#, "TDCTDDCdcTDCCZ"),
        (r#"{"copy-done": {}}"#, "TDCTDDCHdTDCCZ"),
        (r#"{"end-position": {}}"#, "TDCTDDCHdcCZ"),
        (r#"{"message": {"n": 1}}"#, "DCTDDCHdcTDCCZ"),
    ] {
        let (_, messages, _) = struck(when, r#"{"drop": {}}"#).await;
        assert_eq!(tags(&messages), expected, "{when}");
    }
    let (_, messages, _) = struck(r#"{"manifest-data": {"at": "0B"}}"#, r#"{"drop": {}}"#).await;
    let (less, whole) = (archive(&messages, "manifest"), archive(&sound().await, "manifest"));
    assert!(less == whole[whole.len().min(32768)..]);
}

#[tokio::test(start_paused = true)]
async fn a_session_without_ready_for_query_is_not_complete() {
    let (server, _, end) = struck(r#"{"ready": {"nth": 2}}"#, r#"{"drop": {}}"#).await;
    assert_eq!(end, End::Silent);
    assert_ne!(server.backups()[0].ended, crate::BackupOutcome::Complete);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_message_comes_twice() {
    let (_, messages, _) = struck(r#"{"tablespace-list": {}}"#, r#"{"repeat": {}}"#).await;
    assert_eq!(tags(&messages), "TDCTDDCTDDCHdcTDCCZ");
    let (_, messages, _) = struck(r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"repeat": {}}"#).await;
    assert_eq!(archive(&messages, "base.tar").len(), archive(&sound().await, "base.tar").len() + 512);
    let (_, messages, _) = struck(r#"{"progress": {}}"#, r#"{"repeat": {}}"#).await;
    let progress = payloads(&messages).into_iter().filter(|payload| payload.starts_with(b"p"));
    assert_eq!(progress.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn inserted_bytes_come_on_the_wire_or_in_the_archive() {
    // A CommandComplete that says "hi".
    let (_, messages, end) = struck(r#"{"copy-done": {}}"#, r#"{"insert": {"hex": "4300000007686900"}}"#).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdCcTDCCZ", End::Ready));
    assert!(messages.contains(&BackendMessage::CommandComplete("hi".to_owned())));
    let when = r#"{"archive-data": {"archive": "16400.tar", "at": "0B"}}"#;
    let (_, messages, end) = struck(when, r#"{"insert": {"hex": "c0ffee"}}"#).await;
    assert_eq!(end, End::Ready);
    let expected = [b"\xc0\xff\xee".as_slice(), &archive(&sound().await, "16400.tar")].concat();
    assert!(archive(&messages, "16400.tar") == expected);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_archive_ends_in_good_order() {
    let whole = archive(&sound().await, "base.tar");
    for (when, action, length) in [
        (MIDDLE, r#"{"truncate": {}}"#, whole.len() / 2),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"truncate": {"to": "0B"}}"#, 0),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"truncate": {"to": "1000B"}}"#, 1000),
        (r#"{"member": {"path": "global/pg_control"}}"#, r#"{"truncate": {}}"#, whole.len() - 512 - 8192 - 1024),
    ] {
        let (_, messages, end) = struck(when, action).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
        assert!(archive(&messages, "base.tar") == whole[..length], "{when}");
    }
}

#[tokio::test(start_paused = true)]
async fn faults_strike_streamed_wal_at_a_position() {
    let lsn = "0/2000010";
    let when = format!(r#"{{"wal-data": {{"lsn": "{lsn}"}}}}"#);
    let server = server(ServerVersion::V18, vec![fault(&when, r#"{"garble": {"bits": 8}}"#)]);
    let mut client = Client::start(&server, "test").await;
    client.query(super::COMMAND).await;
    client.send(&FrontendMessage::Query("START_REPLICATION 0/2000000 TIMELINE 1".into())).await;
    client.read_until(|message| matches!(message, BackendMessage::CopyBothResponse)).await;
    let first = client.next().await.unwrap();
    let second = client.next().await.unwrap();
    let wal = payloads(&[first, second]);
    assert_eq!(wal[0].len(), 25 + 16);
    let mut truth = [0];
    server.cluster().read_wal(server.cluster().timeline(), lsn.parse().unwrap(), &mut truth).unwrap();
    assert_eq!(wal[1][25], !truth[0]);
}
