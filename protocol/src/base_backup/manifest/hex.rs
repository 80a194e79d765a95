//! Bytes as hexadecimal digits, as a manifest holds them.

/// The bytes as lower-case digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that an even number of digits of either case stand for.
pub(crate) fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Option<_> = pairs.iter().map(|&[high, low]| Some(value(high)? << 4 | value(low)?)).collect();
    bytes.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_hexadecimal() {
        assert_eq!(decode(b"0aFf"), Some(vec![10, 255]));
        for digits in [&b"0"[..], b"0g", b"+1", b"\xff\xff", b" 1"] {
            assert_eq!(decode(digits), None, "{digits:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
