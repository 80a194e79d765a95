//! `drop`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The message never comes; the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Drop {}

impl Rules for Drop {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        match when {
            Point::StatusUpdate { .. } => None,
            when if when.is_header() => Some("a message: use omit-member"),
            when => when.lacks_message(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{archive, refusal, sound, struck};
    use crate::server::BackupOutcome;
    use crate::testing::{End, tags};

    #[tokio::test(start_paused = true)]
    async fn a_dropped_message_never_comes() {
        for (when, expected) in [
            (r#"{"start-position": {}}"#, "TDDCHdcTDCCZ"),
            (r#"{"tablespace-list": {}}"#, "TDCHdcTDCCZ"),
            (r#"{"copy-begin": {}}"#, "TDCTDDCdcTDCCZ"),
            (r#"{"copy-done": {}}"#, "TDCTDDCHdTDCCZ"),
            (r#"{"end-position": {}}"#, "TDCTDDCHdcCZ"),
            (r#"{"message": {"n": 1}}"#, "DCTDDCHdcTDCCZ"),
        ] {
            let (_, messages, _) = struck(when, r#"{"drop": {}}"#).await;
            assert_eq!(tags(&messages), expected, "{when}");
        }
        let (_, messages, _) = struck(r#"{"manifest-data": {"at": "0B"}}"#, r#"{"drop": {}}"#).await;
        let (less, whole) = (archive(&messages, "manifest"), archive(&sound().await, "manifest"));
        assert!(less == whole[whole.len().min(32768)..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_without_ready_for_query_is_not_complete() {
        let (server, _, end) = struck(r#"{"ready": {"nth": 2}}"#, r#"{"drop": {}}"#).await;
        assert_eq!(end, End::Silent);
        assert_ne!(server.backups()[0].ended, BackupOutcome::Complete);
    }

    #[test]
    fn needs_a_message() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"drop": {}}"#),
            "drop cannot strike at clock: it needs a message of its own"
        );
        assert_eq!(
            refusal(r#"{"member": {"path": "x"}}"#, r#"{"drop": {}}"#),
            "drop cannot strike at member: it needs a message: use omit-member"
        );
    }
}
