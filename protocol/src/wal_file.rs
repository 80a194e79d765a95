//! Names of the files in `pg_wal`.

use std::fmt;
use std::str::FromStr;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// The size of a WAL segment in bytes: a power of two from 1 MiB to 1 GiB (`initdb --wal-segsize`, since 11; 16 MiB before).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// 16 MiB, what `initdb` chooses.
    pub const DEFAULT: Self = Self(16 << 20);

    /// A segment size of `bytes`, or nothing if PostgreSQL would refuse it.
    pub fn new(bytes: u64) -> Option<Self> {
        let valid = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        valid.then(|| u32::try_from(bytes).ok().map(Self)).flatten()
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments in four gigabytes of WAL: what one value of the middle eight digits of a file name covers.
    pub fn segments_per_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// The number of the segment that holds the byte at `lsn`.
    pub fn segment_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// The number of the segment that holds the last byte before `lsn`: the one that ends at, or holds, an end position.
    pub fn segment_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    /// The first position of segment `segment`.
    pub fn start_of(self, segment: u64) -> Lsn {
        Lsn(segment.saturating_mul(self.bytes()))
    }

    /// The offset of `lsn` in its segment.
    pub fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 % self.bytes()
    }

    /// `lsn` rounded down to the start of its segment, where streaming begins.
    #[must_use]
    pub fn round_down(self, lsn: Lsn) -> Lsn {
        lsn.align_down(self.bytes())
    }

    /// As `SHOW wal_segment_size` prints it: `16MB`, `1GB`.
    pub fn setting(self) -> String {
        match self.0 >> 20 {
            1024 => "1GB".to_owned(),
            megabytes => format!("{megabytes}MB"),
        }
    }
}

impl Default for WalSegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The name of a WAL segment file: `%08X%08X%08X` of the timeline, the segment number divided by
/// [segments per id](WalSegmentSize::segments_per_id), and the rest of that division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalFileName {
    /// The timeline that wrote the segment.
    pub timeline: TimelineId,
    /// The middle eight digits.
    pub id: u32,
    /// The last eight digits.
    pub part: u32,
}

impl WalFileName {
    /// The file of segment number `segment` on `timeline`. Positions end before segment numbers can leave 32 bits of id.
    pub fn new(timeline: TimelineId, segment: u64, size: WalSegmentSize) -> Self {
        let per_id = size.segments_per_id();
        let low = |value: u64| u32::try_from(value & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        Self { timeline, id: low(segment / per_id), part: low(segment % per_id) }
    }

    /// The file that holds the byte at `lsn`.
    pub fn holding(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> Self {
        Self::new(timeline, size.segment_of(lsn), size)
    }

    /// The segment number that the name stands for, or nothing if no such segment exists at this size.
    pub fn segment(self, size: WalSegmentSize) -> Option<u64> {
        let per_id = size.segments_per_id();
        (u64::from(self.part) < per_id).then(|| u64::from(self.id) * per_id + u64::from(self.part))
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.id, self.part)
    }
}

/// A text that is not the name of a WAL segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL file name {0:?}: expected 24 upper-case hexadecimal digits such as \"000000010000000000000003\"")]
pub struct InvalidWalFileName(pub String);

impl FromStr for WalFileName {
    type Err = InvalidWalFileName;

    fn from_str(name: &str) -> Result<Self, InvalidWalFileName> {
        let field = |range| name.get(range).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let plain = name.len() == 24 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        plain
            .then(|| Some(Self { timeline: TimelineId(field(0..8)?), id: field(8..16)?, part: field(16..24)? }))
            .flatten()
            .ok_or_else(|| InvalidWalFileName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment_size() -> impl Strategy<Value = WalSegmentSize> {
        (20_u32..=30).prop_map(|power| WalSegmentSize::new(1 << power).expect("a valid size"))
    }

    #[test]
    fn names_segments_as_postgresql_does() {
        let name =
            |lsn: &str, size| WalFileName::holding(TimelineId(1), lsn.parse().expect("an LSN"), size).to_string();
        assert_eq!(name("0/3000028", WalSegmentSize::DEFAULT), "000000010000000000000003");
        assert_eq!(name("FF/FF000000", WalSegmentSize::DEFAULT), "00000001000000FF000000FF");
        assert_eq!(name("100/0", WalSegmentSize::DEFAULT), "000000010000010000000000");
        assert_eq!(name("0/FFF00000", WalSegmentSize::new(1 << 20).expect("1 MiB")), "000000010000000000000FFF");
        assert_eq!(name("1/C0000000", WalSegmentSize::new(1 << 30).expect("1 GiB")), "000000010000000100000003");
    }

    #[test]
    fn refuses_sizes_that_initdb_refuses() {
        for bytes in [0, 1 << 19, 3 << 20, 1 << 31, (1 << 24) + 1] {
            assert_eq!(WalSegmentSize::new(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn shows_its_setting() {
        let setting = |bytes| WalSegmentSize::new(bytes).expect("a valid size").setting();
        assert_eq!([setting(1 << 20), setting(16 << 20), setting(1 << 30)], ["1MB", "16MB", "1GB"]);
    }

    #[test]
    fn an_end_position_on_a_boundary_belongs_to_the_segment_before() {
        let size = WalSegmentSize::DEFAULT;
        assert_eq!(size.segment_before(Lsn(0x300_0000)), 2);
        assert_eq!(size.segment_before(Lsn(0x300_0001)), 3);
    }

    #[test]
    fn refuses_other_names() {
        for name in
            ["", "00000001000000000000000", "00000001000000000000000a", "00000001.history", "00000001000000000000000G"]
        {
            assert!(name.parse::<WalFileName>().is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(timeline: u32, lsn: u64, size in segment_size()) {
            let name = WalFileName::holding(TimelineId(timeline), Lsn(lsn), size);
            prop_assert_eq!(name.to_string().parse::<WalFileName>(), Ok(name));
            prop_assert_eq!(name.segment(size), Some(size.segment_of(Lsn(lsn))));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,30}", size in segment_size()) {
            let _ = text.parse::<WalFileName>().map(|name| name.segment(size));
        }
    }
}
