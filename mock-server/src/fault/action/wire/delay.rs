//! `delay`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::Span;

/// The message comes late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Delay {
    /// By how much.
    pub r#for: Span,
}

impl Rules for Delay {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::fault::testing::{refusal, sound, struck};
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn a_delay_makes_the_message_late() {
        let begun = Instant::now();
        let (_, messages, end) = struck(r#"{"end-position": {}}"#, r#"{"delay": {"for": "10s"}}"#).await;
        assert_eq!(end, End::Ready);
        assert!(messages == sound().await);
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[test]
    fn needs_a_session() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"delay": {"for": "1s"}}"#),
            "delay cannot strike at clock: it needs a session of its own"
        );
    }
}
