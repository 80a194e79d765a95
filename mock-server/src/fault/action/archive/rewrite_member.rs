//! `rewrite-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The file holds another text. Its header and the manifest agree with it, as if it had lain so on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RewriteMember {
    /// The text.
    pub content: String,
}

impl Rules for RewriteMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, Manifest};

    use crate::fault::testing::{MEMBER, archive, members, refusal, struck};
    use crate::testing::{End, tags};

    #[tokio::test(start_paused = true)]
    async fn a_rewritten_member_agrees_with_the_manifest() {
        let (_, messages, _) = struck(MEMBER, r#"{"rewrite-member": {"content": "twelve\n"}}"#).await;
        let members = members(&archive(&messages, "base.tar"));
        assert!(members.contains(&("PG_VERSION".to_owned(), tar::EntryType::Regular, 7, None)));
        let manifest = Manifest::parse(&archive(&messages, "manifest")).unwrap();
        let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
        hasher.update(b"twelve\n");
        let file = manifest.file(b"PG_VERSION").unwrap();
        assert_eq!((file.size, &file.checksum), (7, &Some((ChecksumAlgorithm::Crc32c, hasher.finish()))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_cannot_be_rewritten() {
        let when = r#"{"member": {"path": "global"}}"#;
        let (_, messages, end) = struck(when, r#"{"rewrite-member": {"content": "x"}}"#).await;
        assert!(tags(&messages).ends_with("NEZ") && end == End::Ready, "{}", tags(&messages));
    }

    #[test]
    fn needs_a_header() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x", "at": "1B"}}"#, r#"{"rewrite-member": {"content": "x"}}"#),
            "rewrite-member cannot strike at member: it needs a member's header: member without at"
        );
    }
}
