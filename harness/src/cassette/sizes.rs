//! The sizes of messages that come one behind another, in few characters: `512 8192 512 32768*31 1024`.

use std::fmt::Write as _;

/// Sizes in order, equal neighbours counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes(Vec<(u32, u32)>);

/// As text, a line of a cassette would become too long beyond so many runs.
const MAX_RUNS: usize = 16_384;

impl Sizes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no more fit.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_RUNS
    }

    pub(super) fn push(&mut self, size: u32) {
        match self.0.last_mut() {
            Some((last, count)) if *last == size && *count < u32::MAX => *count += 1,
            _ => self.0.push((size, 1)),
        }
    }

    /// All of them, one by one.
    pub(super) fn each(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(size, count)| (0..*count).map(|_| *size))
    }

    /// Their sum in bytes; nothing, if that is more than anybody sends.
    pub(super) fn total(&self) -> Option<u64> {
        let products = self.0.iter().map(|(size, count)| u64::from(*size) * u64::from(*count));
        products.into_iter().try_fold(0_u64, u64::checked_add).filter(|total| *total < 1 << 60)
    }

    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        for (size, count) in &self.0 {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a string never fails.
            let _ = match count {
                1 => write!(text, "{space}{size}"),
                count => write!(text, "{space}{size}*{count}"),
            };
        }
        text
    }

    /// Reads what [`encode`](Self::encode) wrote, with messages of at most `most` bytes.
    pub(super) fn decode(text: &str, most: u32) -> Result<Self, String> {
        let mut sizes = Vec::new();
        for run in text.split(' ') {
            let (size, count) = run.split_once('*').unwrap_or((run, "1"));
            let number = |text: &str| text.parse::<u32>().ok();
            let parsed = number(size).filter(|size| *size <= most).zip(number(count).filter(|count| *count > 0));
            sizes.push(parsed.ok_or_else(|| format!("{run:?} is no size of messages"))?);
        }
        if sizes.len() > MAX_RUNS {
            return Err(format!("more than {MAX_RUNS} runs of sizes"));
        }
        Ok(Self(sizes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_neighbours_are_counted() {
        let mut sizes = Sizes::default();
        for size in [512, 8192, 8192, 8192, 512] {
            sizes.push(size);
        }
        assert_eq!((sizes.encode().as_str(), sizes.total()), ("512 8192*3 512", Some(25_600)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "x", "1 ", "1*0", "1*", "-1", "1.5", "4294967296", "65537"] {
            assert!(Sizes::decode(text, 65_536).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn sizes_round_trip(all in proptest::collection::vec(0..4_u32, 1..50)) {
            let mut sizes = Sizes::default();
            for size in &all {
                sizes.push(*size);
            }
            prop_assert_eq!(sizes.each().collect::<Vec<_>>(), all);
            prop_assert_eq!(Sizes::decode(&sizes.encode(), 3), Ok(sizes));
        }
    }
}
