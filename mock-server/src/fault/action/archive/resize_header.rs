//! `resize-header`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

/// The member's header has another size; its content does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ResizeHeader {
    /// Which.
    pub to: ByteSize,
}

impl Rules for ResizeHeader {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, archive, members, refusal, sound, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn the_header_has_another_size_than_the_content() {
        let struck = struck_archive(MEMBER, r#"{"resize-header": {"to": "512B"}}"#).await;
        let found = members(&struck).into_iter().find(|member| member.0 == "PG_VERSION").unwrap();
        assert_eq!(found.2, 512);
        assert_eq!(struck.len(), archive(&sound().await, "base.tar").len());
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x", "at": "1B"}}"#, r#"{"resize-header": {"to": "8GiB"}}"#),
            "resize-header cannot strike at member: it needs a member's header: member without at"
        );
    }
}
