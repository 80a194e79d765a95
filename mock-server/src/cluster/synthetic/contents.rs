//! Contents of synthetic relations: pages that are a function of the seed, the file and the block number.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{self, BLOCK_SIZE, BLOCKS_PER_FILE, PageHeader};

use super::change::Rhythm;
use super::image::Image;
use super::life::Life;

/// Bytes in one file of a relation.
pub(in super::super) const SEGMENT_BYTES: u64 = BLOCK_SIZE as u64 * BLOCKS_PER_FILE as u64;

/// Increment and finaliser of `SplitMix64`: any word of the sequence can be computed by itself.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes a number so that every bit of it matters to every bit of the result.
pub(in super::super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A key for `name` in the cluster that `seed` makes.
pub(in super::super) fn key(seed: u64, name: &[u8]) -> u64 {
    // FNV-1a over the name, from a start that the seed decides.
    let hash =
        name.iter().fold(mix(seed ^ GOLDEN), |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    mix(hash)
}

/// Word number `index` of the sequence that `key` begins.
pub(super) fn word(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(GOLDEN.wrapping_mul(index.wrapping_add(1))))
}

/// What the pages of a fork look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Layout {
    /// Line pointers and tuples; now and then a page that was never initialised.
    Heap,
    /// As a heap page, with 16 bytes of special space (`BTPageOpaqueData`).
    Index,
    /// A header and a body without structure: free space and visibility maps.
    Map,
}

/// One file of a relation's fork, at most 1 GiB of its pages.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Pages {
    /// The fork's, the same for all of its files.
    pub(super) key: u64,
    pub(super) layout: Layout,
    /// The fork's block with which this file begins.
    pub(super) first_block: u32,
    pub(super) checksums: bool,
    /// Page LSNs lie from here …
    pub(super) oldest_lsn: Lsn,
    /// … to before here, unless the page changed later.
    pub(super) newest_lsn: Lsn,
    pub(super) rhythm: Rhythm,
    /// Every how many generations each block changes; 0: never.
    pub(super) every: u64,
    /// Of a relation that does not keep its size; it changes in no other way.
    pub(super) life: Option<Life>,
    /// As of which generation the file is read.
    pub(super) generation: u64,
}

impl Pages {
    /// Fills `buf` with the file's bytes from `offset`.
    pub(in super::super) fn read(&self, offset: u64, buf: &mut [u8]) {
        let block_size = BLOCK_SIZE as u64;
        let mut block = offset / block_size;
        let mut skip = usize::try_from(offset % block_size).unwrap_or(0);
        let mut page = [0; BLOCK_SIZE];
        let mut rest = buf;
        while !rest.is_empty() {
            let number = self.first_block.saturating_add(u32::try_from(block).unwrap_or(u32::MAX));
            block += 1;
            let (piece, after) = rest.split_at_mut(rest.len().min(BLOCK_SIZE - skip));
            if let Some(whole) = piece.first_chunk_mut() {
                self.fill(number, whole);
            } else {
                self.fill(number, &mut page);
                piece.copy_from_slice(&page[skip..skip + piece.len()]);
            }
            rest = after;
            skip = 0;
        }
    }

    /// Writes the blocks in `buf`, which begins at `offset`, anew: with other tuples, this position, and their checksum.
    pub(in super::super) fn rewrite(&self, lsn: Lsn, offset: u64, buf: &mut [u8]) {
        let first = u32::try_from(offset / BLOCK_SIZE as u64).unwrap_or(u32::MAX);
        for (number, page) in (first..).zip(buf.chunks_mut(BLOCK_SIZE)) {
            let Some(page) = page.first_chunk_mut::<BLOCK_SIZE>() else { return };
            let header = PageHeader::parse(page);
            if header.upper == 0 {
                continue;
            }
            let tuples = usize::from(header.upper)..usize::from(header.special);
            page.get_mut(tuples).unwrap_or_default().iter_mut().for_each(|byte| *byte = !*byte);
            PageHeader { lsn, ..header }.write(page);
            if self.checksums {
                page::set_checksum(page, self.first_block.saturating_add(number));
            }
        }
    }

    /// The numbers of the blocks, of `count` in this file, that changed after the generation of `since`, ascending.
    pub(in super::super) fn changed_since(&self, since: Lsn, count: u32) -> Vec<u32> {
        let since = self.rhythm.generation(since);
        let changed = |block: &u32| self.last_change(self.first_block.saturating_add(*block)) > Some(since);
        let changes = self.every > 0 || self.life.is_some();
        if changes { (0..count).filter(changed).collect() } else { Vec::new() }
    }

    /// To how many blocks the relation was truncated after the generation of `since`, if it was.
    pub(in super::super) fn truncated_since(&self, since: Lsn) -> Option<u32> {
        let (age, blocks) = self.life?.truncated(self.rhythm.age(self.generation))?;
        (self.rhythm.at_age(age) > self.rhythm.generation(since)).then_some(blocks)
    }

    /// The generation in which block `block` of the fork changed last, if it did.
    fn last_change(&self, block: u32) -> Option<u64> {
        if let Some(life) = self.life {
            let age = life.written(self.rhythm.age(self.generation), block);
            return (age > 0).then(|| self.rhythm.at_age(age));
        }
        self.rhythm.last_change(self.every, mix(word(self.key, block.into()) ^ 4), self.generation)
    }

    /// Makes block `block` of the fork.
    fn fill(&self, block: u32, page: &mut [u8; BLOCK_SIZE]) {
        let original = word(self.key, block.into());
        let (key, lsn) = if let Some(generation) = self.last_change(block) {
            let key = word(original, generation);
            (key, self.rhythm.lsn(generation, mix(key ^ 1)))
        } else {
            if self.layout == Layout::Heap && block > 0 && original.is_multiple_of(97) {
                page.fill(0);
                return;
            }
            let span = self.newest_lsn.0.saturating_sub(self.oldest_lsn.0).max(8);
            (original, Lsn(self.oldest_lsn.0 + mix(original ^ 1) % span).align_down(8))
        };
        if let Some(image) = Image::of(self.layout, key) {
            image.fill(page, lsn, key, self.checksums.then_some(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::page::{PageCheck, verify};
    use backstop_protocol::wal_file::WalSegmentSize;
    use proptest::prelude::*;

    use super::*;

    fn pages(layout: Layout, first_block: u32) -> Pages {
        let key = key(7, b"base/5/1259");
        let newest_lsn = Lsn(0x200_0000);
        let rhythm = Rhythm::new(20, WalSegmentSize::DEFAULT, newest_lsn);
        let (oldest_lsn, checksums) = (Lsn(0x100_0028), true);
        Pages {
            key,
            layout,
            first_block,
            checksums,
            oldest_lsn,
            newest_lsn,
            rhythm,
            every: 0,
            life: None,
            generation: 2,
        }
    }

    #[test]
    fn a_block_changes_with_its_lsn_and_only_when_it_is_said_to() {
        let read = |generation: u64, block: u32| {
            let mut page = [0; BLOCK_SIZE];
            let pages = Pages { every: 5, generation, ..pages(Layout::Heap, BLOCKS_PER_FILE) };
            pages.read(u64::from(block) * BLOCK_SIZE as u64, &mut page);
            page
        };
        for (before, after) in [(2, 3), (3, 4), (3, 6), (2, 40)] {
            let pages = Pages { every: 5, generation: after, ..pages(Layout::Heap, BLOCKS_PER_FILE) };
            let since = WalSegmentSize::DEFAULT.start_of(before) + 0x28;
            let changed = pages.changed_since(since, 200);
            assert!(after == 40 && changed.len() == 200 || (30..190).contains(&changed.len()), "{}", changed.len());
            for block in 0..200 {
                let (old, new) = (read(before, block), read(after, block));
                assert_eq!(old != new, changed.contains(&block), "block {block} from {before} to {after}");
                if old != new {
                    assert_eq!(verify(&new, BLOCKS_PER_FILE + block), PageCheck::Ok);
                    let lsn = PageHeader::parse(&new).lsn;
                    assert!(lsn > since && lsn < WalSegmentSize::DEFAULT.start_of(after), "{lsn}");
                }
            }
        }
    }

    #[test]
    fn pages_are_valid_and_old() {
        for layout in [Layout::Heap, Layout::Index, Layout::Map] {
            let mut new = 0;
            for block in 0..300 {
                let mut page = [0; BLOCK_SIZE];
                pages(layout, BLOCKS_PER_FILE).read(block * BLOCK_SIZE as u64, &mut page);
                let number = BLOCKS_PER_FILE + u32::try_from(block).expect("small");
                match verify(&page, number) {
                    PageCheck::New => new += 1,
                    check => assert_eq!(check, PageCheck::Ok, "block {number} of {layout:?}"),
                }
                let header = PageHeader::parse(&page);
                assert!(header.lsn < Lsn(0x200_0000));
                assert!(header.lower <= header.upper && header.upper <= header.special);
            }
            assert_eq!(new > 0, layout == Layout::Heap);
        }
    }

    #[test]
    fn checksums_can_be_off() {
        let mut page = [0; BLOCK_SIZE];
        Pages { checksums: false, ..pages(Layout::Heap, 0) }.read(0, &mut page);
        assert_eq!(PageHeader::parse(&page).checksum, 0);
    }

    #[test]
    fn blocks_and_files_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..4 {
            for name in ["base/1/1259", "base/4/1259", "base/1/1259_fsm"] {
                let mut bytes = vec![0; 8 * BLOCK_SIZE];
                Pages { key: key(seed, name.as_bytes()), ..pages(Layout::Map, 0) }.read(0, &mut bytes);
                for page in bytes.chunks(BLOCK_SIZE) {
                    assert!(seen.insert(page.to_vec()), "{name} with seed {seed}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_part_equals_the_whole(offset in 0..40_000_usize, length in 0..20_000_usize) {
            let pages = pages(Layout::Index, 5);
            let mut whole = vec![0; 60_000];
            pages.read(0, &mut whole);
            let mut part = vec![0; length];
            pages.read(offset as u64, &mut part);
            prop_assert_eq!(&part[..], &whole[offset..offset + length]);
        }
    }
}
