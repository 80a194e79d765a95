//! Full-page images: records that replay restores whole pages from.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::lsn::Lsn;
use crate::page::BLOCK_SIZE;
use crate::version::ServerVersion;
use crate::wal::record::block::{BlockImage, BlockReference, BlockTag};
use crate::wal::record::{RM_XLOG, XLogRecord, info};

/// The blocks of the cluster whose WAL a log is.
///
/// Filler then holds images of them as they are, so that replay changes no byte of a page but those that every replay does:
/// the position in its header, and with it the checksum.
pub trait Blocks: fmt::Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> u64;

    /// Reads the block of a number below [`count`](Self::count), and tells which it is. It must be the same every time.
    fn read(&self, number: u64, page: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag>;
}

/// The longest record of an image, padding included: header, block reference and image header, a page without a hole.
pub(super) const MAX_SIZE: u64 = (24 + 4 + 5 + 12 + 4 + BLOCK_SIZE as u64).next_multiple_of(8);

/// An FPI record of `page`, without padding.
pub(super) fn record(version: ServerVersion, prev: Lsn, tag: BlockTag, page: &[u8; BLOCK_SIZE]) -> Vec<u8> {
    let hole = hole(page);
    let number = |number: usize| u16::try_from(number).unwrap_or(0);
    let image = BlockImage::plain(number(hole.start), number(hole.len()));
    let mut body = Vec::with_capacity(BLOCK_SIZE + 32);
    BlockReference { id: 0, tag, will_init: false, data_length: 0, image: Some(image) }.encode(version, &mut body);
    body.extend_from_slice(&page[..hole.start]);
    body.extend_from_slice(&page[hole.end..]);
    XLogRecord { xid: 0, prev, info: info::FPI, resource_manager: RM_XLOG, body }.encode()
}

/// The bytes between `pd_lower` and `pd_upper`, which an image leaves out (`XLogRecordAssemble`); `0..0` if there are none.
///
/// Replay fills them with zeros. On a page that holds something else there, a server would not mind; here they are kept,
/// because an image shall restore the very page.
fn hole(page: &[u8; BLOCK_SIZE]) -> Range<usize> {
    let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
    let upper = usize::from(u16::from_le_bytes([page[14], page[15]]));
    let empty = lower >= crate::page::HEADER_SIZE
        && upper > lower
        && page.get(lower..upper).is_some_and(|hole| hole.iter().all(|&byte| byte == 0));
    if empty { lower..upper } else { 0..0 }
}
