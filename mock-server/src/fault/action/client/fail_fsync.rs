//! `fail-fsync`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// From here on nothing can be forced to the client's disk: EIO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct FailFsync {
    /// Whose; without it, that of the connection that came to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Rules for FailFsync {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        super::lacks_machine(self.client.as_deref(), when)
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        super::valid_owner(self.client.as_deref(), "fail-fsync")
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{held, refusal};

    #[tokio::test(start_paused = true)]
    async fn the_session_waits_until_it_is_done() {
        assert_eq!(held(r#"{"fail-fsync": {}}"#).await, "fail-fsync");
    }

    #[test]
    fn needs_a_client() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"fail-fsync": {}}"#),
            "fail-fsync cannot strike at clock: it needs \"client\": no connection comes to this point"
        );
    }
}
