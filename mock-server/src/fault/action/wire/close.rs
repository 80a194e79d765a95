//! `close`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The server closes the connection without a word; what was sent before arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Close {}

impl Rules for Close {}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{archive, sound, struck};
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn a_close_ends_the_connection_after_what_was_sent() {
        let when = r#"{"member": {"path": "global/pg_control"}}"#;
        let (_, messages, end) = struck(when, r#"{"close": {}}"#).await;
        assert_eq!(end, End::Closed(0));
        let sound = archive(&sound().await, "base.tar");
        let sent = archive(&messages, "base.tar");
        // The header and the content of pg_control, and two zero blocks.
        assert!(sent == sound[..sound.len() - 512 - 8192 - 1024]);
    }
}
