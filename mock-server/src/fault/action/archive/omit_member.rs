//! `omit-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The member never comes: header, content and padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct OmitMember {}

impl Rules for OmitMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::manifest::Manifest;

    use crate::fault::testing::{MEMBER, archive, members, refusal, struck};

    #[tokio::test(start_paused = true)]
    async fn an_omitted_member_is_still_in_the_manifest() {
        let (_, messages, _) = struck(MEMBER, r#"{"omit-member": {}}"#).await;
        let names: Vec<_> = members(&archive(&messages, "base.tar")).into_iter().map(|member| member.0).collect();
        assert!(!names.contains(&"PG_VERSION".to_owned()) && names.contains(&"global/pg_control".to_owned()));
        let manifest = Manifest::parse(&archive(&messages, "manifest")).unwrap();
        assert!(manifest.file(b"PG_VERSION").is_some());
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x", "at": "1B"}}"#, r#"{"omit-member": {}}"#),
            "omit-member cannot strike at member: it needs a member's header: member without at"
        );
    }
}
