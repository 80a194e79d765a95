//! `drop-slot`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The slot is dropped, whoever uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct DropSlot {
    /// The slot.
    pub slot: String,
}

impl Rules for DropSlot {}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::testing::{Client, End, diagnostics, fault, server};

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_gone_and_an_unknown_one_is_noted() {
        let drops = |nth: u32| {
            let when = format!(r#"{{"command": {{"starts-with": "IDENTIFY_SYSTEM", "nth": {nth}}}}}"#);
            fault(&when, r#"{"drop-slot": {"slot": "s1"}}"#)
        };
        let server = server(ServerVersion::V18, vec![drops(1), drops(2)]);
        let mut client = Client::start(&server, "test").await;
        client.query("CREATE_REPLICATION_SLOT s1 PHYSICAL (RESERVE_WAL)").await;
        assert_eq!(server.state().slots.len(), 1);
        client.query("IDENTIFY_SYSTEM").await;
        assert_eq!(server.state().slots.len(), 0);
        let (messages, _) = client.query("START_REPLICATION SLOT s1 0/2000000").await;
        assert_eq!(diagnostics(&messages), ["ERROR 42704: replication slot \"s1\" does not exist"]);
        assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
        let note = "drop-slot: replication slot \"s1\" does not exist";
        assert!(server.transcript().iter().any(|event| event.detail == note));
    }
}
