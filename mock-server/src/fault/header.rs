//! Tar headers that no server writes.
//!
//! These functions change a finished header byte by byte, because [`MemberHeader`](backstop_protocol::base_backup::tar::MemberHeader)
//! refuses to encode what a hostile server sends. All but [`break_checksum`] leave the checksum right, so that a client gets
//! past it to the field in question.

use super::member::{HeaderField, MemberType, Mode};

/// A tar header block.
pub(crate) type Block = [u8; 512];

const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const TARGET: std::ops::Range<usize> = 157..257;

/// Replaces the name; what does not fit in 100 bytes is cut.
pub(crate) fn rename(header: &mut Block, name: &[u8]) {
    put_text(&mut header[NAME], name);
    seal(header);
}

/// Replaces the type.
pub(crate) fn retype(header: &mut Block, to: MemberType) {
    header[TYPE] = to.flag();
    seal(header);
}

/// Replaces the link target; what does not fit in 100 bytes is cut.
pub(crate) fn relink(header: &mut Block, target: &[u8]) {
    put_text(&mut header[TARGET], target);
    seal(header);
}

/// Replaces the size: octal up to 8 GiB, base-256 from there.
pub(crate) fn resize(header: &mut Block, size: u64) {
    let field = &mut header[SIZE];
    if size < 1 << 33 {
        field.copy_from_slice(format!("{size:011o} ").as_bytes());
    } else {
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&size.to_be_bytes());
    }
    seal(header);
}

/// Replaces the permission bits.
pub(crate) fn remode(header: &mut Block, Mode(mode): Mode) {
    put_text(&mut header[HeaderField::Mode.range()], format!("{mode:07o} ").as_bytes());
    seal(header);
}

/// Replaces a field; what does not fit is cut.
pub(crate) fn write(header: &mut Block, field: HeaderField, bytes: &[u8]) {
    put_text(&mut header[field.range()], bytes);
    seal(header);
}

/// Makes the checksum wrong by one.
pub(crate) fn break_checksum(header: &mut Block) {
    let wrong = sum(header) + 1;
    put_checksum(header, wrong);
}

/// A header from nothing, as PostgreSQL would fill the other fields.
pub(crate) fn invent(name: &[u8], kind: MemberType, target: &[u8], size: u64, mtime: u64) -> Block {
    let mut header = [0; 512];
    let mode = if kind == MemberType::Directory { "0000700 " } else { "0000600 " };
    header[100..108].copy_from_slice(mode.as_bytes());
    header[108..124].copy_from_slice(b"0001751 0001751 ");
    header[136..148].copy_from_slice(format!("{:011o} ", mtime & 0o777_7777_7777).as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[265..273].copy_from_slice(b"postgres");
    header[297..305].copy_from_slice(b"postgres");
    header[329..345].copy_from_slice(b"0000000 0000000 ");
    header[TYPE] = kind.flag();
    put_text(&mut header[NAME], name);
    put_text(&mut header[TARGET], target);
    resize(&mut header, size);
    header
}

fn put_text(field: &mut [u8], text: &[u8]) {
    field.fill(0);
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
}

/// The sum of all bytes, with the checksum's own counted as blanks.
fn sum(header: &Block) -> u32 {
    let bytes = header.iter().enumerate();
    bytes.map(|(at, byte)| if CHECKSUM.contains(&at) { u32::from(b' ') } else { u32::from(*byte) }).sum()
}

fn put_checksum(header: &mut Block, sum: u32) {
    header[CHECKSUM].copy_from_slice(format!("{sum:07o} ").as_bytes());
}

fn seal(header: &mut Block) {
    let sum = sum(header);
    put_checksum(header, sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_header_carries_the_sum_of_its_bytes() {
        let mut header = invent(b"base/5/1259", MemberType::File, b"", 8192, 0);
        let sealed = format!("{:07o} ", sum(&header));
        assert_eq!(&header[CHECKSUM], sealed.as_bytes());
        break_checksum(&mut header);
        assert_ne!(&header[CHECKSUM], sealed.as_bytes());
        rename(&mut header, b"../../etc/passwd");
        assert_eq!(&header[CHECKSUM], format!("{:07o} ", sum(&header)).as_bytes());
        assert!(header.starts_with(b"../../etc/passwd\0"));
    }

    #[test]
    fn any_field_can_hold_anything() {
        let mut header = invent(b"x", MemberType::File, b"", 5, 0);
        write(&mut header, HeaderField::Size, b"          5\0");
        assert_eq!(&header[SIZE], b"          5\0");
        write(&mut header, HeaderField::Typeflag, b"Z");
        remode(&mut header, Mode(0o4777));
        assert_eq!((header[TYPE], &header[100..108]), (b'Z', b"0004777 ".as_slice()));
        assert_eq!(&header[CHECKSUM], format!("{:07o} ", sum(&header)).as_bytes());
    }

    #[test]
    fn sizes_of_8_gib_and_more_are_binary() {
        let mut header = invent(b"x", MemberType::File, b"", 0, 0);
        resize(&mut header, 1 << 33);
        assert_eq!(header[SIZE], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        resize(&mut header, (1 << 33) - 1);
        assert_eq!(&header[SIZE], b"77777777777 ");
    }
}
