//! `shrink-file`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

/// A file shrinks, as by VACUUM: a backup that is sending it fills up with zeros, a later one sends what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ShrinkFile {
    /// Its path in the manifest.
    pub path: String,
    /// What is left, in whole blocks of 8 KiB.
    pub to: ByteSize,
}

impl Rules for ShrinkFile {
    fn check(&self, _when: &Point) -> Result<(), String> {
        if !self.to.0.is_multiple_of(8192) {
            return Err("to of shrink-file must be whole blocks of 8KiB".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{TABLE, archive, refusal, sound, struck, table};
    use crate::server::Found;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_shrinks_is_shorter_or_filled_up_with_zeros() {
        let shrink = r#"{"shrink-file": {"path": "base/1/1259_fsm", "to": "8KiB"}}"#;
        let whole = table(&archive(&sound().await, "base.tar")).unwrap();
        assert!(whole.len() > 8192);
        let (server, messages, _) = struck(r#"{"start-position": {}}"#, shrink).await;
        assert!(table(&archive(&messages, "base.tar")).unwrap() == whole[..8192]);
        assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Beginning(8192)));
        let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, shrink).await;
        let mut padded = whole.clone();
        padded[8192..].fill(0);
        assert!(table(&archive(&messages, "base.tar")).unwrap() == padded);
        assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::ZerosFrom(8192)));
    }

    #[test]
    fn files_have_whole_blocks() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"shrink-file": {"path": "base/1/1259", "to": "1B"}}"#),
            "to of shrink-file must be whole blocks of 8KiB"
        );
    }
}
