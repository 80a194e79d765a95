//! Runs of filler: records of any number that are one entry of the plan.
//!
//! Without [`Blocks`](super::Blocks) a run is a sequence of NOOPs of a KiB each. With them it repeats every 16 KiB: the image of
//! a block and a NOOP, together 9 KiB however much of the block the image leaves out, and seven NOOPs of a KiB. In both
//! cases the record at any position follows from arithmetic and, at most, from one block.

use crate::lsn::Lsn;
use crate::page::BLOCK_SIZE;

use super::filler::{self, SIZE};
use super::{Entry, WalLog, WalLogError, blocks};

/// Usable bytes of an image and the NOOP behind it.
const PAIR: u64 = 9 * SIZE;

/// Usable bytes after which a run with images repeats.
const CYCLE: u64 = 16 * SIZE;

/// Usable bytes that a run with images can be longer than it was asked to be, and one byte.
const COARSEST: u64 = PAIR + SIZE;

// The NOOP behind an image has a long introduction, whatever the image leaves out.
const _: () = assert!(PAIR - blocks::MAX_SIZE > 24 + 5 + 255);

/// What one read needs again and again: the last image, and the last record that did not lie in one piece.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    image: Made,
    noop: Made,
}

/// A record made before, without its padding.
#[derive(Debug, Default)]
struct Made {
    at: Option<u64>,
    bytes: Vec<u8>,
}

/// A record of a run, by usable bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) at: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    /// Bytes of main data of a NOOP; nothing for an image.
    noop: Option<u32>,
}

impl Member {
    /// `xl_tot_len` of the record that was found last.
    pub(super) fn length(self, scratch: &Scratch) -> u32 {
        match self.noop {
            Some(length) => filler::total_length(length),
            None => u32::try_from(scratch.image.bytes.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Where a run that begins at `at` can end, at `target` or a little behind it.
pub(super) fn end_of(at: u64, images: bool, target: u64) -> u64 {
    let length = target - at;
    let into = length % CYCLE;
    // Never behind a record whose place depends on a block, so that the last one is known without reading it.
    let length = if images && (1..=COARSEST).contains(&into) { length - into + COARSEST } else { length };
    at + length.next_multiple_of(SIZE)
}

/// Where the last record of a run that ends at `end` begins.
pub(super) fn last(end: u64) -> u64 {
    end - SIZE
}

fn aligned(length: usize) -> u64 {
    (length as u64).next_multiple_of(8)
}

impl WalLog {
    /// The image with which the part of a run begins that lies at `at`.
    fn image<'a>(&self, entry: &Entry, at: u64, scratch: &'a mut Scratch) -> Result<&'a [u8], WalLogError> {
        let made = &mut scratch.image;
        if made.at != Some(at) {
            let Some(source) = &self.blocks else { return Ok(&[]) };
            let number = filler::mix(self.config.seed, at) % source.count().max(1);
            let mut page = [0; BLOCK_SIZE];
            let tag = source.read(number, &mut page).map_err(|error| WalLogError::Block(error.kind()))?;
            let prev = if at == entry.at { entry.prev } else { self.layout.start(at - SIZE) };
            made.bytes = blocks::record(self.config.version, prev, tag, &page);
            made.at = Some(at);
        }
        Ok(&made.bytes)
    }

    /// The record that the usable byte number `usable` belongs to.
    pub(super) fn member(
        &self,
        entry: &Entry,
        images: bool,
        usable: u64,
        scratch: &mut Scratch,
    ) -> Result<Member, WalLogError> {
        let into = usable - entry.at;
        let in_cycle = into % CYCLE;
        if images && in_cycle < PAIR {
            let at = usable - in_cycle;
            let image = at + aligned(self.image(entry, at, scratch)?.len());
            if usable < image {
                return Ok(Member { at, end: image, noop: None });
            }
            let end = at + PAIR;
            let length = u32::try_from(end - image).unwrap_or(0).saturating_sub(filler::total_length(256) - 256);
            return Ok(Member { at: image, end, noop: Some(length) });
        }
        let at = usable - into % SIZE;
        Ok(Member { at, end: at + SIZE, noop: Some(filler::length(self.config.seed, at)) })
    }

    /// Where the NOOP before the one at `at` begins, or the image.
    fn before(&self, entry: &Entry, images: bool, at: u64, scratch: &mut Scratch) -> Result<Lsn, WalLogError> {
        let into = at - entry.at;
        if into == 0 {
            return Ok(entry.prev);
        }
        let before = match into % CYCLE {
            in_cycle @ 1..PAIR if images => at - in_cycle,
            PAIR if images => at - PAIR + aligned(self.image(entry, at - PAIR, scratch)?.len()),
            _ => at - SIZE,
        };
        Ok(self.layout.start(before))
    }

    /// Reads usable bytes of a run, without page headers.
    pub(super) fn read_run(
        &self,
        entry: &Entry,
        images: bool,
        mut usable: u64,
        mut output: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), WalLogError> {
        let seed = self.config.seed;
        while !output.is_empty() {
            let member = self.member(entry, images, usable, scratch)?;
            let room = usize::try_from(member.end - usable).unwrap_or(usize::MAX).min(output.len());
            let (part, after) = std::mem::take(&mut output).split_at_mut(room);
            let whole = member.end - member.at;
            if let Some(length) = member.noop {
                if part.len() as u64 == whole {
                    let prev = self.before(entry, images, member.at, scratch)?;
                    filler::write(seed, member.at, prev, length, part);
                } else {
                    if scratch.noop.at != Some(member.at) {
                        let prev = self.before(entry, images, member.at, scratch)?;
                        scratch.noop.at = Some(member.at);
                        scratch.noop.bytes.resize(usize::try_from(whole).unwrap_or(0), 0);
                        filler::write(seed, member.at, prev, length, &mut scratch.noop.bytes);
                    }
                    copy(&scratch.noop.bytes, usable - member.at, part);
                }
            } else {
                copy(self.image(entry, member.at, scratch)?, usable - member.at, part);
            }
            usable += room as u64;
            output = after;
        }
        Ok(())
    }
}

/// Copies the bytes of a record from `skipped` on, and zero bytes for its padding.
pub(super) fn copy(record: &[u8], skipped: u64, output: &mut [u8]) {
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    let rest = record.get(skipped..).unwrap_or_default();
    let (content, padding) = output.split_at_mut(rest.len().min(output.len()));
    content.copy_from_slice(&rest[..content.len()]);
    padding.fill(0);
}
