//! `kill-client`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// `kill(1)`: SIGINT, SIGHUP and SIGSTOP go to everything that the client has started, as from a terminal, and the others to
/// the client alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct KillClient {
    /// Whose; without it, that of the connection that came to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Which.
    pub signal: Signal,
}

impl Rules for KillClient {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        super::lacks_machine(self.client.as_deref(), when)
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        super::valid_owner(self.client.as_deref(), "kill-client")
    }
}

/// A signal, by its name in `signal(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the operating system's")]
pub enum Signal {
    #[serde(rename = "SIGHUP")]
    Hup,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGKILL")]
    Kill,
    #[serde(rename = "SIGSTOP")]
    Stop,
    #[serde(rename = "SIGCONT")]
    Cont,
}

impl Signal {
    /// Whether it ends a program that does nothing about it.
    pub fn is_deadly(self) -> bool {
        !matches!(self, Self::Stop | Self::Cont)
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use super::{KillClient, Signal};
    use crate::fault::Action;
    use crate::fault::testing::{COMMAND, MIDDLE, held, refusal};
    use crate::testing::{Client, fault, server};

    #[tokio::test(start_paused = true)]
    async fn the_session_waits_until_it_is_done() {
        assert_eq!(held(r#"{"kill-client": {"signal": "SIGTERM"}}"#).await, "kill-client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_may_be_about_another_client_than_the_one_at_its_point() {
        let kill = fault(MIDDLE, r#"{"kill-client": {"client": "other", "signal": "SIGKILL"}}"#);
        let server = server(ServerVersion::V18, vec![kill]);
        let mut orders = server.client_orders();
        let mut client = Client::start(&server, "mine").await;
        let (_, order) = tokio::join!(client.query(COMMAND), async {
            orders.recv().await.map(|order| (order.client, order.action))
        });
        let action = Action::KillClient(KillClient { client: Some("other".to_owned()), signal: Signal::Kill });
        assert_eq!(order, Some(("other".to_owned(), action)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_reaches_the_machines_of_clients() {
        let action = r#"{"kill-client": {"client": "mine", "signal": "SIGSTOP"}}"#;
        let server = server(ServerVersion::V18, vec![fault(r#"{"clock": {"at": "5s"}}"#, action)]);
        let mut orders = server.client_orders();
        let _client = Client::start(&server, "mine").await;
        assert_eq!(orders.recv().await.unwrap().action.name(), "kill-client");
    }

    #[test]
    fn needs_a_client_and_a_signal() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r##"{"kill-client": {"client": "#1", "signal": "SIGINT"}}"##),
            "client \"#1\" is a connection: kill-client needs a client's name"
        );
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"kill-client": {"signal": "SIGINT"}}"#),
            "kill-client cannot strike at clock: it needs \"client\": no connection comes to this point"
        );
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"kill-client": {"signal": "SIGTRM"}}"#),
            "unknown variant `SIGTRM`, expected one of `SIGHUP`, `SIGINT`, `SIGTERM`, `SIGKILL`, `SIGSTOP`, `SIGCONT` at line 1 column 65"
        );
    }
}
