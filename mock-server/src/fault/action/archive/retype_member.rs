//! `retype-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::MemberType;
use crate::fault::Point;
use crate::fault::action::Rules;

/// The member's header has another type; its content still follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RetypeMember {
    /// Which.
    pub to: MemberType,
}

impl Rules for RetypeMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, members, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn the_header_has_another_type() {
        let archive = struck_archive(MEMBER, r#"{"retype-member": {"to": "fifo"}}"#).await;
        let found = members(&archive).into_iter().find(|member| member.0 == "PG_VERSION").unwrap();
        assert_eq!((found.1, found.2), (tar::EntryType::Fifo, 3));
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x", "at": "1B"}}"#, r#"{"retype-member": {"to": "fifo"}}"#),
            "retype-member cannot strike at member: it needs a member's header: member without at"
        );
    }
}
