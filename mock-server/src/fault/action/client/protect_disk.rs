//! `protect-disk`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The client's disk becomes read-only, as file systems do after an error: EROFS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ProtectDisk {
    /// Whose; without it, that of the connection that came to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Rules for ProtectDisk {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        super::lacks_machine(self.client.as_deref(), when)
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        super::valid_owner(self.client.as_deref(), "protect-disk")
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{held, refusal};

    #[tokio::test(start_paused = true)]
    async fn the_session_waits_until_it_is_done() {
        assert_eq!(held(r#"{"protect-disk": {}}"#).await, "protect-disk");
    }

    #[test]
    fn needs_a_client() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"protect-disk": {}}"#),
            "protect-disk cannot strike at clock: it needs \"client\": no connection comes to this point"
        );
    }
}
