//! `write-header`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::fault::{HeaderField, Hex};

/// A field of the member's header holds these bytes, and zeros behind them. Its checksum is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct WriteHeader {
    /// Which.
    pub field: HeaderField,
    /// The bytes, at most as many as the field has.
    pub hex: Hex,
}

impl Rules for WriteHeader {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        when.lacks_header()
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        let room = self.field.range().len();
        if self.hex.0.len() > room {
            return Err(format!("hex of write-header has more than the {room} bytes of the field"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{MEMBER, header, refusal, struck_archive};

    #[tokio::test(start_paused = true)]
    async fn a_field_holds_what_no_server_writes() {
        let archive = struck_archive(MEMBER, r#"{"write-header": {"field": "typeflag", "hex": "5a"}}"#).await;
        assert_eq!(header(&archive, "PG_VERSION").entry_type().as_byte(), b'Z');
        let size = r#"{"write-header": {"field": "size", "hex": "202020202020202020203300"}}"#;
        let archive = struck_archive(MEMBER, size).await;
        assert_eq!(&header(&archive, "PG_VERSION").as_old().size, b"          3\0");
    }

    #[test]
    fn a_field_has_its_length() {
        assert_eq!(
            refusal(r#"{"member": {"path": "x"}}"#, r#"{"write-header": {"field": "typeflag", "hex": "3030"}}"#),
            "hex of write-header has more than the 1 bytes of the field"
        );
    }
}
