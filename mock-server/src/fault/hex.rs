//! Bytes in a scenario file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes, written as pairs of hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = || format!("invalid bytes {text:?}: expected pairs of hexadecimal digits such as \"4500000004\"");
        let pairs = text.as_bytes().chunks(2);
        let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        pairs
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(problem)
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        use std::fmt::Write as _;
        hex.0.iter().fold(Self::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_hexadecimal() {
        for text in ["4", "4g", "+1", "0x45"] {
            assert!(Hex::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            let text = String::from(Hex(bytes.clone()));
            prop_assert_eq!(Hex::try_from(text), Ok(Hex(bytes)));
        }
    }
}
