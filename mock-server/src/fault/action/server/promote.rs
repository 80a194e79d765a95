//! `promote`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// `pg_promote()`: a standby becomes a primary on a new timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Promote {}

impl Rules for Promote {}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::frontend::FrontendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::config::{Config, Role};
    use crate::fault::testing::{ABORTING, COMMAND, MIDDLE};
    use crate::server::Server;
    use crate::testing::{Client, End, config, diagnostics, fault, tags};

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
}
