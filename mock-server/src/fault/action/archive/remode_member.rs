//! `remode-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Mode;
use crate::fault::Point;
use crate::fault::action::Rules;

/// The member's header has other permission bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RemodeMember {
    /// In octal digits, as in `chmod`: `4777`.
    pub to: Mode,
}

impl Rules for RemodeMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, header, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn the_header_has_other_permissions() {
        let archive = struck_archive(MEMBER, r#"{"remode-member": {"to": "4777"}}"#).await;
        assert_eq!(header(&archive, "PG_VERSION").mode().unwrap(), 0o4777);
    }

    #[test]
    fn needs_octal_digits() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x"}}"#, r#"{"remode-member": {"to": "rwx"}}"#),
            "invalid mode \"rwx\": expected up to 7 octal digits such as \"4777\" at line 1 column 73"
        );
    }
}
