//! `crash`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;
use crate::units::Span;

/// A server process crashes: every session ends as that release ends them, and connections are refused with 57P03.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Crash {
    /// When connections are accepted again; never without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<Span>,
}

impl Rules for Crash {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{COMMAND, MIDDLE};
    use crate::testing::{Client, End, diagnostics, fault, server};

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
}
