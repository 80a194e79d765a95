//! `add-file`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::validate::fits_header;

/// A file appears, as by CREATE TABLE: a backup whose walk has not come to the end of its archive sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct AddFile {
    /// Its path in the manifest.
    pub path: String,
    /// What it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
}

impl Rules for AddFile {
    fn check(&self, _when: &Point) -> Result<(), String> {
        let path = &self.path;
        let inside = !path.is_empty() && path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        if inside {
            fits_header("path of add-file", path)
        } else {
            Err(format!("{path:?} is no path in the data directory"))
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::manifest::Manifest;

    use crate::fault::testing::{archive, refusal, struck};
    use crate::server::Found;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_appears_is_sent_if_the_walk_still_comes_to_it() {
        let add = r#"{"add-file": {"path": "base/1/99999", "content": "new"}}"#;
        let new = |messages: &[_]| {
            let base = archive(messages, "base.tar");
            let mut archive = tar::Archive::new(&base[..]);
            archive.entries().unwrap().any(|entry| &*entry.unwrap().path_bytes() == b"base/1/99999")
        };
        let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, add).await;
        assert!(new(&messages));
        assert!(Manifest::parse(&archive(&messages, "manifest")).unwrap().file(b"base/1/99999").is_some());
        assert_eq!(server.backups()[0].found.get(&b"base/1/99999"[..]), Some(&Found::Added));
        let (_, messages, _) = struck(r#"{"member": {"path": "global/pg_control"}}"#, add).await;
        assert!(!new(&messages));
    }

    #[test]
    fn needs_a_path_in_the_data_directory() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"add-file": {"path": "../x"}}"#),
            "\"../x\" is no path in the data directory"
        );
    }
}
