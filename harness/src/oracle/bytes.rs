//! Comparing bytes, of which there are many.

/// Equal pieces are passed over at once: byte by byte a cluster takes long, most of all without optimisation.
const PIECE: usize = 4096;

/// The index of the first byte in which two slices differ, as far as both go.
pub(super) fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.len().min(other.len());
    let (one, other) = (one.get(..common)?, other.get(..common)?);
    let mut pieces = one.chunks(PIECE).zip(other.chunks(PIECE)).enumerate();
    let (index, (one, other)) = pieces.find(|(_, (one, other))| one != other)?;
    let within = one.iter().zip(other).position(|(one, other)| one != other)?;
    Some(index * PIECE + within)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_comparison_byte_by_byte_finds(
            length in 0..3 * PIECE,
            other_length in 0..3 * PIECE,
            changed in proptest::collection::vec(0..3 * PIECE, 0..3),
        ) {
            let one = vec![7; length];
            let mut other = vec![7; other_length];
            for at in changed {
                if let Some(byte) = other.get_mut(at) {
                    *byte = 8;
                }
            }
            let expected = one.iter().zip(&other).position(|(one, other)| one != other);
            prop_assert_eq!(first_difference(&one, &other), expected);
        }
    }
}
