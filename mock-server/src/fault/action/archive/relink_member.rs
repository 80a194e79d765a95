//! `relink-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::validate::fits_header;

/// The member's header has another link target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RelinkMember {
    /// At most 100 bytes.
    pub to: String,
}

impl Rules for RelinkMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        fits_header("to of relink-member", &self.to)
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{members, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn the_header_has_another_target() {
        let link = r#"{"member": {"path": "pg_tblspc/16400"}}"#;
        let archive = struck_archive(link, r#"{"relink-member": {"to": "/etc"}}"#).await;
        let found = members(&archive).into_iter().find(|member| member.0 == "pg_tblspc/16400/").unwrap();
        assert_eq!(found.3.as_deref(), Some("/etc"));
    }

    #[test]
    fn a_target_fits_the_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x"}}"#, r#"{"relink-member": {"to": "/\u0000"}}"#),
            "to of relink-member holds a zero byte"
        );
    }
}
