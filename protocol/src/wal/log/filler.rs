//! Filler: NOOP records whose data is a function of the seed, the record's place and the offset in it.

use crate::lsn::Lsn;
use crate::wal::record::{RECORD_HEADER_SIZE, RM_XLOG, RecordHeader, info, main_data_header};

/// Usable bytes that each NOOP of a run takes, padding included. Without a common divisor with a page's usable bytes but 8,
/// so that page ends cut filler records at every place there is.
pub(super) const SIZE: u64 = 1024;

/// Bytes made at a time.
const CHUNK: usize = 1024;

/// A full record of a run: long main data.
const FULL: u32 = 1024 - 24 - 5;

/// SplitMix64 of `seed` and a counter.
pub(super) fn mix(seed: u64, counter: u64) -> u64 {
    let mut word = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Word number `counter` of the data of a record: a Weyl sequence, folded. Cheaper than [`mix`], because several words can be
/// made at a time, and good enough to have nothing in it that compresses well.
fn word(seed: u64, counter: u64) -> [u8; 8] {
    let word = seed.wrapping_add(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (word ^ (word >> 32)).to_le_bytes()
}

/// Bytes of main data of the run's record at `at`: a little less than fits, so that padding occurs, too.
pub(super) fn length(seed: u64, at: u64) -> u32 {
    FULL - u32::from((mix(seed, at) >> 61) as u8)
}

/// `xl_tot_len` of a NOOP with `length` bytes of main data.
pub(super) fn total_length(length: u32) -> u32 {
    let introduction = match length {
        0 => 0,
        1..=255 => 2,
        _ => 5,
    };
    24 + introduction + length
}

/// The header of a NOOP with `length` bytes of main data, without its CRC.
pub(super) fn header(prev: Lsn, length: u32) -> RecordHeader {
    let total_length = total_length(length);
    RecordHeader { total_length, xid: 0, prev, info: info::NOOP, resource_manager: RM_XLOG, crc: 0 }
}

/// The main data from `offset` on of the NOOP at `at`.
fn data(seed: u64, at: u64, offset: u64, output: &mut [u8]) {
    let seed = mix(seed, at);
    let mut rest = output;
    let mut counter = offset / 8;
    let skipped = usize::try_from(offset % 8).unwrap_or(0);
    if skipped > 0 {
        let word = word(seed, counter);
        let length = rest.len().min(8 - skipped);
        let (part, after) = rest.split_at_mut(length);
        part.copy_from_slice(&word[skipped..skipped + length]);
        rest = after;
        counter += 1;
    }
    let (words, last) = rest.as_chunks_mut::<8>();
    for (to, counter) in words.iter_mut().zip(counter..) {
        *to = word(seed, counter);
    }
    let word = word(seed, counter.wrapping_add(words.len() as u64));
    last.copy_from_slice(&word[..last.len()]);
}

/// The CRC-32C of the body of the NOOP at `at`.
pub(super) fn body_crc(seed: u64, at: u64, length: u32) -> u32 {
    let mut crc = crc32c::crc32c(&main_data_header(length as usize));
    let mut buffer = [0; CHUNK];
    let mut offset = 0;
    while offset < u64::from(length) {
        let part = usize::try_from(u64::from(length) - offset).unwrap_or(usize::MAX).min(buffer.len());
        data(seed, at, offset, &mut buffer[..part]);
        crc = crc32c::crc32c_append(crc, &buffer[..part]);
        offset += part as u64;
    }
    crc
}

/// Writes all of the NOOP at `at`, whose main data is so long that its introduction has five bytes, and its padding.
pub(super) fn write(seed: u64, at: u64, prev: Lsn, length: u32, output: &mut [u8]) {
    let total = usize::try_from(total_length(length)).unwrap_or(usize::MAX);
    let (record, padding) = output.split_at_mut(total.min(output.len()));
    padding.fill(0);
    let Some((head, body)) = record.split_first_chunk_mut::<RECORD_HEADER_SIZE>() else { return };
    let introduction = main_data_header(length as usize);
    let Some((start, content)) = body.split_at_mut_checked(introduction.len()) else { return };
    start.copy_from_slice(&introduction);
    data(seed, at, 0, content);
    *head = header(prev, length).sealed(crc32c::crc32c(body)).encode();
}

/// The bytes from `skipped` on of the NOOP at `at`: header, main data, padding.
pub(super) fn read(seed: u64, at: u64, header: &RecordHeader, length: u32, skipped: u64, output: &mut [u8]) {
    let mut head = Vec::with_capacity(RECORD_HEADER_SIZE + 5);
    head.extend_from_slice(&header.encode());
    head.extend_from_slice(&main_data_header(length as usize));
    let mut rest = output;
    let before = usize::try_from(skipped).unwrap_or(usize::MAX);
    if let Some(head) = head.get(before..) {
        let part = head.len().min(rest.len());
        rest[..part].copy_from_slice(&head[..part]);
        rest = &mut rest[part..];
    }
    let offset = skipped.saturating_sub(head.len() as u64);
    let left = usize::try_from(u64::from(length).saturating_sub(offset)).unwrap_or(usize::MAX);
    let (content, padding) = rest.split_at_mut(left.min(rest.len()));
    data(seed, at, offset, content);
    padding.fill(0);
}
