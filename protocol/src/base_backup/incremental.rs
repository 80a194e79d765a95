//! `INCREMENTAL.*`: the blocks of a relation file that changed since the backup before (since 17).
//!
//! In place of `base/5/1259` an incremental backup holds `base/5/INCREMENTAL.1259`. It begins with a header, [`IncrementalHeader`]:
//! a magic number, how many blocks follow, the truncation block length, and the number of each block in the file, all in
//! the byte order of the server's machine, here little endian. If any block follows, zeros fill the header up to a multiple of 8192
//! bytes; then come the blocks, in the order of the header. `pg_combinebackup` puts the files of a chain together.

use bytes::{Buf, BufMut};

use crate::page::{BLOCK_SIZE, BLOCKS_PER_FILE};

/// `INCREMENTAL_MAGIC`.
pub const MAGIC: u32 = 0xD3AE_1F0D;

/// `INCREMENTAL_PREFIX`: what stands before the file name.
pub const PREFIX: &[u8] = b"INCREMENTAL.";

/// Bytes before the block numbers.
pub const FIXED_SIZE: usize = 12;

/// The path of the incremental file for the relation file at `path` (`GetIncrementalFilePath`).
pub fn name(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, file) = path.split_at(at);
    [directory, PREFIX, file].concat()
}

/// The path of the relation file for which `path` is an incremental file, if its name is one.
pub fn plain_name(path: &[u8]) -> Option<Vec<u8>> {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, file) = path.split_at(at);
    file.strip_prefix(PREFIX).map(|file| [directory, file].concat())
}

/// What stands before the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalHeader {
    truncation_block_length: u32,
    blocks: Vec<u32>,
}

/// An incremental file that is refused. Where `pg_combinebackup` has a text, it is used, behind `file "%s" `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncrementalError {
    /// It begins with another number.
    #[error("has bad incremental magic number (0x{0:x}, expected 0x{MAGIC:x})")]
    Magic(u32),
    /// More blocks than a file of a relation has.
    #[error("has block count {0} in excess of segment size {BLOCKS_PER_FILE}")]
    BlockCount(u32),
    /// More blocks remain than a file of a relation has.
    #[error("has truncation block length {0} in excess of segment size {BLOCKS_PER_FILE}")]
    TruncationBlockLength(u32),
    /// A block number that no file of a relation has.
    #[error("has block number {0} in excess of segment size {BLOCKS_PER_FILE}")]
    BlockNumber(u32),
    /// Block numbers that do not ascend.
    #[error("has block number {0} out of order")]
    Order(u32),
    /// Something else than zeros between the header and the first block.
    #[error("has data in the padding of its header at byte {0}")]
    Padding(usize),
    /// Shorter or longer than its header says.
    #[error("has {actual} bytes, expected {expected}")]
    Size {
        /// What the header asks for.
        expected: u64,
        /// What there is.
        actual: u64,
    },
}

impl IncrementalHeader {
    /// A header for blocks of these numbers in their file, ascending. `truncation_block_length` is how long the file is at least
    /// when it is put together, in blocks: blocks below it that are not given come from the backup before.
    ///
    /// # Errors
    /// Numbers that no reader would take.
    pub fn new(truncation_block_length: u32, blocks: Vec<u32>) -> Result<Self, IncrementalError> {
        if truncation_block_length > BLOCKS_PER_FILE {
            return Err(IncrementalError::TruncationBlockLength(truncation_block_length));
        }
        if let Some(&block) = blocks.iter().find(|block| **block >= BLOCKS_PER_FILE) {
            return Err(IncrementalError::BlockNumber(block));
        }
        let mut neighbours = blocks.iter().zip(blocks.iter().skip(1));
        if let Some((_, &block)) = neighbours.find(|(before, after)| before >= after) {
            return Err(IncrementalError::Order(block));
        }
        Ok(Self { truncation_block_length, blocks })
    }

    /// How long the file is at least, in blocks.
    pub fn truncation_block_length(&self) -> u32 {
        self.truncation_block_length
    }

    /// The numbers of the blocks in their file, ascending; at most 131072.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Bytes of the header with its padding (`GetIncrementalHeaderSize`).
    pub fn size(&self) -> usize {
        header_size(self.blocks.len())
    }

    /// Bytes of the whole file (`GetIncrementalFileSize`).
    pub fn file_size(&self) -> u64 {
        (self.size() + self.blocks.len() * BLOCK_SIZE) as u64
    }

    /// The header with its padding.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(self.size());
        header.put_u32_le(MAGIC);
        // `new` and `parse` see to it that no number is too large.
        header.put_u32_le(u32::try_from(self.blocks.len()).unwrap_or(u32::MAX));
        header.put_u32_le(self.truncation_block_length);
        for block in &self.blocks {
            header.put_u32_le(*block);
        }
        header.resize(self.size(), 0);
        header
    }

    /// How many bytes the header has, from the first [`FIXED_SIZE`] of them: at most 524 288 and a block.
    ///
    /// # Errors
    /// Not the beginning of an incremental file.
    pub fn size_from_start(start: [u8; FIXED_SIZE]) -> Result<usize, IncrementalError> {
        let mut start = &start[..];
        let (magic, count, truncation) = (start.get_u32_le(), start.get_u32_le(), start.get_u32_le());
        if magic != MAGIC {
            return Err(IncrementalError::Magic(magic));
        }
        if count > BLOCKS_PER_FILE {
            return Err(IncrementalError::BlockCount(count));
        }
        if truncation > BLOCKS_PER_FILE {
            return Err(IncrementalError::TruncationBlockLength(truncation));
        }
        Ok(header_size(count as usize))
    }

    /// Reads the header at the beginning of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// Whatever no server writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, IncrementalError> {
        let short = |expected: usize| IncrementalError::Size { expected: expected as u64, actual: bytes.len() as u64 };
        let start = bytes.first_chunk::<FIXED_SIZE>().ok_or_else(|| short(FIXED_SIZE))?;
        let size = Self::size_from_start(*start)?;
        let rest = bytes.get(FIXED_SIZE..size).ok_or_else(|| short(size))?;
        let (mut fields, mut numbers) = (&start[4..], rest);
        let (count, truncation) = (fields.get_u32_le() as usize, fields.get_u32_le());
        let blocks: Vec<_> = (0..count).map(|_| numbers.get_u32_le()).collect();
        if let Some(at) = numbers.iter().position(|byte| *byte != 0) {
            return Err(IncrementalError::Padding(size - numbers.len() + at));
        }
        Self::new(truncation, blocks)
    }
}

fn header_size(blocks: usize) -> usize {
    let size = FIXED_SIZE + 4 * blocks;
    if blocks > 0 { size.next_multiple_of(BLOCK_SIZE) } else { size }
}

/// A whole incremental file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalFile<'a> {
    /// Its header.
    pub header: IncrementalHeader,
    /// The blocks, in the order of the header.
    pub blocks: &'a [[u8; BLOCK_SIZE]],
}

impl<'a> IncrementalFile<'a> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// Whatever no server writes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IncrementalError> {
        let header = IncrementalHeader::parse(bytes)?;
        if bytes.len() as u64 != header.file_size() {
            return Err(IncrementalError::Size { expected: header.file_size(), actual: bytes.len() as u64 });
        }
        let (blocks, _) = bytes.get(header.size()..).unwrap_or_default().as_chunks();
        Ok(Self { header, blocks })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stand_behind_the_last_slash() {
        let pairs = [
            ("base/5/1259", "base/5/INCREMENTAL.1259"),
            ("base/5/1259.1", "base/5/INCREMENTAL.1259.1"),
            ("pg_tblspc/16391/PG_18_202506291/5/16395", "pg_tblspc/16391/PG_18_202506291/5/INCREMENTAL.16395"),
            ("1259", "INCREMENTAL.1259"),
        ];
        for (plain, incremental) in pairs {
            assert_eq!(name(plain.as_bytes()), incremental.as_bytes());
            assert_eq!(plain_name(incremental.as_bytes()), Some(plain.as_bytes().to_vec()));
            assert_eq!(plain_name(plain.as_bytes()), None);
        }
    }

    /// The header of a file that a server of 18 sent: blocks 0 and 13 of a relation with 14.
    #[test]
    fn writes_a_recorded_header() {
        let header = IncrementalHeader::new(14, vec![0, 13]).unwrap();
        let bytes = header.encode();
        let recorded = [0x0D, 0x1F, 0xAE, 0xD3, 2, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..24], recorded);
        assert_eq!((bytes.len(), header.file_size()), (8192, 24_576));
        let nothing = IncrementalHeader::new(14, vec![]).unwrap();
        assert_eq!((nothing.encode().len(), nothing.file_size()), (12, 12));
    }

    #[test]
    fn refuses_what_no_server_writes() {
        let header = |numbers: &[u32]| {
            let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            bytes.resize(8192, 0);
            bytes
        };
        let mut padded = header(&[MAGIC, 1, 1, 0]);
        padded[100] = 1;
        let cases = [
            vec![],
            header(&[MAGIC.swap_bytes(), 0, 0]),
            header(&[MAGIC, 131_073, 0]),
            header(&[MAGIC, 0, 131_073]),
            header(&[MAGIC, 1, 1, 131_072]),
            header(&[MAGIC, 2, 1, 5, 5]),
            header(&[MAGIC, 2, 1, 5, 4]),
            header(&[MAGIC, 5000, 1]),
            padded,
            header(&[MAGIC, 1, 1, 0]),
            header(&[MAGIC, 0, 1])[..13].to_vec(),
        ];
        let texts = cases.map(|bytes| IncrementalFile::parse(&bytes).unwrap_err().to_string());
        insta::assert_snapshot!(texts.join("\n"), @r"
        has 0 bytes, expected 12
        has bad incremental magic number (0xd1faed3, expected 0xd3ae1f0d)
        has block count 131073 in excess of segment size 131072
        has truncation block length 131073 in excess of segment size 131072
        has block number 131072 in excess of segment size 131072
        has block number 5 out of order
        has block number 4 out of order
        has 8192 bytes, expected 24576
        has data in the padding of its header at byte 100
        has 8192 bytes, expected 16384
        has 13 bytes, expected 12
        ");
    }

    proptest! {
        #[test]
        fn round_trips(length in 0..=BLOCKS_PER_FILE, blocks in proptest::collection::btree_set(0..BLOCKS_PER_FILE, 0..9)) {
            let header = IncrementalHeader::new(length, blocks.iter().copied().collect()).unwrap();
            let mut bytes = header.encode();
            prop_assert_eq!(IncrementalHeader::size_from_start(*bytes.first_chunk().unwrap()), Ok(bytes.len()));
            for block in &blocks {
                bytes.extend([u8::try_from(block % 251).unwrap(); BLOCK_SIZE]);
            }
            prop_assert_eq!(bytes.len() as u64, header.file_size());
            let file = IncrementalFile::parse(&bytes).unwrap();
            prop_assert_eq!(&file.header, &header);
            for (block, content) in blocks.iter().zip(file.blocks) {
                prop_assert_eq!(u32::from(content[0]), block % 251);
            }
        }

        #[test]
        fn any_bytes_are_safe(count in 0..3000_u32, noise: Vec<u8>) {
            let _ = IncrementalFile::parse(&noise);
            let mut bytes = [MAGIC.to_le_bytes(), count.to_le_bytes(), [0; 4]].concat();
            bytes.extend(&noise);
            bytes.resize(16_384, 0);
            let _ = IncrementalFile::parse(&bytes);
        }
    }
}
