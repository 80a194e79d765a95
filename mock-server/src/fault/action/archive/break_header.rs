//! `break-header`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The member's header has a wrong checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct BreakHeader {}

impl Rules for BreakHeader {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::tar::{TarReader, Trailer};

    use crate::fault::testing::{MEMBER, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn a_broken_header_has_a_wrong_checksum() {
        let archive = struck_archive(MEMBER, r#"{"break-header": {}}"#).await;
        let mut reader = TarReader::new(Trailer::Required);
        let error = reader.push(archive.into(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("chksum") || error.to_string().contains("checksum"), "{error}");
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x", "at": "1B"}}"#, r#"{"break-header": {}}"#),
            "break-header cannot strike at member: it needs a member's header: member without at"
        );
    }
}
