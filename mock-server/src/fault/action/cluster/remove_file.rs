//! `remove-file`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// A file is removed, as by DROP TABLE: a backup that has not begun to send it leaves it out without a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RemoveFile {
    /// Its path in the manifest.
    pub path: String,
}

impl Rules for RemoveFile {}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::manifest::Manifest;

    use crate::fault::testing::{TABLE, archive, sound, struck, table};
    use crate::server::Found;
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_vanishes_is_left_out_without_a_word() {
        let remove = r#"{"remove-file": {"path": "base/1/1259_fsm"}}"#;
        let (server, messages, end) = struck(r#"{"start-position": {}}"#, remove).await;
        assert_eq!((table(&archive(&messages, "base.tar")), end), (None, End::Ready));
        assert!(Manifest::parse(&archive(&messages, "manifest")).unwrap().file(TABLE).is_none());
        assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Nothing));
        // One that is open is read to its end.
        let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, remove).await;
        assert!(table(&archive(&messages, "base.tar")) == table(&archive(&sound().await, "base.tar")));
        assert!(server.backups()[0].found.is_empty());
    }
}
