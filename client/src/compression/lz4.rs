//! Frames of LZ4 in pieces: a frame is cut into its header and blocks here, which `lz4_flex` unpacks.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes, BytesMut};
use lz4_flex::frame::FrameDecoder;

const MAGIC: u32 = 0x184D_2204;
/// The magic numbers of frames that are to be skipped.
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
/// The part of a frame's header that says how long it is.
const HEADER_START: usize = 7;

/// What stands next in the stream.
#[derive(Clone, Copy)]
enum Next {
    /// A frame's header.
    Frame,
    /// So many bytes of a frame that is skipped.
    Skipped(u32),
    /// A block, or the end mark.
    Block { largest: usize, checksum: bool, content_checksum: bool },
}

/// Unpacks frames, one block at a time.
pub(super) struct Lz4 {
    decoder: FrameDecoder<Queue>,
    next: Next,
    /// The beginning of a header or block that is not complete.
    pending: BytesMut,
}

/// Whole headers and blocks, for the decoder to read.
struct Queue(BytesMut);

impl Read for Queue {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(self.0.len());
        self.0.split_to(length).copy_to_slice(out.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

/// How much of what stands next is needed.
enum Needed {
    /// So many bytes to know more.
    More(usize),
    /// So many bytes, and it is complete.
    All(usize),
}

impl Lz4 {
    pub(super) fn new() -> Self {
        Self { decoder: FrameDecoder::new(Queue(BytesMut::new())), next: Next::Frame, pending: BytesMut::new() }
    }

    /// Whether a frame was begun and has not ended.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.next, Next::Frame) || !self.pending.is_empty()
    }

    /// Takes what it can from `input` and unpacks at most one block, which may be empty. None: more is needed.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, String> {
        loop {
            if let Next::Skipped(left) = self.next {
                let step = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                input.advance(step);
                let left = left - u32::try_from(step).unwrap_or(left);
                self.next = if left == 0 { Next::Frame } else { Next::Skipped(left) };
                if left > 0 || input.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            let (length, complete) = match self.needed()? {
                Needed::More(length) => (length, false),
                Needed::All(length) => (length, true),
            };
            if self.pending.len() < length {
                let step = input.len().min(length - self.pending.len());
                self.pending.extend_from_slice(&input.split_to(step));
                if self.pending.len() < length {
                    return Ok(None);
                }
            }
            if complete && let Some(piece) = self.take(length)? {
                return Ok(Some(piece));
            }
        }
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.pending.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn needed(&self) -> Result<Needed, String> {
        let have = self.pending.len();
        match self.next {
            Next::Frame => {
                if have < 4 {
                    return Ok(Needed::More(4));
                }
                let magic = self.number(0);
                if SKIPPABLE.contains(&magic) {
                    return Ok(Needed::All(8));
                }
                if magic != MAGIC {
                    return Err(format!("0x{magic:08x} is not the beginning of an LZ4 frame"));
                }
                if have < HEADER_START {
                    return Ok(Needed::More(HEADER_START));
                }
                let flags = self.pending.get(4).copied().unwrap_or(0);
                let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
                let dictionary = if flags & 0x01 != 0 { 4 } else { 0 };
                Ok(Needed::All(HEADER_START + content_size + dictionary))
            }
            Next::Skipped(_) => Ok(Needed::More(0)),
            Next::Block { largest, checksum, content_checksum } => {
                if have < 4 {
                    return Ok(Needed::More(4));
                }
                let size = self.number(0);
                if size == 0 {
                    return Ok(Needed::All(4 + 4 * usize::from(content_checksum)));
                }
                let length = usize::try_from(size & 0x7FFF_FFFF).unwrap_or(usize::MAX);
                if length > largest {
                    return Err(format!("a block of {length} bytes, more than the {largest} of its frame"));
                }
                Ok(Needed::All(4 + length + 4 * usize::from(checksum)))
            }
        }
    }

    /// Acts on a complete header or block.
    fn take(&mut self, length: usize) -> Result<Option<Bytes>, String> {
        let size = self.number(0);
        match self.next {
            Next::Frame if size != MAGIC => {
                let skipped = self.number(4);
                self.pending.clear();
                self.next = if skipped == 0 { Next::Frame } else { Next::Skipped(skipped) };
                return Ok(None);
            }
            Next::Frame => {
                let field = |at: usize| self.pending.get(at).copied().unwrap_or(0);
                let (flags, block) = (field(4), field(5));
                let largest = match (block >> 4) & 7 {
                    4 => 64 << 10,
                    5 => 256 << 10,
                    6 => 1 << 20,
                    7 => 4 << 20,
                    other => return Err(format!("{other} is no size of blocks")),
                };
                self.next = Next::Block { largest, checksum: flags & 0x10 != 0, content_checksum: flags & 0x04 != 0 };
                // The decoder wants a block to follow.
                let header = self.pending.split_to(length);
                self.decoder.get_mut().0.unsplit(header);
                return Ok(None);
            }
            Next::Skipped(_) => return Ok(None),
            Next::Block { .. } => {}
        }
        let block = self.pending.split_to(length);
        self.decoder.get_mut().0.extend_from_slice(&block);
        let unpacked = self.decoder.fill_buf().map_err(|error| error.to_string())?;
        let piece = Bytes::copy_from_slice(unpacked);
        self.decoder.consume(piece.len());
        if size == 0 {
            self.next = Next::Frame;
        }
        Ok(Some(piece))
    }
}
