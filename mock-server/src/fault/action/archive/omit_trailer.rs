//! `omit-trailer`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The archive ends without its two zero blocks (15 and newer).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct OmitTrailer {}

impl Rules for OmitTrailer {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let edge = matches!(when, Point::ArchiveBegin { .. } | Point::ArchiveEnd { .. });
        (!edge).then_some("archive-begin or archive-end")
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{archive, refusal, sound, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn a_trailer_can_be_missing() {
        for when in [r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"archive-end": {"archive": "base.tar"}}"#] {
            let archive_without = struck_archive(when, r#"{"omit-trailer": {}}"#).await;
            let whole = archive(&sound().await, "base.tar");
            assert!(archive_without == whole[..whole.len() - 1024]);
        }
    }

    #[test]
    fn needs_an_edge_of_an_archive() {
        assert_eq!(
            refusal(r#"{"copy-done": {}}"#, r#"{"omit-trailer": {}}"#),
            "omit-trailer cannot strike at copy-done: it needs archive-begin or archive-end"
        );
    }
}
