//! `switch-wal`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// `pg_switch_wal()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct SwitchWal {}

impl Rules for SwitchWal {}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::server::Server;
    use crate::testing::{Client, End, fault, server};

    #[tokio::test(start_paused = true)]
    async fn wal_goes_on_in_the_next_segment() {
        let when = r#"{"command": {"starts-with": "SHOW"}}"#;
        let server = server(ServerVersion::V18, vec![fault(when, r#"{"switch-wal": {}}"#)]);
        let mut client = Client::start(&server, "test").await;
        // A switch at the beginning of a segment does nothing.
        server.cluster().checkpoint();
        let segment = |server: &Server| server.cluster().flush_position().0 / (16 << 20);
        let before = segment(&server);
        assert_eq!(client.query("SHOW wal_segment_size").await.1, End::Ready);
        assert_eq!(segment(&server), before + 1);
    }
}
