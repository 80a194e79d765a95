//! `start-backup`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// `pg_backup_start()` in a session of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct StartBackup {
    /// `pg_start_backup(…, exclusive => true)` instead, up to 14: the backup belongs to no session and leaves its label
    /// in the data directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

impl Rules for StartBackup {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstop_protocol::version::ServerVersion;

    use crate::testing::{Client, End, fault, server};

    #[tokio::test(start_paused = true)]
    async fn a_backup_of_another_session_runs() {
        let server = server(ServerVersion::V18, vec![fault(r#"{"ready": {}}"#, r#"{"start-backup": {}}"#)]);
        assert_eq!(server.state().running_backups, 0);
        drop(Client::start(&server, "test").await);
        server.idle().await;
        assert_eq!(server.state().running_backups, 1, "the end of the session at the point is nothing to it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_exclusive_backup_keeps_a_crashed_server_down() {
        let faults = vec![
            fault(r#"{"command": {"nth": 1}}"#, r#"{"start-backup": {"exclusive": true}}"#),
            fault(r#"{"command": {"nth": 2}}"#, r#"{"recycle-wal": {"through": "000000010000000000000002"}}"#),
            fault(r#"{"command": {"nth": 3}}"#, r#"{"crash": {"restart-after": "5s"}}"#),
        ];
        let server = server(ServerVersion::V14, faults);
        let mut client = Client::start(&server, "test").await;
        client.query("IDENTIFY_SYSTEM").await;
        let state = server.state();
        assert_eq!(state.running_backups, 1);
        assert!(state.backup_label.is_some_and(|label| label.contains("BACKUP METHOD: pg_start_backup\n")));
        client.query("IDENTIFY_SYSTEM").await;
        let (_, end) = client.query("IDENTIFY_SYSTEM").await;
        assert!(matches!(end, End::Closed(_)), "{end:?}");
        tokio::time::sleep(Duration::from_secs(6)).await;

        let state = server.state();
        assert_eq!(state.running_backups, 0);
        assert!(
            state
                .start_up_failure
                .is_some_and(|failure| failure.message == "could not locate required checkpoint record")
        );
        let mut refused = Client::connect(&server);
        refused.start_up("nobody listens").await;
        assert_eq!(refused.read().await, (Vec::new(), End::Reset));
        assert!(server.start().is_err(), "not by trying again");
        assert!(server.cluster().remove_label_files());
        server.start().expect("without the label");
        assert_eq!(server.state().start_up_failure, None);
        let mut client = Client::start(&server, "later").await;
        assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
    }
}
