//! WAL pages: every 8192 bytes of WAL begin with a header of 24 bytes, every segment with one of 40.
//!
//! [`Layout`] counts in *usable* bytes, those that are not headers (`XLogRecPtrToBytePos`): there a record is in one piece and
//! the next one follows at once.

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::wal_file::WalSegmentSize;

/// `XLOG_BLCKSZ`.
pub const WAL_PAGE_SIZE: u64 = 8192;
/// `SizeOfXLogShortPHD`.
pub const SHORT_HEADER_SIZE: usize = 24;
/// `SizeOfXLogLongPHD`.
pub const LONG_HEADER_SIZE: usize = 40;

/// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of a record.
pub const FIRST_IS_CONTRECORD: u16 = 0x1;
/// `XLP_LONG_HEADER`: the header is a long one.
pub const LONG_HEADER: u16 = 0x2;
/// `XLP_BKP_REMOVABLE`: full-page images may be left out of an archive; set when no backup is running.
pub const BKP_REMOVABLE: u16 = 0x4;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: the record that the page should continue was never finished.
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x8;
/// `XLP_ALL_FLAGS`.
pub const ALL_FLAGS: u16 = 0xF;

/// `XLogPageHeaderData`, with `XLogLongPageHeaderData` if it is the first of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPageHeader {
    /// `xlp_magic`: one number for each release.
    pub magic: u16,
    /// `xlp_info` without [`LONG_HEADER`].
    pub info: u16,
    /// `xlp_tli`: the timeline of the first record on the page.
    pub timeline: TimelineId,
    /// `xlp_pageaddr`.
    pub address: Lsn,
    /// `xlp_rem_len`: how many bytes are left of the record that the page continues, all of them.
    pub remaining: u32,
    /// The rest of a long header.
    pub long: Option<LongHeader>,
}

/// What a long header adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader {
    /// `xlp_sysid`.
    pub system_identifier: u64,
    /// `xlp_seg_size`.
    pub segment_size: u32,
    /// `xlp_xlog_blcksz`.
    pub page_size: u32,
}

impl WalPageHeader {
    /// Bytes of a header with these `xlp_info` bits.
    pub fn size_of(info: u16) -> usize {
        if info & LONG_HEADER == 0 { SHORT_HEADER_SIZE } else { LONG_HEADER_SIZE }
    }

    /// Reads the header at the beginning of `bytes`, or nothing if they are fewer than it has. Every content is a header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes.get(..SHORT_HEADER_SIZE)?;
        let magic = input.get_u16_le();
        let info = input.get_u16_le();
        let timeline = TimelineId(input.get_u32_le());
        let address = Lsn(input.get_u64_le());
        let remaining = input.get_u32_le();
        let long = if info & LONG_HEADER == 0 {
            None
        } else {
            let mut input = bytes.get(SHORT_HEADER_SIZE..LONG_HEADER_SIZE)?;
            let system_identifier = input.get_u64_le();
            let segment_size = input.get_u32_le();
            Some(LongHeader { system_identifier, segment_size, page_size: input.get_u32_le() })
        };
        Some(Self { magic, info: info & !LONG_HEADER, timeline, address, remaining, long })
    }

    /// The header's 24 or 40 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut output = Vec::with_capacity(LONG_HEADER_SIZE);
        output.put_u16_le(self.magic);
        output.put_u16_le(self.info | if self.long.is_some() { LONG_HEADER } else { 0 });
        output.put_u32_le(self.timeline.0);
        output.put_u64_le(self.address.0);
        output.put_u32_le(self.remaining);
        output.put_u32_le(0);
        if let Some(long) = self.long {
            output.put_u64_le(long.system_identifier);
            output.put_u32_le(long.segment_size);
            output.put_u32_le(long.page_size);
        }
        output
    }
}

/// Where usable bytes lie among headers, for one segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout(pub WalSegmentSize);

const SHORT: u64 = SHORT_HEADER_SIZE as u64;
const LONG: u64 = LONG_HEADER_SIZE as u64;
/// `UsableBytesInPage`.
const USABLE_IN_PAGE: u64 = WAL_PAGE_SIZE - SHORT;

impl Layout {
    /// `UsableBytesInSegment`.
    pub fn usable_in_segment(self) -> u64 {
        self.0.bytes() / WAL_PAGE_SIZE * USABLE_IN_PAGE - (LONG - SHORT)
    }

    /// Bytes of the header of the page that begins at `page`.
    pub fn header_size(self, page: Lsn) -> u64 {
        if self.0.offset_of(page) == 0 { LONG } else { SHORT }
    }

    /// `XLogRecPtrToBytePos`: how many usable bytes there are before `lsn`. A position inside a header counts as the end of
    /// that header.
    pub fn usable(self, lsn: Lsn) -> u64 {
        let page = lsn.align_down(WAL_PAGE_SIZE);
        let offset = self.0.offset_of(page);
        let before = match offset / WAL_PAGE_SIZE {
            0 => 0,
            pages => pages * USABLE_IN_PAGE - (LONG - SHORT),
        };
        let segment = self.0.segment_of(lsn);
        segment * self.usable_in_segment() + before + (lsn - page).saturating_sub(self.header_size(page))
    }

    /// `XLogBytePosToRecPtr`: where the usable byte number `usable` lies; where a record that begins there begins.
    pub fn start(self, usable: u64) -> Lsn {
        let end = self.end(usable);
        if end.0.is_multiple_of(WAL_PAGE_SIZE) { end + self.header_size(end) } else { end }
    }

    /// `XLogBytePosToEndRecPtr`: the end of what ends before the usable byte number `usable`. At the end of a page it is the
    /// page's end, not behind the next page's header.
    pub fn end(self, usable: u64) -> Lsn {
        let segment = self.0.start_of(usable / self.usable_in_segment());
        let rest = usable % self.usable_in_segment();
        if rest == 0 {
            return segment;
        }
        // As if the first header were a short one, too.
        let rest = rest + (LONG - SHORT);
        let in_page = rest % USABLE_IN_PAGE;
        let pages = segment + rest / USABLE_IN_PAGE * WAL_PAGE_SIZE;
        if in_page == 0 { pages } else { pages + SHORT + in_page }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_those_of_a_recorded_segment() {
        let header = WalPageHeader {
            magic: 0xD118,
            info: BKP_REMOVABLE,
            timeline: TimelineId(1),
            address: Lsn(0x300_0000),
            remaining: 0,
            long: Some(LongHeader {
                system_identifier: 7_710_437_665_680_982_376,
                segment_size: 16 << 20,
                page_size: 8192,
            }),
        };
        let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "18d1060001000000000000030000000000000000000000006801b58d34fa006b0000000100200000");
        let second = WalPageHeader {
            info: FIRST_IS_CONTRECORD | BKP_REMOVABLE,
            address: Lsn(0x100_2000),
            remaining: 0xD1,
            long: None,
            ..header
        };
        let hex: String = second.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "18d10500010000000020000100000000d100000000000000");
    }

    #[test]
    fn usable_bytes_skip_headers() {
        let layout = Layout(WalSegmentSize::DEFAULT);
        assert_eq!(layout.usable_in_segment(), 2048 * 8168 - 16);
        let usable = layout.usable(Lsn(0x200_0028));
        assert_eq!(usable, 2 * layout.usable_in_segment());
        assert_eq!((layout.start(usable), layout.end(usable)), (Lsn(0x200_0028), Lsn(0x200_0000)));
        let page_end = usable + 8152;
        assert_eq!((layout.start(page_end), layout.end(page_end)), (Lsn(0x200_2018), Lsn(0x200_2000)));
        assert_eq!(layout.end(page_end + 8168), Lsn(0x200_4000));
        assert_eq!(layout.end(page_end + 1), Lsn(0x200_2019));
    }

    proptest! {
        #[test]
        fn positions_round_trip(lsn in 0..1_u64 << 62, power in 20_u32..=30) {
            let layout = Layout(WalSegmentSize::new(1 << power).unwrap());
            let usable = layout.usable(Lsn(lsn));
            prop_assert_eq!(layout.usable(layout.start(usable)), usable);
            prop_assert_eq!(layout.usable(layout.end(usable)), usable);
            let page = Lsn(lsn).align_down(WAL_PAGE_SIZE);
            if Lsn(lsn) - page >= layout.header_size(page) {
                prop_assert_eq!(layout.start(usable), Lsn(lsn));
            }
        }

        #[test]
        fn headers_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            if let Some(header) = WalPageHeader::decode(&bytes) {
                prop_assert_eq!(WalPageHeader::decode(&header.encode()), Some(header));
            } else {
                prop_assert!(bytes.len() < LONG_HEADER_SIZE);
            }
        }
    }
}
