//! What pages look like: a few images of each layout, of which every page of every cluster is one.
//!
//! Computing a page from nothing costs more than sending it. So a page is a copy of an image with its own position, its own eight
//! bytes and the checksum that follows from them.

use std::sync::LazyLock;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{self, BLOCK_SIZE, PageHeader, PartialChecksum};

use super::contents::{Layout, mix, word};

/// Images of each layout.
const VARIANTS: u64 = 16;

/// Where a page has its own eight bytes: in its last tuple, and where the checksum does not cost much.
const OWN: usize = BLOCK_SIZE - PartialChecksum::STRIDE;

/// All of them. They depend on nothing.
static IMAGES: LazyLock<[Vec<Image>; 3]> = LazyLock::new(|| {
    [Layout::Heap, Layout::Index, Layout::Map].map(|layout| (0..VARIANTS).map(|key| Image::new(layout, key)).collect())
});

/// A page without its position, its own bytes and its checksum.
pub(super) struct Image {
    bytes: [u8; BLOCK_SIZE],
    sum: PartialChecksum,
}

impl Image {
    /// The image that `key` chooses.
    pub(super) fn of(layout: Layout, key: u64) -> Option<&'static Self> {
        let [heap, index, map] = &*IMAGES;
        let images = match layout {
            Layout::Heap => heap,
            Layout::Index => index,
            Layout::Map => map,
        };
        images.get(usize::try_from(key % VARIANTS).unwrap_or(0))
    }

    fn new(layout: Layout, variant: u64) -> Self {
        let key = mix(variant + 1);
        let mut bytes = [0; BLOCK_SIZE];
        let special = if layout == Layout::Index { BLOCK_SIZE - 16 } else { BLOCK_SIZE };
        let (lower, upper) = match layout {
            Layout::Map => (page::HEADER_SIZE, page::HEADER_SIZE),
            Layout::Heap | Layout::Index => line_pointers(key, special, &mut bytes),
        };
        for (index, bytes) in (0..).zip(bytes[upper..].chunks_mut(8)) {
            bytes.copy_from_slice(&word(key, index).to_le_bytes()[..bytes.len()]);
        }
        let short = |offset: usize| u16::try_from(offset).unwrap_or(u16::MAX);
        let upper = if layout == Layout::Map { special } else { upper };
        let (lower, upper, special) = (short(lower), short(upper), short(special));
        PageHeader { lower, upper, special, ..PageHeader::empty(Lsn(0)) }.write(&mut bytes);
        Self { sum: PartialChecksum::of(&bytes), bytes }
    }

    /// Makes block `block` of it, which was changed at `lsn` and is told from others by `own`.
    pub(super) fn fill(&self, page: &mut [u8; BLOCK_SIZE], lsn: Lsn, own: u64, checksummed: Option<u32>) {
        page.copy_from_slice(&self.bytes);
        page::set_lsn(page, lsn);
        page[OWN..OWN + 8].copy_from_slice(&own.to_le_bytes());
        if let Some(block) = checksummed {
            self.sum.set(page, block);
        }
    }
}

/// Writes line pointers (`ItemIdData`) for tuples of one length that lie before `special`, and returns where they end and
/// where the tuples begin.
fn line_pointers(key: u64, special: usize, page: &mut [u8; BLOCK_SIZE]) -> (usize, usize) {
    /// `LP_NORMAL`.
    const NORMAL: u32 = 1;
    let choice = |index: u64, limit: u64| usize::try_from(mix(key ^ index) % limit).unwrap_or(0);
    let length = 40 + 8 * choice(2, 24);
    let most = (special - page::HEADER_SIZE) / (length + 4);
    let count = most - choice(3, 1 + most as u64 / 4);
    for item in 0..count {
        let offset = special - (item + 1) * length;
        let bits = u32::try_from(offset | length << 17).unwrap_or(0) | NORMAL << 15;
        let at = page::HEADER_SIZE + 4 * item;
        page[at..at + 4].copy_from_slice(&bits.to_le_bytes());
    }
    (page::HEADER_SIZE + 4 * count, special - count * length)
}
