//! Positions in the write-ahead log.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in the write-ahead log: `XLogRecPtr`, a byte offset from the beginning of all WAL.
///
/// Printed and parsed as PostgreSQL does in every release up to 18: two upper-case hexadecimal halves, `%X/%X`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`, printed `0/0`.
    pub const INVALID: Self = Self(0);

    /// Whether this is `InvalidXLogRecPtr`.
    pub fn is_invalid(self) -> bool {
        self == Self::INVALID
    }

    /// This position plus `bytes`, or the last position there is.
    #[must_use]
    pub fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position rounded up to the next multiple of `alignment`, which must be a power of two.
    #[must_use]
    pub fn align_up(self, alignment: u64) -> Self {
        debug_assert!(alignment.is_power_of_two());
        Self(self.0.saturating_add(alignment - 1) & !(alignment - 1))
    }

    /// The position rounded down to a multiple of `alignment`, which must be a power of two.
    #[must_use]
    pub fn align_down(self, alignment: u64) -> Self {
        debug_assert!(alignment.is_power_of_two());
        Self(self.0 & !(alignment - 1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not a WAL position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL position {0:?}: expected two hexadecimal numbers such as \"0/3000028\"")]
pub struct InvalidLsn(pub String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

impl Add<u64> for Lsn {
    type Output = Self;

    fn add(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl Sub for Lsn {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_postgresql_does() {
        assert_eq!(Lsn(0x0000_0000_0300_0028).to_string(), "0/3000028");
        assert_eq!(Lsn(0xFF_FF00_0000).to_string(), "FF/FF000000");
        assert_eq!(Lsn::INVALID.to_string(), "0/0");
    }

    #[test]
    fn refuses_what_is_not_a_position() {
        for text in ["", "0", "/", "0/", "/0", "0/123456789", "123456789/0", "+1/0", "0/-1", "0/ 1", "0/1 ", "x/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn aligns_both_ways() {
        assert_eq!(Lsn(9).align_up(8), Lsn(16));
        assert_eq!(Lsn(8).align_up(8), Lsn(8));
        assert_eq!(Lsn(15).align_down(8), Lsn(8));
    }

    proptest! {
        #[test]
        fn round_trips(position: u64) {
            prop_assert_eq!(Lsn(position).to_string().parse::<Lsn>(), Ok(Lsn(position)));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,30}") {
            let _ = text.parse::<Lsn>();
        }
    }
}
