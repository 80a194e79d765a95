//! `terminate`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::validate::valid_client;

/// `pg_terminate_backend()`: FATAL 57P01 and the end of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Terminate {
    /// Whose connections, as in the `client` of a point; the session's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Rules for Terminate {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        if self.client.is_none() { when.lacks_session() } else { None }
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        self.client.as_deref().map_or(Ok(()), valid_client)
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{ABORTING, MIDDLE, refusal, struck};
    use crate::testing::{Client, End, diagnostics, fault, server};

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

    #[test]
    fn needs_to_know_whose_connection() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"terminate": {}}"#),
            "terminate cannot strike at clock: it needs a session of its own"
        );
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r##"{"terminate": {"client": "#0"}}"##),
            "client \"#0\" is no connection's number: expected \"#1\" or higher"
        );
    }
}
