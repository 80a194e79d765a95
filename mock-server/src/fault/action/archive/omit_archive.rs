//! `omit-archive`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The archive never comes, though the tablespace list announced it; or the manifest, though it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct OmitArchive {}

impl Rules for OmitArchive {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let begin = matches!(when, Point::ArchiveBegin { .. } | Point::ManifestBegin { .. });
        (!begin).then_some("archive-begin or manifest-begin")
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{archive, refusal, sound, struck};
    use crate::testing::{Client, End, archives, fault, server, tags};

    #[tokio::test(start_paused = true)]
    async fn an_omitted_archive_is_announced_and_never_comes() {
        let when = r#"{"archive-begin": {"archive": "16400.tar"}}"#;
        let (_, messages, end) = struck(when, r#"{"omit-archive": {}}"#).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
        let names: Vec<_> = archives(&messages).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["base.tar", "manifest"]);
        assert_eq!(archive(&messages, "manifest").len(), archive(&sound().await, "manifest").len());
        // Before 15 archives are COPYs.
        let server = server(ServerVersion::V14, vec![fault(when, r#"{"omit-archive": {}}"#)]);
        let mut client = Client::start(&server, "test").await;
        let (messages, _) = client.query("BASE_BACKUP FAST NOWAIT").await;
        assert_eq!(tags(&messages), "TDCTDDCHdcTDCCZ");
    }

    #[tokio::test(start_paused = true)]
    async fn an_omitted_manifest_never_comes() {
        let when = r#"{"manifest-begin": {}}"#;
        let (_, messages, end) = struck(when, r#"{"omit-archive": {}}"#).await;
        assert_eq!(end, End::Ready);
        let names: Vec<_> = archives(&messages).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["16400.tar", "base.tar"]);
    }

    #[test]
    fn needs_a_beginning() {
        assert_eq!(
            refusal(r#"{"archive-end": {}}"#, r#"{"omit-archive": {}}"#),
            "omit-archive cannot strike at archive-end: it needs archive-begin or manifest-begin"
        );
    }
}
