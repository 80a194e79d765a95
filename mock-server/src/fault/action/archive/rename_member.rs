//! `rename-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::validate::fits_header;

/// The member's header has another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RenameMember {
    /// At most 100 bytes.
    pub to: String,
}

impl Rules for RenameMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        fits_header("to of rename-member", &self.to)
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, members, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn the_header_has_another_name() {
        let archive = struck_archive(MEMBER, r#"{"rename-member": {"to": "../../etc/passwd"}}"#).await;
        let members = members(&archive);
        assert_eq!(members.iter().find(|member| member.0 == "../../etc/passwd").unwrap().2, 3);
        assert!(!members.iter().any(|member| member.0 == "PG_VERSION"));
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"wal-data": {"lsn": "0/3000028"}}"#, r#"{"rename-member": {"to": "x"}}"#),
            "rename-member cannot strike at wal-data: it needs a member's header: member without at"
        );
        assert_eq!(
            refusal(
                r#"{"member": {"path": "x"}}"#,
                r#"{"rename-member": {"to": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#
            ),
            "to of rename-member has more than 100 bytes: it does not fit the tar header"
        );
    }
}
