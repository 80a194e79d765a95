//! `truncate`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

/// The archive or manifest ends here, and the protocol goes on in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Truncate {
    /// Where it ends, if the point is its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ByteSize>,
}

impl Rules for Truncate {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        match (when, self.to) {
            (Point::ArchiveBegin { .. } | Point::ManifestBegin { .. }, Some(_)) => None,
            (Point::ArchiveBegin { .. } | Point::ManifestBegin { .. }, None) => Some("\"to\""),
            _ if !when.is_archived_byte() && !when.is_header() => Some("an archive or the manifest"),
            (_, None) => None,
            (_, Some(_)) => Some("no \"to\": the point says where the archive ends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MIDDLE, archive, refusal, sound, struck};
    use crate::testing::{End, tags};

    #[tokio::test(start_paused = true)]
    async fn a_truncated_archive_ends_in_good_order() {
        let whole = archive(&sound().await, "base.tar");
        for (when, action, length) in [
            (MIDDLE, r#"{"truncate": {}}"#, whole.len() / 2),
            (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"truncate": {"to": "0B"}}"#, 0),
            (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"truncate": {"to": "1000B"}}"#, 1000),
            (r#"{"member": {"path": "global/pg_control"}}"#, r#"{"truncate": {}}"#, whole.len() - 512 - 8192 - 1024),
        ] {
            let (_, messages, end) = struck(when, action).await;
            assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
            assert!(archive(&messages, "base.tar") == whole[..length], "{when}");
        }
    }

    #[test]
    fn needs_to_know_where() {
        assert_eq!(
            refusal(r#"{"archive-begin": {}}"#, r#"{"truncate": {}}"#),
            "truncate cannot strike at archive-begin: it needs \"to\""
        );
        assert_eq!(
            refusal(r#"{"archive-data": {"at": "1B"}}"#, r#"{"truncate": {"to": "1B"}}"#),
            "truncate cannot strike at archive-data: it needs no \"to\": the point says where the archive ends"
        );
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"truncate": {}}"#),
            "truncate cannot strike at ready: it needs an archive or the manifest"
        );
    }
}
