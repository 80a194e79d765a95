//! `change-file`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::action::Rules;

/// The blocks of a file are written anew, as by a checkpoint: a backup that is sending it sends old ones up to here and new
/// ones from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ChangeFile {
    /// Its path in the manifest.
    pub path: String,
}

impl Rules for ChangeFile {}

#[cfg(test)]
mod tests {
    use backstop_protocol::page::{PageHeader, checksum};

    use crate::fault::testing::{TABLE, archive, sound, struck, table};
    use crate::server::Found;
    use crate::testing::End;

    #[tokio::test(start_paused = true)]
    async fn blocks_that_are_written_anew_are_sound_blocks() {
        let change = r#"{"change-file": {"path": "base/1/1259_fsm"}}"#;
        let whole = table(&archive(&sound().await, "base.tar")).unwrap();
        let (server, messages, end) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, change).await;
        let changed = table(&archive(&messages, "base.tar")).unwrap();
        assert_eq!((changed.len(), end), (whole.len(), End::Ready));
        for (number, (old, new)) in (0..).zip(whole.chunks(8192).zip(changed.chunks(8192))) {
            assert!(old != new, "{number}");
            let page = new.first_chunk().unwrap();
            assert!(PageHeader::parse(page).lsn > PageHeader::parse(old.first_chunk().unwrap()).lsn);
            assert_eq!(checksum(page, number), PageHeader::parse(page).checksum, "{number}");
        }
        let found = server.backups()[0].found.get(TABLE).copied();
        assert!(matches!(found, Some(Found::RewrittenFrom { offset: 0, .. })), "{found:?}");
    }
}
