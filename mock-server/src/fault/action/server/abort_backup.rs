//! `abort-backup`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The sessions of `start-backup` go away without `pg_backup_stop()`. An exclusive backup goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct AbortBackup {}

impl Rules for AbortBackup {}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::testing::{Client, End, fault, server};

    #[tokio::test(start_paused = true)]
    async fn backups_end_with_their_sessions_and_an_exclusive_one_goes_on() {
        let faults = vec![
            fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {}}"#),
            fault(r#"{"command": {"nth": 2}}"#, r#"{"start-backup": {"exclusive": true}}"#),
            fault(r#"{"command": {"nth": 3}}"#, r#"{"abort-backup": {}}"#),
        ];
        let server = server(ServerVersion::V14, faults);
        let mut client = Client::start(&server, "test").await;
        let mut running = Vec::new();
        for _ in 0..3 {
            assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
            running.push(server.state().running_backups);
        }
        assert_eq!(running, [1, 2, 1]);
        assert!(server.state().backup_label.is_some());
    }
}
