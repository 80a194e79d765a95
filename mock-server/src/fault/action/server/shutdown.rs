//! `shutdown`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The server shuts down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Shutdown {
    /// How.
    pub mode: ShutdownMode,
}

impl Rules for Shutdown {}

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

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::frontend::FrontendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{ABORTING, MIDDLE, struck};
    use crate::testing::{Client, End, diagnostics, fault, server, tags};

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

    #[tokio::test(start_paused = true)]
    async fn a_smart_shutdown_ends_walsenders_that_do_not_stream() {
        let (server, messages, end) = struck(MIDDLE, r#"{"shutdown": {"mode": "smart"}}"#).await;
        let fatal = "FATAL 57P01: terminating connection due to administrator command";
        assert_eq!((diagnostics(&messages), end), (vec![fatal.to_owned(), ABORTING.to_owned()], End::Closed(0)));
        assert_eq!(server.cluster().running_backups(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_immediate_shutdown_is_like_a_crash() {
        let (server, messages, end) = struck(MIDDLE, r#"{"shutdown": {"mode": "immediate"}}"#).await;
        assert!(matches!(end, End::Closed(_)), "{end:?}");
        assert!(!tags(&messages).contains('c'), "the archive has no end");
        assert_eq!(server.cluster().running_backups(), 0);
    }
}
