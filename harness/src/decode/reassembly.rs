//! One direction of a TCP connection: segments in, in whatever order; bytes out, in theirs.

use std::collections::BTreeMap;

/// No more than this waits for a segment that is late, in bytes and in segments.
const MOST_WAITING: usize = 4 << 20;
const MOST_SEGMENTS: usize = 1024;

/// What comes next in a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes that were not captured.
    Missing(u64),
}

/// Puts segments in order. Sequence numbers wrap around; positions do not.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// The sequence number of the next byte, from the first segment on.
    sequence: Option<u32>,
    /// The next byte's position.
    position: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    bytes_waiting: usize,
}

impl Reassembly {
    /// A segment without data that begins or ends the direction: its flag counts as one byte of the sequence.
    pub fn flag(&mut self, sequence: u32, begins: bool) -> Vec<Next> {
        if begins {
            self.sequence = Some(sequence.wrapping_add(1));
            return Vec::new();
        }
        // The end says how far the direction went.
        match self.distance(sequence) {
            Some(ahead @ 1..) if self.waiting.is_empty() => {
                self.advance(ahead.unsigned_abs());
                vec![Next::Missing(ahead.unsigned_abs())]
            }
            _ => Vec::new(),
        }
    }

    /// The next segment as it was captured. What it makes known, in order.
    pub fn push(&mut self, sequence: u32, data: &[u8]) -> Vec<Next> {
        let mut found = Vec::new();
        if data.is_empty() {
            return found;
        }
        let ahead = *self.sequence.get_or_insert(sequence);
        let ahead = i64::from(sequence.wrapping_sub(ahead).cast_signed());
        let Some(start) = self.position.checked_add_signed(ahead) else {
            // Before the first byte that is known: sent again.
            return found;
        };
        if start > self.position {
            self.bytes_waiting += data.len();
            if let Some(before) = self.waiting.insert(start, data.to_vec()) {
                self.bytes_waiting -= before.len();
            }
            if self.bytes_waiting > MOST_WAITING || self.waiting.len() > MOST_SEGMENTS {
                self.give_up(&mut found);
            }
            return found;
        }
        self.take(start, data, &mut found);
        self.drain(&mut found);
        found
    }

    /// No segment comes any more: what still waits, with what is missing before it.
    pub fn finish(&mut self) -> Vec<Next> {
        let mut found = Vec::new();
        while !self.waiting.is_empty() {
            self.give_up(&mut found);
        }
        found
    }

    /// Stops waiting for what is missing before the first segment that waits.
    fn give_up(&mut self, found: &mut Vec<Next>) {
        if let Some((start, _)) = self.waiting.first_key_value() {
            let missing = start.saturating_sub(self.position);
            self.advance(missing);
            found.push(Next::Missing(missing));
        }
        self.drain(found);
    }

    /// Takes the segments whose turn has come.
    fn drain(&mut self, found: &mut Vec<Next>) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= self.position) {
            let (start, data) = entry.remove_entry();
            self.bytes_waiting -= data.len();
            self.take(start, &data, found);
        }
    }

    /// Takes a segment that begins at or before the next byte: what was sent before is passed over.
    fn take(&mut self, start: u64, data: &[u8], found: &mut Vec<Next>) {
        let known = usize::try_from(self.position.saturating_sub(start)).unwrap_or(usize::MAX);
        if let Some(new) = data.get(known..).filter(|new| !new.is_empty()) {
            self.advance(new.len() as u64);
            found.push(Next::Bytes(new.to_vec()));
        }
    }

    fn distance(&self, sequence: u32) -> Option<i64> {
        Some(i64::from(sequence.wrapping_sub(self.sequence?).cast_signed()))
    }

    fn advance(&mut self, bytes: u64) {
        self.position += bytes;
        // Sequence numbers count modulo 2^32.
        let low = u32::try_from(bytes & u64::from(u32::MAX)).unwrap_or_default();
        self.sequence = self.sequence.map(|sequence| sequence.wrapping_add(low));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(found: Vec<Next>) -> Vec<u8> {
        let bytes = |next| match next {
            Next::Bytes(bytes) => bytes,
            Next::Missing(count) => format!("<{count}>").into_bytes(),
        };
        found.into_iter().flat_map(bytes).collect()
    }

    #[test]
    fn segments_come_late_twice_and_overlapping() {
        let mut direction = Reassembly::default();
        direction.flag(u32::MAX - 2, true);
        let mut found = direction.push(u32::MAX - 1, b"ab");
        found.extend(direction.push(3, b"fgh"));
        found.extend(direction.push(u32::MAX - 1, b"abc"));
        found.extend(direction.push(0, b"cdefg"));
        found.extend(direction.push(6, b"i"));
        assert_eq!(bytes(found), b"abcdefghi");
        assert_eq!(direction.finish(), []);
    }

    #[test]
    fn what_never_comes_is_missing() {
        let mut direction = Reassembly::default();
        let mut found = direction.push(7, b"ab");
        found.extend(direction.push(14, b"x"));
        found.extend(direction.push(11, b"yz"));
        found.extend(direction.finish());
        assert_eq!(bytes(found), b"ab<2>yz<1>x");
        let mut cut = Reassembly::default();
        assert_eq!(bytes([cut.push(1, b"ab"), cut.flag(5, false)].concat()), b"ab<2>");
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_bytes(
            text in proptest::collection::vec(any::<u8>(), 1..200), start: u32, size in 1..20_usize, seed in any::<prop::sample::Index>(),
        ) {
            let mut pieces: Vec<(u32, &[u8])> = text
                .chunks(size)
                .enumerate()
                .map(|(index, piece)| (start.wrapping_add(u32::try_from(index * size).expect("small")), piece))
                .collect();
            let turn = seed.index(pieces.len());
            pieces.rotate_left(turn);
            let mut direction = Reassembly::default();
            direction.flag(start.wrapping_sub(1), true);
            let mut found: Vec<Next> = pieces.iter().flat_map(|(sequence, piece)| direction.push(*sequence, piece)).collect();
            found.extend(direction.finish());
            prop_assert_eq!(bytes(found), text);
        }

        #[test]
        fn any_segments_are_safe(segments: Vec<(u32, Vec<u8>, bool)>) {
            let mut direction = Reassembly::default();
            for (sequence, data, flag) in segments {
                direction.push(sequence, &data);
                if flag {
                    direction.flag(sequence, data.len() % 2 == 0);
                }
            }
            direction.finish();
        }
    }
}
