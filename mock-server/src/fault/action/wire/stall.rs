//! `stall`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::Span;

/// The server falls silent; the connection stays open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Stall {
    /// For how long; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#for: Option<Span>,
}

impl Rules for Stall {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::fault::testing::{MIDDLE, archive, sound, struck};
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_silence_on_an_open_connection() {
        let (server, messages, end) = struck(MIDDLE, r#"{"stall": {}}"#).await;
        assert_eq!(end, End::Silent);
        let half = archive(&messages, "base.tar").len();
        assert_eq!(half, archive(&sound().await, "base.tar").len() / 2);
        // The client is gone, and with it the session.
        server.idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_may_end() {
        let begun = Instant::now();
        let (_, messages, end) = struck(r#"{"copy-done": {}}"#, r#"{"stall": {"for": "1h"}}"#).await;
        assert_eq!((end, begun.elapsed()), (End::Ready, Duration::from_secs(3600)));
        assert!(messages == sound().await);
    }
}
