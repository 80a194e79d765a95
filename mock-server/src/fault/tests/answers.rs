//! Change-row, change-parameter, swap.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::version::ServerVersion;

use super::{COMMAND, sound, struck};
use crate::testing::{Client, End, fault, server, tags};

/// The rows of all result sets.
fn rows(messages: &[BackendMessage]) -> Vec<Vec<Option<String>>> {
    let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
    let rows = messages.iter().filter_map(|message| match message {
        BackendMessage::DataRow(row) => Some(row.iter().map(|value| value.as_ref().map(text)).collect()),
        _ => None,
    });
    rows.collect()
}

#[tokio::test(start_paused = true)]
async fn a_result_set_of_a_backup_has_another_value() {
    let sound = rows(&sound().await);
    for (when, action, row, column, value) in [
        (r#"{"start-position": {}}"#, r#"{"change-row": {"column": "tli", "to": "7"}}"#, 0, 1, Some("7")),
        (
            r#"{"tablespace-list": {}}"#,
            r#"{"change-row": {"column": "spclocation", "row": 1, "to": "/"}}"#,
            1,
            1,
            Some("/"),
        ),
        (r#"{"end-position": {}}"#, r#"{"change-row": {"column": "recptr"}}"#, 3, 0, None),
    ] {
        let (_, messages, end) = struck(when, action).await;
        let mut expected = sound.clone();
        expected[row][column] = value.map(str::to_owned);
        assert_eq!((rows(&messages), end), (expected, End::Ready), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_to_a_command_has_another_value() {
    let when = r#"{"command": {"starts-with": "IDENTIFY_SYSTEM", "nth": 2}}"#;
    let server =
        server(ServerVersion::V18, vec![fault(when, r#"{"change-row": {"column": "systemid", "to": "4711"}}"#)]);
    let mut client = Client::start(&server, "test").await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let (messages, end) = client.query("IDENTIFY_SYSTEM").await;
        assert_eq!(end, End::Ready);
        answers.push(rows(&messages)[0][0].clone().unwrap());
    }
    assert_eq!(answers[1], "4711");
    assert!(answers[0] == answers[2] && answers[0] != "4711");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_there_is_an_error() {
    let when = r#"{"command": {"starts-with": "SHOW"}}"#;
    let server = server(ServerVersion::V18, vec![fault(when, r#"{"change-row": {"column": "x", "to": "1"}}"#)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("SHOW wal_segment_size").await;
    assert_eq!(tags(&messages), "TDEZ");
    let (messages, _) = client.query("SHOW wal_segment_size").await;
    assert_eq!(tags(&messages), "TDCZ");
}

#[tokio::test(start_paused = true)]
async fn a_setting_is_reported_with_another_value() {
    let action = r#"{"change-parameter": {"name": "server_version", "to": "19beta1"}}"#;
    let server = server(ServerVersion::V18, vec![fault(r#"{"startup": {}}"#, action)]);
    let mut client = Client::connect(&server);
    client.start_up("test").await;
    let (messages, end) = client.read().await;
    let reported = messages.iter().find_map(|message| match message {
        BackendMessage::ParameterStatus { name, value } if name == "server_version" => Some(value.as_str()),
        _ => None,
    });
    assert_eq!((reported, end), (Some("19beta1"), End::Ready));
}

#[tokio::test(start_paused = true)]
async fn swapped_messages_change_places() {
    let swap = r#"{"swap": {}}"#;
    for (when, expected) in [
        (r#"{"copy-done": {}}"#, "TDCTDDCHdTcDCCZ"),
        (r#"{"end-position": {}}"#, "TDCTDDCHdcCTDCZ"),
        (r#"{"start-position": {}}"#, "TTDCDDCHdcTDCCZ"),
        (r#"{"message": {"n": 1}}"#, "DTCTDDCHdcTDCCZ"),
    ] {
        let (_, messages, end) = struck(when, swap).await;
        assert_eq!((tags(&messages).as_str(), end), (expected, End::Ready), "{when}");
    }
    let (_, messages, _) = struck(r#"{"archive-begin": {"archive": "base.tar"}}"#, swap).await;
    let sound = sound().await;
    let at = sound.iter().zip(&messages).position(|(sound, struck)| sound != struck).unwrap();
    assert!(messages[at] == sound[at + 1] && messages[at + 1] == sound[at] && messages[at + 2..] == sound[at + 2..]);
    assert!(matches!(&messages[at + 1], BackendMessage::CopyData(data) if data.starts_with(b"nbase.tar")));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_follows_is_not_held_back_for_ever() {
    let count = sound().await.len();
    let when = format!(r#"{{"message": {{"n": {count}}}}}"#);
    let server = server(ServerVersion::V18, vec![fault(&when, r#"{"swap": {}}"#)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!((messages.len(), end, server.fired().len()), (count, End::Ready, 1));
}
