//! What stands before the data of a record: references to blocks, their images, and how much main data there is.
//!
//! The layout is that of 9.5 and later (`XLogRecordBlockHeader` and what may follow it). What a layout must not say is an
//! error in the words of `DecodeXLogRecord`.

use bytes::{Buf, BufMut};

use crate::page::BLOCK_SIZE;
use crate::version::ServerVersion;

use super::{DATA_LONG, DATA_SHORT, ORIGIN, TOPLEVEL_XID};

/// `XLR_MAX_BLOCK_ID`.
const MAX_BLOCK_ID: u8 = 32;

/// No layout has more bytes: 33 block references with everything, origin, top-level transaction and long main data.
pub const MAX_LAYOUT_SIZE: usize = (MAX_BLOCK_ID as usize + 1) * (4 + 5 + 2 + 12 + 4) + 3 + 5 + 5;

/// `BKPBLOCK_…`: the bits of `fork_flags`.
mod flag {
    pub(super) const FORK_MASK: u8 = 0x0F;
    pub(super) const HAS_IMAGE: u8 = 0x10;
    pub(super) const HAS_DATA: u8 = 0x20;
    pub(super) const WILL_INIT: u8 = 0x40;
    pub(super) const SAME_REL: u8 = 0x80;
}

/// `RelFileLocator` (`RelFileNode` before 16): which files a relation has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFileLocator {
    /// 1663 for `pg_default`, 1664 for `pg_global`.
    pub tablespace: u32,
    /// 0 in `pg_global`.
    pub database: u32,
    /// The number that the files are named after.
    pub relation: u32,
}

/// A block of a relation's fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTag {
    /// The relation.
    pub locator: RelFileLocator,
    /// `ForkNumber`: 0 main, 1 free space map, 2 visibility map, 3 init. At most 15.
    pub fork: u8,
    /// The block's number in its fork, whatever segment file it lies in.
    pub block: u32,
}

/// How an image is compressed (`wal_compression`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the settings' names")]
pub enum ImageCompression {
    #[default]
    None,
    Pglz,
    /// Since 15.
    Lz4,
    /// Since 15.
    Zstd,
}

/// A full-page image, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockImage {
    /// `bimg_len`: bytes in the record.
    pub length: u16,
    /// Where the zero bytes begin that were left out; 0 if none were.
    pub hole_offset: u16,
    /// How many they are.
    pub hole_length: u16,
    /// How the rest is compressed.
    pub compression: ImageCompression,
    /// `BKPIMAGE_APPLY`: whether replay restores it. Images that only serve `wal_consistency_checking` are not; before 10
    /// every image is.
    pub apply: bool,
}

impl BlockImage {
    /// The image of a page without the bytes from `hole_offset` on, none if `hole_length` is 0. Both together are at most
    /// 8192.
    pub fn plain(hole_offset: u16, hole_length: u16) -> Self {
        let length = WHOLE.saturating_sub(hole_length);
        Self { length, hole_offset, hole_length, compression: ImageCompression::None, apply: true }
    }
}

/// A block that a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReference {
    /// Its number in the record, at most 32; ascending.
    pub id: u8,
    /// The block.
    pub tag: BlockTag,
    /// `BKPBLOCK_WILL_INIT`: replay makes the page anew.
    pub will_init: bool,
    /// Bytes of data about the block.
    pub data_length: u16,
    /// Its image.
    pub image: Option<BlockImage>,
}

/// What the body of a record consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyLayout {
    /// The blocks, by ascending number.
    pub blocks: Vec<BlockReference>,
    /// `XLR_BLOCK_ID_ORIGIN`: where a replicated change comes from.
    pub origin: Option<u16>,
    /// `XLR_BLOCK_ID_TOPLEVEL_XID`, since 14.
    pub toplevel_xid: Option<u32>,
    /// Bytes of main data: the last of the record.
    pub main_data: u32,
}

/// A layout that no server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LayoutError {
    #[error("invalid block_id {0}")]
    BlockId(u8),
    #[error("out-of-order block_id {0}")]
    Order(u8),
    #[error("BKPBLOCK_HAS_DATA set, but no data included")]
    NoData,
    #[error("BKPBLOCK_HAS_DATA not set, but data length is {0}")]
    Data(u16),
    #[error("BKPIMAGE_HAS_HOLE set, but hole offset {offset} length {length} block image length {image}")]
    Hole { offset: u16, length: u16, image: u16 },
    #[error("BKPIMAGE_HAS_HOLE not set, but hole offset {offset} length {length}")]
    NoHole { offset: u16, length: u16 },
    #[error("BKPIMAGE_COMPRESSED set, but block image length {0}")]
    Compressed(u16),
    #[error("neither BKPIMAGE_HAS_HOLE nor BKPIMAGE_COMPRESSED set, but block image length is {0}")]
    Image(u16),
    #[error("BKPBLOCK_SAME_REL set but no previous rel")]
    SameRel,
    #[error("record with invalid length")]
    Length,
}

impl BodyLayout {
    /// Reads the layout of a body of `length` bytes that begins with `start`: all of it, or at least [`MAX_LAYOUT_SIZE`]
    /// bytes.
    pub fn decode(version: ServerVersion, length: u64, start: &[u8]) -> Result<Self, LayoutError> {
        let mut blocks = Vec::new();
        let rest = Self::walk(version, length, start, |block| blocks.push(block))?;
        Ok(Self { blocks, ..rest })
    }

    /// What [`decode`](Self::decode) requires, without keeping anything: most records are only looked at.
    pub fn check(version: ServerVersion, length: u64, start: &[u8]) -> Result<(), LayoutError> {
        Self::walk(version, length, start, |_| {}).map(drop)
    }

    /// Tells the blocks and returns the rest.
    fn walk(
        version: ServerVersion,
        length: u64,
        start: &[u8],
        mut on_block: impl FnMut(BlockReference),
    ) -> Result<Self, LayoutError> {
        let mut input = Input { rest: start, left: length };
        let mut layout = Self::default();
        let mut previous: Option<BlockReference> = None;
        let mut data = 0_u64;
        while input.left > data {
            let id = input.u8()?;
            match id {
                DATA_SHORT => {
                    layout.main_data = input.u8()?.into();
                    data += u64::from(layout.main_data);
                    break;
                }
                DATA_LONG => {
                    layout.main_data = input.u32()?;
                    data += u64::from(layout.main_data);
                    break;
                }
                ORIGIN => layout.origin = Some(input.u16()?),
                TOPLEVEL_XID if version.has_toplevel_xid() => layout.toplevel_xid = Some(input.u32()?),
                0..=MAX_BLOCK_ID => {
                    if previous.is_some_and(|previous| previous.id >= id) {
                        return Err(LayoutError::Order(id));
                    }
                    let same = previous.map(|previous| previous.tag.locator);
                    let reference = BlockReference::decode(version, id, same, &mut input)?;
                    data += u64::from(reference.data_length) + reference.image.map_or(0, |image| image.length.into());
                    previous = Some(reference);
                    on_block(reference);
                }
                _ => return Err(LayoutError::BlockId(id)),
            }
        }
        if input.left == data { Ok(layout) } else { Err(LayoutError::Length) }
    }

    /// Bytes of all images: what `pg_waldump` counts apart.
    pub fn image_bytes(&self) -> u32 {
        self.blocks.iter().filter_map(|block| block.image).map(|image| u32::from(image.length)).sum()
    }
}

impl BlockReference {
    fn decode(
        version: ServerVersion,
        id: u8,
        same: Option<RelFileLocator>,
        input: &mut Input<'_>,
    ) -> Result<Self, LayoutError> {
        let flags = input.u8()?;
        let data_length = input.u16()?;
        match (flags & flag::HAS_DATA != 0, data_length) {
            (true, 0) => return Err(LayoutError::NoData),
            (false, 1..) => return Err(LayoutError::Data(data_length)),
            _ => {}
        }
        let image = (flags & flag::HAS_IMAGE != 0).then(|| BlockImage::decode(version, input)).transpose()?;
        let locator = if flags & flag::SAME_REL != 0 {
            same.ok_or(LayoutError::SameRel)?
        } else {
            RelFileLocator { tablespace: input.u32()?, database: input.u32()?, relation: input.u32()? }
        };
        let tag = BlockTag { locator, fork: flags & flag::FORK_MASK, block: input.u32()? };
        Ok(Self { id, tag, will_init: flags & flag::WILL_INIT != 0, data_length, image })
    }

    /// Appends the reference, which never says that its relation is that of the one before.
    pub fn encode(&self, version: ServerVersion, output: &mut Vec<u8>) {
        let when = |set, bit| if set { bit } else { 0 };
        let flags = when(self.image.is_some(), flag::HAS_IMAGE)
            | when(self.data_length > 0, flag::HAS_DATA)
            | when(self.will_init, flag::WILL_INIT);
        output.put_u8(self.id);
        output.put_u8(flags | self.tag.fork & flag::FORK_MASK);
        output.put_u16_le(self.data_length);
        if let Some(image) = self.image {
            image.encode(version, output);
        }
        let RelFileLocator { tablespace, database, relation } = self.tag.locator;
        for number in [tablespace, database, relation, self.tag.block] {
            output.put_u32_le(number);
        }
    }
}

/// `BKPIMAGE_…`: the bits of `bimg_info`.
struct ImageBits {
    has_hole: u8,
    apply: u8,
    pglz: u8,
    lz4: u8,
    zstd: u8,
}

impl ImageBits {
    /// 15 numbered them anew. An absent bit is 0.
    fn of(version: ServerVersion) -> Self {
        if version.has_image_compression_methods() {
            Self { has_hole: 0x01, apply: 0x02, pglz: 0x04, lz4: 0x08, zstd: 0x10 }
        } else {
            let apply = if version.marks_images_to_apply() { 0x04 } else { 0 };
            Self { has_hole: 0x01, pglz: 0x02, apply, lz4: 0, zstd: 0 }
        }
    }

    fn compression(&self, info: u8) -> ImageCompression {
        if info & self.pglz != 0 {
            ImageCompression::Pglz
        } else if info & self.lz4 != 0 {
            ImageCompression::Lz4
        } else if info & self.zstd != 0 {
            ImageCompression::Zstd
        } else {
            ImageCompression::None
        }
    }
}

/// `BLCKSZ` as an image says its length.
const WHOLE: u16 = 8192;
const _: () = assert!(WHOLE as usize == BLOCK_SIZE);

impl BlockImage {
    fn decode(version: ServerVersion, input: &mut Input<'_>) -> Result<Self, LayoutError> {
        let bits = ImageBits::of(version);
        let (length, hole_offset, info) = (input.u16()?, input.u16()?, input.u8()?);
        let has_hole = info & bits.has_hole != 0;
        let compression = bits.compression(info);
        let compressed = compression != ImageCompression::None;
        let hole_length = match (compressed, has_hole) {
            (true, true) => input.u16()?,
            (true, false) => 0,
            (false, _) => WHOLE.wrapping_sub(length),
        };
        if has_hole && (hole_offset == 0 || hole_length == 0 || length == WHOLE) {
            return Err(LayoutError::Hole { offset: hole_offset, length: hole_length, image: length });
        }
        if !has_hole && !compressed && length != WHOLE {
            return Err(LayoutError::Image(length));
        }
        if !has_hole && (hole_offset != 0 || hole_length != 0) {
            return Err(LayoutError::NoHole { offset: hole_offset, length: hole_length });
        }
        if compressed && length == WHOLE {
            return Err(LayoutError::Compressed(length));
        }
        let apply = bits.apply == 0 || info & bits.apply != 0;
        Ok(Self { length, hole_offset, hole_length, compression, apply })
    }

    fn encode(self, version: ServerVersion, output: &mut Vec<u8>) {
        let bits = ImageBits::of(version);
        let has_hole = self.hole_length > 0;
        let compression = match self.compression {
            ImageCompression::None => 0,
            ImageCompression::Pglz => bits.pglz,
            ImageCompression::Lz4 => bits.lz4,
            ImageCompression::Zstd => bits.zstd,
        };
        output.put_u16_le(self.length);
        output.put_u16_le(self.hole_offset);
        let hole = if has_hole { bits.has_hole } else { 0 };
        output.put_u8(hole | compression | if self.apply { bits.apply } else { 0 });
        if has_hole && self.compression != ImageCompression::None {
            output.put_u16_le(self.hole_length);
        }
    }
}

/// The first bytes of a body, and how many are left of all of it.
struct Input<'a> {
    rest: &'a [u8],
    left: u64,
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(LayoutError::Length)?;
        self.rest = rest;
        self.left = self.left.checked_sub(N as u64).ok_or(LayoutError::Length)?;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, LayoutError> {
        self.take::<1>().map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, LayoutError> {
        self.take::<2>().map(|bytes| bytes.as_slice().get_u16_le())
    }

    fn u32(&mut self) -> Result<u32, LayoutError> {
        self.take::<4>().map(|bytes| bytes.as_slice().get_u32_le())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(version: ServerVersion) -> impl Strategy<Value = BlockImage> {
        let methods = if version.has_image_compression_methods() { 4 } else { 2 };
        let hole = prop_oneof![Just((0, 0)), (24_u16..4000, 1_u16..4000)];
        (0..methods, hole, 1_u16..4000, any::<bool>()).prop_map(move |(method, hole, length, apply)| {
            let apply = apply || !version.marks_images_to_apply();
            let plain = BlockImage { apply, ..BlockImage::plain(hole.0, hole.1) };
            let compression = match method {
                0 => return plain,
                1 => ImageCompression::Pglz,
                2 => ImageCompression::Lz4,
                _ => ImageCompression::Zstd,
            };
            BlockImage { length, compression, ..plain }
        })
    }

    fn reference(version: ServerVersion) -> impl Strategy<Value = BlockReference> {
        let image = proptest::option::of(image(version));
        (any::<[u32; 4]>(), 0_u8..16, any::<bool>(), 0_u16..300, image).prop_map(
            |([tablespace, database, relation, block], fork, will_init, data_length, image)| {
                let locator = RelFileLocator { tablespace, database, relation };
                BlockReference { id: 0, tag: BlockTag { locator, fork, block }, will_init, data_length, image }
            },
        )
    }

    fn references() -> impl Strategy<Value = (ServerVersion, Vec<BlockReference>)> {
        let versions = ServerVersion::ALL.into_iter().filter(|version| version.has_current_wal_format());
        proptest::sample::select(versions.collect::<Vec<_>>())
            .prop_flat_map(|version| (Just(version), proptest::collection::vec(reference(version), 0..5)))
    }

    proptest! {
        #[test]
        fn layouts_round_trip((version, mut blocks) in references(), origin: Option<u16>, main_data in 0_u32..700) {
            let mut body = Vec::new();
            let mut data = 0;
            for (id, block) in (0..).zip(&mut blocks) {
                block.id = 2 * id;
                block.encode(version, &mut body);
                data += usize::from(block.data_length) + block.image.map_or(0, |image| image.length.into());
            }
            if let Some(origin) = origin {
                body.push(ORIGIN);
                body.put_u16_le(origin);
            }
            body.extend(super::super::main_data_header(main_data as usize));
            prop_assert!(body.len() <= MAX_LAYOUT_SIZE);
            let length = (body.len() + data) as u64 + u64::from(main_data);
            let layout = BodyLayout { blocks, origin, toplevel_xid: None, main_data };
            prop_assert_eq!(BodyLayout::decode(version, length, &body), Ok(layout.clone()));
            prop_assert!(length == 0 || BodyLayout::decode(version, length - 1, &body).is_err());
            prop_assert_eq!(layout.image_bytes() as usize <= data, true);
        }

        #[test]
        fn any_start_is_safe(length: u64, start in proptest::collection::vec(any::<u8>(), 0..200), version in 8_usize..15) {
            let _ = BodyLayout::decode(ServerVersion::ALL[version], length, &start);
        }
    }

    #[test]
    fn says_what_is_wrong_as_postgresql_does() {
        let mut body = Vec::new();
        let image = BlockImage::plain(100, 1000);
        let reference =
            BlockReference { id: 0, tag: BlockTag::default(), will_init: false, data_length: 0, image: Some(image) };
        reference.encode(ServerVersion::V15, &mut body);
        let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = body.clone();
            change(&mut changed);
            let length = changed.len() as u64 + u64::from(image.length);
            BodyLayout::decode(ServerVersion::V15, length, &changed).unwrap_err().to_string()
        };
        assert_eq!(refusal(&|b| b[0] = 33), "invalid block_id 33");
        assert_eq!(refusal(&|b| b.extend_from_slice(&[0; 20])), "out-of-order block_id 0");
        assert_eq!(refusal(&|b| b[1] |= 0x20), "BKPBLOCK_HAS_DATA set, but no data included");
        assert_eq!(refusal(&|b| b[2] = 7), "BKPBLOCK_HAS_DATA not set, but data length is 7");
        let hole = "BKPIMAGE_HAS_HOLE set, but hole offset 0 length 1000 block image length 7192";
        assert_eq!(refusal(&|b| b[6] = 0), hole);
        let length = "neither BKPIMAGE_HAS_HOLE nor BKPIMAGE_COMPRESSED set, but block image length is 7192";
        assert_eq!(refusal(&|b| b[8] = 2), length);
        assert_eq!(refusal(&|b| b[8] = 4), "BKPIMAGE_HAS_HOLE not set, but hole offset 100 length 0");
        assert_eq!(refusal(&|b| b[1] |= 0x80), "BKPBLOCK_SAME_REL set but no previous rel");
        assert_eq!(refusal(&|b| b.truncate(10)), "record with invalid length");
    }
}
