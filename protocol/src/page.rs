//! Data pages: their header and checksum.
//!
//! A relation file is a sequence of 8192-byte blocks (`BLCKSZ`). Since 9.3 a cluster can keep a checksum in every page header
//! (`initdb --data-checksums`); BASE_BACKUP verifies it while it reads.

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;

/// `BLCKSZ`: bytes in a block.
pub const BLOCK_SIZE: usize = 8192;

/// Blocks in one file of a relation (`RELSEG_SIZE`): 1 GiB. Block numbers continue from one file to the next.
pub const BLOCKS_PER_FILE: u32 = 131_072;

/// Bytes in a page header (`SizeOfPageHeaderData`).
pub const HEADER_SIZE: usize = 24;

/// `pd_pagesize_version` of every release since 8.3: 8192 bytes, layout version 4.
pub const PAGE_SIZE_VERSION: u16 = 0x2004;

/// Where `pd_checksum` lies.
const CHECKSUM_AT: usize = 8;

const PRIME: u32 = 16_777_619;

/// `checksumBaseOffsets`.
#[rustfmt::skip]
const OFFSETS: [u32; 32] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

fn mix(sums: &mut [u32; 32], words: &[u32; 32]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

/// `pg_checksum_page`: the checksum of `page` as block number `block` of its relation (file number × 131072 + block in the
/// file). What stands in the checksum field is ignored.
pub fn checksum(page: &[u8; BLOCK_SIZE], block: u32) -> u16 {
    finish(fold(&columns(page)), block)
}

/// The sums of the 32 columns.
fn columns(page: &[u8; BLOCK_SIZE]) -> [u32; 32] {
    let mut sums = OFFSETS;
    let mut words = [0; 32];
    for (row, bytes) in page.chunks_exact(4 * 32).enumerate() {
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = (&mut &*bytes).get_u32_le();
        }
        if row == 0 {
            // `pd_checksum` is the low half of the third word.
            words[CHECKSUM_AT / 4] &= 0xFFFF_0000;
        }
        mix(&mut sums, &words);
    }
    mix(&mut sums, &[0; 32]);
    mix(&mut sums, &[0; 32]);
    sums
}

fn fold(sums: &[u32]) -> u32 {
    sums.iter().fold(0, |folded, sum| folded ^ sum)
}

/// The checksum of a block whose folded sums these are.
fn finish(folded: u32, block: u32) -> u16 {
    // A remainder of 65535 plus one fits.
    u16::try_from((folded ^ block) % 65535 + 1).unwrap_or(u16::MAX)
}

/// Sets the checksum of `page`, which will be block number `block`.
pub fn set_checksum(page: &mut [u8; BLOCK_SIZE], block: u32) {
    let sum = checksum(page, block).to_le_bytes();
    page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
}

/// Sets the position at which `page` was changed last, and nothing else.
pub fn set_lsn(page: &mut [u8; BLOCK_SIZE], lsn: Lsn) {
    page[..8].copy_from_slice(&lsn.0.rotate_left(32).to_le_bytes());
}

/// The checksum of every page that is like one but for its position and eight bytes in a tuple: a page is summed in 32 columns, each four
/// bytes wide, and only the first two of them have to be looked at again.
#[derive(Clone, Copy, Debug)]
pub struct PartialChecksum {
    /// The other columns, already folded.
    rest: u32,
}

impl PartialChecksum {
    /// Bytes of a row, one word of each column. A page may differ in the first eight bytes of every row; those of the first are its position.
    pub const STRIDE: usize = 4 * 32;

    /// What `page` has in common with those that are to come.
    pub fn of(page: &[u8; BLOCK_SIZE]) -> Self {
        Self { rest: fold(&columns(page)[2..]) }
    }

    /// Sets the checksum of `page`, which will be block number `block`.
    pub fn set(self, page: &mut [u8; BLOCK_SIZE], block: u32) {
        let [mut one, mut two, ..] = OFFSETS;
        let step = |sum: u32, word: u32| {
            let mixed = sum ^ word;
            mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
        };
        for row in page.as_chunks::<{ Self::STRIDE }>().0 {
            let mut words = row.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
            one = step(one, words.next().unwrap_or_default());
            two = step(two, words.next().unwrap_or_default());
        }
        for _ in 0..2 {
            (one, two) = (step(one, 0), step(two, 0));
        }
        let sum = finish(self.rest ^ one ^ two, block).to_le_bytes();
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
    }
}

/// What a look at a page's checksum tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCheck {
    /// `PageIsNew`: `pd_upper` is 0; such a page has no checksum.
    New,
    /// The checksum is right.
    Ok,
    /// The checksum is wrong.
    Mismatch {
        /// What the page and the block number give.
        calculated: u16,
        /// What the header says.
        expected: u16,
    },
}

/// Verifies the checksum of `page` as block number `block`, as BASE_BACKUP does. The caller leaves out what the server
/// leaves out: pages whose LSN is not older than the start of the backup.
pub fn verify(page: &[u8; BLOCK_SIZE], block: u32) -> PageCheck {
    let header = PageHeader::parse(page);
    if header.upper == 0 {
        return PageCheck::New;
    }
    let calculated = checksum(page, block);
    let expected = header.checksum;
    if calculated == expected { PageCheck::Ok } else { PageCheck::Mismatch { calculated, expected } }
}

/// `PageHeaderData`, the first 24 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// `pd_lsn`: the end of the WAL record that changed the page last.
    pub lsn: Lsn,
    /// `pd_checksum`.
    pub checksum: u16,
    /// `pd_flags`.
    pub flags: u16,
    /// `pd_lower`: where free space begins.
    pub lower: u16,
    /// `pd_upper`: where free space ends; 0 in a page that was never initialised.
    pub upper: u16,
    /// `pd_special`: where the access method's own space begins.
    pub special: u16,
    /// `pd_pagesize_version`: [`PAGE_SIZE_VERSION`].
    pub page_size_version: u16,
    /// `pd_prune_xid`.
    pub prune_xid: u32,
}

impl PageHeader {
    /// The header of an initialised page that holds nothing yet, last changed at `lsn`, without a checksum.
    pub fn empty(lsn: Lsn) -> Self {
        Self {
            lsn,
            checksum: 0,
            flags: 0,
            lower: 24,
            upper: 8192,
            special: 8192,
            page_size_version: PAGE_SIZE_VERSION,
            prune_xid: 0,
        }
    }

    /// Reads `pd_lsn`, the first eight bytes of a page: two halves, the upper one first.
    pub(crate) fn lsn(input: &mut impl Buf) -> Lsn {
        let high = u64::from(input.get_u32_le());
        Lsn(high << 32 | u64::from(input.get_u32_le()))
    }

    /// Reads the header of `page`. Every content is a header; whether it makes sense is for [`verify`] to say.
    pub fn parse(page: &[u8; BLOCK_SIZE]) -> Self {
        let mut input = &page[..HEADER_SIZE];
        Self {
            lsn: Self::lsn(&mut input),
            checksum: input.get_u16_le(),
            flags: input.get_u16_le(),
            lower: input.get_u16_le(),
            upper: input.get_u16_le(),
            special: input.get_u16_le(),
            page_size_version: input.get_u16_le(),
            prune_xid: input.get_u32_le(),
        }
    }

    /// Writes the header to the beginning of `page`.
    pub fn write(&self, page: &mut [u8; BLOCK_SIZE]) {
        let mut output = &mut page[..HEADER_SIZE];
        // A u64 is its two halves here, the higher first.
        output.put_u64_le(self.lsn.0.rotate_left(32));
        output.put_u16_le(self.checksum);
        output.put_u16_le(self.flags);
        output.put_u16_le(self.lower);
        output.put_u16_le(self.upper);
        output.put_u16_le(self.special);
        output.put_u16_le(self.page_size_version);
        output.put_u32_le(self.prune_xid);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_recorded_header() {
        // The first page of a table on 18.
        let recorded = [0, 0, 0, 0, 0xF0, 0x75, 0x76, 1, 0xBA, 7, 0, 0, 0xA0, 3, 0xC0, 3, 0, 0x20, 4, 0x20, 0, 0, 0, 0];
        let mut page = [0; BLOCK_SIZE];
        page[..24].copy_from_slice(&recorded);
        let header = PageHeader::parse(&page);
        let expected = PageHeader { checksum: 1978, lower: 928, upper: 960, ..PageHeader::empty(Lsn(0x176_75F0)) };
        assert_eq!(header, expected);
        let mut again = [0; BLOCK_SIZE];
        header.write(&mut again);
        assert_eq!(again, page);
    }

    /// Values of an independent implementation that was checked against real pages of 12 to 18.
    #[test]
    fn sums_as_postgresql_does() {
        let mut page = [0; BLOCK_SIZE];
        assert_eq!([checksum(&page, 0), checksum(&page, 1), checksum(&page, 131_072)], [50_858, 50_859, 50_856]);
        for (index, byte) in page.iter_mut().enumerate() {
            *byte = u8::try_from(index * 7 % 256).unwrap();
        }
        assert_eq!([checksum(&page, 0), checksum(&page, 4_294_967_295)], [45_186, 20_351]);
    }

    #[test]
    fn a_new_page_has_no_checksum() {
        assert_eq!(verify(&[0; BLOCK_SIZE], 7), PageCheck::New);
    }

    proptest! {
        #[test]
        fn a_partial_checksum_is_the_whole_one(seed: u64, lsn: u64, own: u64, row in 1..64_usize, block: u32) {
            let mut page = [0; BLOCK_SIZE];
            let words = page.chunks_exact_mut(8).zip(1_u64..);
            words.for_each(|(bytes, index)| bytes.copy_from_slice(&seed.wrapping_mul(index | 1).to_le_bytes()));
            let partial = PartialChecksum::of(&page);
            set_lsn(&mut page, Lsn(lsn));
            let at = row * PartialChecksum::STRIDE;
            page[at..at + 8].copy_from_slice(&own.to_le_bytes());
            let expected = checksum(&page, block);
            partial.set(&mut page, block);
            let header = PageHeader::parse(&page);
            prop_assert_eq!((header.checksum, header.lsn), (expected, Lsn(lsn)));
        }

        /// All but one in 65,535, as a sum of 16 bits must.
        #[test]
        fn flipped_bytes_are_seen(
            seed: [u8; 32], block: u32, flips in proptest::collection::vec((0..BLOCK_SIZE, 1_u8..), 16)
        ) {
            let mut page = [0; BLOCK_SIZE];
            for (index, byte) in page.iter_mut().enumerate() {
                *byte = seed[index % 32] ^ seed[index / 32 % 32];
            }
            PageHeader::empty(Lsn(0x123_4567)).write(&mut page);
            set_checksum(&mut page, block);
            prop_assert_eq!(verify(&page, block), PageCheck::Ok);
            let unseen = flips.into_iter().filter(|(at, flip)| {
                let mut damaged = page;
                damaged[*at] ^= flip;
                verify(&damaged, block) == PageCheck::Ok
            });
            prop_assert!(unseen.count() < 2);
        }

        #[test]
        fn headers_round_trip(bytes: [u8; 24]) {
            let mut page = [0; BLOCK_SIZE];
            page[..24].copy_from_slice(&bytes);
            let mut again = [0; BLOCK_SIZE];
            PageHeader::parse(&page).write(&mut again);
            prop_assert_eq!(again, page);
        }
    }
}
