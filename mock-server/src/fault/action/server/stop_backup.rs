//! `stop-backup`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// `pg_backup_stop()` in the session of the oldest `start-backup` that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct StopBackup {
    /// `pg_stop_backup()` of the exclusive backup instead, whoever began it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

impl Rules for StopBackup {}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::testing::{Client, fault, server};

    #[tokio::test(start_paused = true)]
    async fn the_backup_ends_and_wal_goes_on_in_the_next_segment() {
        let faults = vec![
            fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {}}"#),
            fault(r#"{"command": {"nth": 2}}"#, r#"{"stop-backup": {}}"#),
            fault(r#"{"command": {"nth": 3}}"#, r#"{"stop-backup": {}}"#),
        ];
        let server = server(ServerVersion::V18, faults);
        let mut client = Client::start(&server, "test").await;
        client.query("IDENTIFY_SYSTEM").await;
        let (running, before) = (server.state().running_backups, server.cluster().flush_position());
        client.query("IDENTIFY_SYSTEM").await;
        assert_eq!((running, server.state().running_backups), (1, 0));
        assert!(server.cluster().flush_position() > before, "an end-of-backup record and a switch");
        client.query("IDENTIFY_SYSTEM").await;
        let note = "backup is not in progress";
        assert!(server.transcript().iter().any(|event| event.detail.contains(note)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_exclusive_backup_ends_whoever_began_it() {
        let faults = vec![
            fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {"exclusive": true}}"#),
            fault(r#"{"command": {"nth": 2}}"#, r#"{"stop-backup": {"exclusive": true}}"#),
        ];
        let server = server(ServerVersion::V14, faults);
        let mut client = Client::start(&server, "test").await;
        client.query("IDENTIFY_SYSTEM").await;
        let state = server.state();
        assert_eq!((state.running_backups, state.backup_label.is_some()), (1, true));
        client.query("IDENTIFY_SYSTEM").await;
        let state = server.state();
        assert_eq!((state.running_backups, state.backup_label), (0, None));
    }
}
