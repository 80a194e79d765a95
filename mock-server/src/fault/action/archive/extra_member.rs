//! `extra-member`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::MemberType;
use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::validate::fits_header;
use crate::units::ByteSize;

/// A member that the cluster does not have comes before the point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ExtraMember {
    /// At most 100 bytes.
    pub name: String,
    /// `file` without it.
    #[serde(default)]
    pub kind: MemberType,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What a file holds, or a header that describes the member after it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// What its header says of the size; the truth without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
}

impl Rules for ExtraMember {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let between = when.is_header() || matches!(when, Point::ArchiveEnd { .. });
        (!between).then_some("a place between members: member without at, or archive-end")
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        let Self { name, kind, target, content, .. } = self;
        fits_header("name of extra-member", name)?;
        fits_header("target of extra-member", target.as_deref().unwrap_or_default())?;
        let problem = match (kind.is_link(), target) {
            (true, None) => Some("a link needs a target"),
            (false, Some(_)) => Some("only a link has a target"),
            _ => (!kind.has_content() && !content.is_empty()).then_some("only a file has content"),
        };
        problem.map_or(Ok(()), |problem| Err(problem.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, members, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn extra_members_come_before_the_point() {
        let extra = r#"{"extra-member": {"name": "pg_tblspc/1", "kind": "symlink", "target": "/tmp"}}"#;
        let archive = struck_archive(r#"{"member": {"path": "backup_label"}}"#, extra).await;
        let first = members(&archive).remove(0);
        assert_eq!(first, ("pg_tblspc/1".to_owned(), tar::EntryType::Symlink, 0, Some("/tmp".to_owned())));
        let extra = r#"{"extra-member": {"name": "recovery.signal", "content": "now"}}"#;
        let archive = struck_archive(r#"{"archive-end": {"archive": "base.tar"}}"#, extra).await;
        let last = members(&archive).pop().unwrap();
        assert_eq!(last, ("recovery.signal".to_owned(), tar::EntryType::Regular, 3, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pax_header_describes_the_next_member() {
        let extra = r#"{"extra-member": {"name": "x", "kind": "pax-header", "content": "19 path=overridden\n"}}"#;
        let archive = struck_archive(MEMBER, extra).await;
        assert!(members(&archive).contains(&("overridden".to_owned(), tar::EntryType::Regular, 3, None)));
        let extra = r#"{"extra-member": {"name": "x", "kind": "long-name", "content": "y", "size": "1GiB"}}"#;
        let archive = struck_archive(MEMBER, extra).await;
        let at = archive.chunks(512).position(|block| block.starts_with(b"x\0") && block[156] == b'L').unwrap() * 512;
        assert_eq!((&archive[at + 124..at + 135], archive[at + 512]), (b"10000000000".as_slice(), b'y'));
    }

    #[test]
    fn needs_a_member_that_can_be() {
        assert_eq!(
            refusal(r#"{"archive-end": {}}"#, r#"{"extra-member": {"name": "x", "kind": "symlink"}}"#),
            "a link needs a target"
        );
        assert_eq!(
            refusal(r#"{"archive-end": {}}"#, r#"{"extra-member": {"name": "x", "kind": "fifo", "content": "x"}}"#),
            "only a file has content"
        );
        assert_eq!(
            refusal(r#"{"archive-begin": {}}"#, r#"{"extra-member": {"name": "x"}}"#),
            "extra-member cannot strike at archive-begin: it needs a place between members: member without at, or archive-end"
        );
    }
}
