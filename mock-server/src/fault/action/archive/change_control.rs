//! `change-control`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// `pg_control` is another cluster's. Its CRC and the manifest agree with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ChangeControl {
    /// The other cluster.
    pub system_identifier: u64,
}

impl Rules for ChangeControl {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let control = matches!(when, Point::Member { path, at: None, .. } if path == "global/pg_control");
        (!control).then_some("the member global/pg_control, without at")
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::control::ControlFile;

    use crate::fault::testing::{archive, refusal, struck};

    #[tokio::test(start_paused = true)]
    async fn a_control_file_of_another_cluster_has_a_right_crc() {
        let when = r#"{"member": {"path": "global/pg_control"}}"#;
        let (server, messages, _) = struck(when, r#"{"change-control": {"system-identifier": 4711}}"#).await;
        let archive = archive(&messages, "base.tar");
        let control = ControlFile::decode(&archive[archive.len() - 1024 - 8192..archive.len() - 1024]).unwrap();
        assert_eq!(control.system_identifier, 4711);
        assert_ne!(server.cluster().system_identifier(), 4711);
    }

    #[test]
    fn needs_the_control_file() {
        assert_eq!(
            refusal(r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"change-control": {"system-identifier": 1}}"#),
            "change-control cannot strike at member: it needs the member global/pg_control, without at"
        );
    }
}
