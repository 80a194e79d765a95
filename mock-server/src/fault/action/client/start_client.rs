//! `start-client`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// A client starts. No scenario says so in these words: `starts` of the client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct StartClient {
    /// Which.
    pub client: String,
}

impl Rules for StartClient {}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use super::StartClient;
    use crate::fault::testing::refusal;
    use crate::fault::{Action, Fault, Point};
    use crate::testing::{Client, server};

    #[tokio::test(start_paused = true)]
    async fn whoever_has_the_clients_is_told_at_the_point() {
        let start = Action::StartClient(StartClient { client: "second".to_owned() });
        let when = Point::Ready { client: Some("first".to_owned()), nth: 1 };
        let server = server(ServerVersion::V18, vec![Fault { when, r#do: start.clone() }]);
        let mut orders = server.client_orders();
        let (_client, order) = tokio::join!(Client::start(&server, "first"), async {
            orders.recv().await.map(|order| (order.client, order.action))
        });
        assert_eq!(order, Some(("second".to_owned(), start)));
    }

    #[test]
    fn no_scenario_says_so() {
        let refusal = refusal(r#"{"ready": {}}"#, r#"{"start-client": {"client": "x"}}"#);
        assert!(refusal.starts_with("unknown variant `start-client`"), "{refusal}");
    }
}
