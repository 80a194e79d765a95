//! Numbers and WAL positions in a manifest, which stand there as text.

use crate::lsn::Lsn;

/// How much is taken for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Digits and nothing else.
    Strict,
    /// Whatever C takes, as servers do: `strtoul`, which takes blanks, a sign, nothing at all, and too much for the most there
    /// is; `sscanf`, which does not care what follows.
    AsC,
}

impl Numbers {
    /// A whole number.
    pub(super) fn number(self, text: &[u8]) -> Option<u64> {
        if self == Self::Strict {
            let digits = std::str::from_utf8(text).ok()?;
            return digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        }
        if text.is_empty() {
            return Some(0);
        }
        let (negative, digits) = sign(text);
        let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all_digits.then(|| value(digits, 10, negative))
    }

    /// The number of a timeline.
    pub(super) fn timeline(self, text: &[u8]) -> Option<u32> {
        let number = self.number(text)?;
        match self {
            Self::Strict => u32::try_from(number).ok(),
            Self::AsC => Some(low_half(number)),
        }
    }

    /// A manifest's version, kept in an `int`.
    pub(super) fn version(self, text: &[u8]) -> Option<u64> {
        let number = self.number(text)?;
        Some(if self == Self::Strict { number } else { low_half(number).into() })
    }

    /// A WAL position, `parse_xlogrecptr`.
    pub(super) fn position(self, text: &[u8]) -> Option<Lsn> {
        if self == Self::Strict {
            return std::str::from_utf8(text).ok()?.parse().ok();
        }
        let (high, rest) = hexadecimal(text)?;
        let (low, _) = hexadecimal(rest.strip_prefix(b"/")?)?;
        Some(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

/// `%X`: what it reads, and what comes after.
fn hexadecimal(text: &[u8]) -> Option<(u32, &[u8])> {
    let (negative, rest) = sign(text);
    let count = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let behind_prefix = rest.strip_prefix(b"0x").or_else(|| rest.strip_prefix(b"0X")).filter(|rest| count(rest) > 0);
    let rest = behind_prefix.unwrap_or(rest);
    let (digits, rest) = rest.split_at(count(rest));
    (!digits.is_empty()).then(|| (low_half(value(digits, 16, negative)), rest))
}

/// Whether a number is negative, and what follows blanks and the sign.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = text.get(blanks..).unwrap_or_default();
    match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix(b"+").unwrap_or(text)),
    }
}

/// The value of digits: the largest there is, if it is too large.
fn value(digits: &[u8], base: u32, negative: bool) -> u64 {
    let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(base).unwrap_or(0));
    let step = |number: u64, byte| number.checked_mul(base.into())?.checked_add(digit(byte));
    match digits.iter().try_fold(0, step) {
        None => u64::MAX,
        Some(number) if negative => number.wrapping_neg(),
        Some(number) => number,
    }
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_takes_more_than_digits() {
        let numbers =
            [("12", Some(12)), ("", Some(0)), (" +7", Some(7)), ("-1", Some(u64::MAX)), ("7 ", None), (" ", None)];
        for (text, number) in numbers {
            assert_eq!(Numbers::AsC.number(text.as_bytes()), number, "{text:?}");
        }
        assert_eq!(Numbers::AsC.number(b"99999999999999999999"), Some(u64::MAX));
        assert_eq!(Numbers::AsC.version(b"4294967298"), Some(2));
        assert_eq!(Numbers::AsC.timeline(b"4294967297"), Some(1));
        for text in ["", " +7", "-1", "7 ", "99999999999999999999"].map(str::as_bytes) {
            assert_eq!(Numbers::Strict.number(text), None, "{text:?}");
        }
    }

    #[test]
    fn positions_end_where_sscanf_stops() {
        let read = |text: &str| Numbers::AsC.position(text.as_bytes());
        assert_eq!(read("1/A0 and so on"), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(read(" 0x1/ 0XA0x"), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(read("100000001/2"), Some(Lsn(0x1_0000_0002)));
        assert_eq!(["", "1", "1/", "1 /2", "x/1", "1/x"].map(read), [None; 6]);
        assert_eq!(Numbers::Strict.position(b"1/A0x"), None);
    }
}
