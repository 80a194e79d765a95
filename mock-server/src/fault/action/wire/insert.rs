//! `insert`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Hex;
use crate::fault::Point;
use crate::fault::action::Rules;

/// Bytes that nobody asked for come before the message: on the wire, or inside the archive or manifest if the point is
/// one of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Insert {
    /// The bytes.
    pub hex: Hex,
}

impl Rules for Insert {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_session()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        if self.hex.0.is_empty() { Err("hex of insert is empty".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;

    use crate::fault::testing::{archive, refusal, sound, struck};
    use crate::testing::{End, tags};

    #[tokio::test(start_paused = true)]
    async fn inserted_bytes_come_on_the_wire_or_in_the_archive() {
        // A CommandComplete that says "hi".
        let (_, messages, end) = struck(r#"{"copy-done": {}}"#, r#"{"insert": {"hex": "4300000007686900"}}"#).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdCcTDCCZ", End::Ready));
        assert!(messages.contains(&BackendMessage::CommandComplete("hi".to_owned())));
        let when = r#"{"archive-data": {"archive": "16400.tar", "at": "0B"}}"#;
        let (_, messages, end) = struck(when, r#"{"insert": {"hex": "c0ffee"}}"#).await;
        assert_eq!(end, End::Ready);
        let expected = [b"\xc0\xff\xee".as_slice(), &archive(&sound().await, "16400.tar")].concat();
        assert!(archive(&messages, "16400.tar") == expected);
    }

    #[test]
    fn nothing_cannot_be_inserted() {
        assert_eq!(refusal(r#"{"ready": {}}"#, r#"{"insert": {"hex": ""}}"#), "hex of insert is empty");
    }
}
