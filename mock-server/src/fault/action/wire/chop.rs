//! `chop`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

/// From here on CopyData with bytes of archives, of the manifest or of WAL carries no more than this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Chop {
    /// Payload of one message.
    pub into: ByteSize,
}

impl Rules for Chop {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        if self.into.0 == 0 { Err("into of chop must be at least 1B".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{refusal, sound, struck};
    use crate::testing::{End, archives, payloads};

    #[tokio::test(start_paused = true)]
    async fn a_chop_cuts_data_into_pieces() {
        let (_, messages, end) = struck(r#"{"connect": {}}"#, r#"{"chop": {"into": "100B"}}"#).await;
        assert_eq!(end, End::Ready);
        assert!(archives(&messages) == archives(&sound().await));
        let data = payloads(&messages).into_iter().filter(|payload| payload.starts_with(b"d"));
        assert_eq!(data.map(|payload| payload.len()).max(), Some(101));
    }

    #[test]
    fn a_piece_has_a_byte() {
        assert_eq!(refusal(r#"{"ready": {}}"#, r#"{"chop": {"into": "0B"}}"#), "into of chop must be at least 1B");
    }
}
