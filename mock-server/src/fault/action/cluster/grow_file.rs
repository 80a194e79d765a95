//! `grow-file`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

/// A file of a relation grows, as by INSERT: a backup that is sending it sends what it had announced, a later one all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct GrowFile {
    /// Its path in the manifest.
    pub path: String,
    /// Its new size, in whole blocks of 8 KiB.
    pub to: ByteSize,
}

impl Rules for GrowFile {
    fn check(&self, _when: &Point) -> Result<(), String> {
        if !self.to.0.is_multiple_of(8192) {
            return Err("to of grow-file must be whole blocks of 8KiB".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{TABLE, archive, refusal, sound, struck, table};
    use crate::server::Found;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_grows_is_sent_as_it_was_announced_or_as_a_whole() {
        let grow = r#"{"grow-file": {"path": "base/1/1259_fsm", "to": "64KiB"}}"#;
        let whole = table(&archive(&sound().await, "base.tar")).unwrap();
        let (server, messages, _) = struck(r#"{"start-position": {}}"#, grow).await;
        let grown = table(&archive(&messages, "base.tar")).unwrap();
        assert!(grown.len() == 64 << 10 && grown.starts_with(&whole));
        assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Grown(64 << 10)));
        let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, grow).await;
        assert!(table(&archive(&messages, "base.tar")).unwrap() == whole);
        assert!(server.backups()[0].found.is_empty());
    }

    #[test]
    fn files_have_whole_blocks() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"grow-file": {"path": "base/1/1259", "to": "1B"}}"#),
            "to of grow-file must be whole blocks of 8KiB"
        );
    }
}
