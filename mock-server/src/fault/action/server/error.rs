//! `error`.

use backstop_protocol::backend::SqlState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// ERROR: the command ends, its backup is aborted, the session stays usable. During start-up it is FATAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Error {
    /// Its code.
    #[schemars(with = "String")]
    pub sqlstate: SqlState,
    /// Its text.
    pub message: String,
}

impl Rules for Error {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{ABORTING, MIDDLE, refusal, struck};
    use crate::server::BackupOutcome;
    use crate::testing::{Client, End, diagnostics, fault, server, tags};

    #[tokio::test(start_paused = true)]
    async fn an_error_aborts_the_backup_and_not_the_session() {
        let action = r#"{"error": {"sqlstate": "58030", "message": "could not read file"}}"#;
        let (server, messages, end) = struck(MIDDLE, action).await;
        assert_eq!(end, End::Ready);
        assert_eq!(tags(&messages), "TDCTDDCHdNEZ");
        assert_eq!(diagnostics(&messages), [ABORTING, "ERROR 58030: could not read file"]);
        assert_eq!(server.backups()[0].ended, BackupOutcome::Failed("could not read file".to_owned()));
        assert_eq!((server.state().running_backups, server.cluster().running_backups()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_during_start_up_is_fatal() {
        let faults = vec![fault(r#"{"startup": {}}"#, r#"{"error": {"sqlstate": "57P03", "message": "no"}}"#)];
        let server = server(ServerVersion::V18, faults);
        let mut client = Client::connect(&server);
        client.start_up("test").await;
        let (messages, end) = client.read().await;
        assert_eq!((diagnostics(&messages), end), (vec!["FATAL 57P03: no".to_owned()], End::Closed(0)));
    }

    #[test]
    fn needs_a_session() {
        assert_eq!(
            refusal(r#"{"client-end": {"client": "x"}}"#, r#"{"error": {"sqlstate": "58030", "message": "x"}}"#),
            "error cannot strike at client-end: it needs a session of its own"
        );
    }
}
