//! `repeat`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The message comes twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Repeat {}

impl Rules for Repeat {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_message()
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{archive, refusal, sound, struck};
    use crate::testing::{payloads, tags};

    #[tokio::test(start_paused = true)]
    async fn a_repeated_message_comes_twice() {
        let (_, messages, _) = struck(r#"{"tablespace-list": {}}"#, r#"{"repeat": {}}"#).await;
        assert_eq!(tags(&messages), "TDCTDDCTDDCHdcTDCCZ");
        let (_, messages, _) = struck(r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"repeat": {}}"#).await;
        assert_eq!(archive(&messages, "base.tar").len(), archive(&sound().await, "base.tar").len() + 512);
        let (_, messages, _) = struck(r#"{"progress": {}}"#, r#"{"repeat": {}}"#).await;
        let progress = payloads(&messages).into_iter().filter(|payload| payload.starts_with(b"p"));
        assert_eq!(progress.count(), 3);
    }

    #[test]
    fn needs_a_message() {
        assert_eq!(
            refusal(r#"{"startup": {}}"#, r#"{"repeat": {}}"#),
            "repeat cannot strike at startup: it needs a message of its own"
        );
    }
}
