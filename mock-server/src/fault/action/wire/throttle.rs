//! `throttle`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteRate;

/// From here on the session sends no faster than this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Throttle {
    /// Bytes in a second.
    pub rate: ByteRate,
}

impl Rules for Throttle {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        if self.rate.0 == 0 { Err("rate of throttle must not be 0".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::fault::testing::{archive, refusal, sound, struck};
    use crate::testing::{End, payloads};

    #[tokio::test(start_paused = true)]
    async fn a_throttle_keeps_to_its_rate() {
        let begun = Instant::now();
        let (_, messages, end) = struck(r#"{"copy-begin": {}}"#, r#"{"throttle": {"rate": "64KiB/s"}}"#).await;
        assert_eq!(end, End::Ready);
        assert!(archive(&messages, "16400.tar") == archive(&sound().await, "16400.tar"));
        let bytes: usize = payloads(&messages).iter().map(|payload| payload.len() + 5).sum();
        let least = Duration::from_secs(bytes as u64 / 65536);
        assert!(begun.elapsed() + Duration::from_secs(1) > least && begun.elapsed() < least + Duration::from_secs(2));
    }

    #[test]
    fn a_rate_is_more_than_nothing() {
        assert_eq!(refusal(r#"{"ready": {}}"#, r#"{"throttle": {"rate": "0"}}"#), "rate of throttle must not be 0");
    }
}
