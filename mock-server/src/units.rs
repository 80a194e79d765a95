//! The values of a scenario file that carry a unit: sizes, rates, spans of time and positions in a stream.
//!
//! Every kind of value has one format: a whole number directly followed by its unit, nothing before, between or after. An
//! error says which value was meant and what one looks like.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a value with a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: expected {expected}")]
pub struct InvalidUnit {
    /// What was expected: `size`, `rate`, `time`, `position`.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
    /// What such a value looks like.
    pub expected: &'static str,
}

const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Spans are counted in milliseconds.
const SPAN_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number and its unit. Leading zeros, signs, blanks and fractions are refused.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    if number.is_empty() || (number.len() > 1 && number.starts_with('0')) {
        return None;
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Prints with the largest unit that needs no fraction.
fn write_with_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)).or(units.last());
    exact.map_or(Ok(()), |(unit, factor)| write!(f, "{}{unit}", value / factor))
}

/// Serde and JSON Schema for a value that is written as text.
macro_rules! text_value {
    ($type:ident, $pattern:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

/// A number of bytes: `8MiB`, `512B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = "a whole number of B, KiB, MiB, GiB or TiB such as \"8MiB\"";
        let invalid = || InvalidUnit { what: "size", text: text.to_owned(), expected };
        parse_with_unit(text, &SIZE_UNITS).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, &SIZE_UNITS)
    }
}

text_value!(ByteSize, "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB|TiB)$", "A number of bytes: 8MiB");

/// Bytes a second: `256KiB/s`. Nothing at all is written `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(pub u64);

impl FromStr for ByteRate {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = "a size for each second such as \"256KiB/s\", or \"0\"";
        let invalid = || InvalidUnit { what: "rate", text: text.to_owned(), expected };
        if text == "0" {
            return Ok(Self(0));
        }
        let size = text.strip_suffix("/s").and_then(|size| parse_with_unit(size, &SIZE_UNITS));
        size.filter(|rate| *rate > 0).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        write!(f, "{}/s", ByteSize(self.0))
    }
}

text_value!(ByteRate, "^(0|[1-9][0-9]*(B|KiB|MiB|GiB|TiB)/s)$", "Bytes a second: 256KiB/s, or 0");

/// A span of time: `10s`, `500ms`, `2min`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = "a whole number of ms, s, min or h such as \"10s\"";
        let invalid = || InvalidUnit { what: "time", text: text.to_owned(), expected };
        let milliseconds = parse_with_unit(text, &SPAN_UNITS).ok_or_else(invalid)?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write_with_unit(f, milliseconds, &SPAN_UNITS)
    }
}

text_value!(Span, "^(0|[1-9][0-9]*)(ms|s|min|h)$", "A span of time: 10s, 500ms, 2min");

/// A position in something whose size is known when it is reached: a share of the whole, or bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// From 0 to 100.
    Percent(u8),
    /// Bytes from the start.
    Bytes(ByteSize),
}

impl Position {
    /// The byte in `total` bytes that this names; never after the end.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Percent(share) => {
                let exact = u128::from(total) * u128::from(share.min(100)) / 100;
                u64::try_from(exact).unwrap_or(total)
            }
            Self::Bytes(ByteSize(bytes)) => bytes.min(total),
        }
    }
}

impl Default for Position {
    /// The beginning.
    fn default() -> Self {
        Self::Percent(0)
    }
}

impl FromStr for Position {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = "a share from \"0%\" to \"100%\", or a size such as \"8KiB\"";
        let invalid = || InvalidUnit { what: "position", text: text.to_owned(), expected };
        if text.ends_with('%') {
            let share = parse_with_unit(text, &[("%", 1)]).filter(|share| *share <= 100);
            return share.and_then(|share| u8::try_from(share).ok()).map(Self::Percent).ok_or_else(invalid);
        }
        parse_with_unit(text, &SIZE_UNITS).map(|bytes| Self::Bytes(ByteSize(bytes))).ok_or_else(invalid)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

text_value!(
    Position,
    "^((0|[1-9][0-9]?|100)%|(0|[1-9][0-9]*)(B|KiB|MiB|GiB|TiB))$",
    "A share of the whole, or bytes from its start: 50%, 8KiB"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_unit() {
        assert_eq!("512B".parse(), Ok(ByteSize(512)));
        assert_eq!("8MiB".parse(), Ok(ByteSize(8 << 20)));
        assert_eq!("1TiB".parse(), Ok(ByteSize(1 << 40)));
        assert_eq!("256KiB/s".parse(), Ok(ByteRate(256 << 10)));
        assert_eq!("0".parse(), Ok(ByteRate(0)));
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("2min".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("50%".parse(), Ok(Position::Percent(50)));
        assert_eq!("8KiB".parse(), Ok(Position::Bytes(ByteSize(8192))));
    }

    #[test]
    fn refuses_every_other_spelling() {
        for text in ["", "8", "8 MiB", "8MB", "8mib", "MiB", "-1B", "+1B", "01B", "1.5GiB", "8MiB ", "16777216TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
        for text in ["0B/s", "1KiB", "1KiB/S", "1KiB/min", "00"] {
            assert!(text.parse::<ByteRate>().is_err(), "{text:?}");
        }
        for text in ["10", "10 s", "10sec", "1m", "1d", "s"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["101%", "050%", "%", "50", "5 %"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn says_what_it_wanted() {
        let problem = "8MB".parse::<ByteSize>().expect_err("no such unit").to_string();
        insta::assert_snapshot!(problem, @r#"invalid size "8MB": expected a whole number of B, KiB, MiB, GiB or TiB such as "8MiB""#);
        let problem = "fast".parse::<ByteRate>().expect_err("no rate").to_string();
        insta::assert_snapshot!(problem, @r#"invalid rate "fast": expected a size for each second such as "256KiB/s", or "0""#);
    }

    #[test]
    fn prints_the_largest_unit() {
        let printed = [ByteSize(0), ByteSize(1023), ByteSize(8192), ByteSize(3 << 30)].map(|size| size.to_string());
        assert_eq!(printed, ["0B", "1023B", "8KiB", "3GiB"]);
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Span(Duration::ZERO).to_string(), "0ms");
    }

    #[test]
    fn positions_stay_inside() {
        assert_eq!(Position::Percent(50).of(1001), 500);
        assert_eq!(Position::Percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Position::Bytes(ByteSize(10)).of(3), 3);
    }

    proptest! {
        #[test]
        fn sizes_round_trip(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            prop_assert_eq!(ByteRate(bytes).to_string().parse(), Ok(ByteRate(bytes)));
            let position = Position::Bytes(ByteSize(bytes));
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn spans_round_trip(milliseconds in 0..u64::MAX / 2) {
            let span = Span(Duration::from_millis(milliseconds));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,24}") {
            let _ = (text.parse::<ByteSize>(), text.parse::<ByteRate>(), text.parse::<Span>(), text.parse::<Position>());
        }
    }
}
