//! `reset`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The connection is reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Reset {}

impl Rules for Reset {}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MIDDLE, struck};
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_seen_as_one() {
        let (_, _, end) = struck(MIDDLE, r#"{"reset": {}}"#).await;
        assert_eq!(end, End::Reset);
    }
}
