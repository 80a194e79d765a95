//! One header of 512 bytes: `tarCreateHeader` and its opposite.

use super::error::{NumberProblem, TarError, TarProblem};

/// The unit of a tar archive in bytes, `TAR_BLOCK_SIZE`.
pub const BLOCK: usize = 512;

/// The longest name and the longest link target in bytes. A directory's closing slash counts.
pub const MAX_NAME: usize = 99;

/// The largest size of a member in bytes: what `pgoff_t` holds.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// A field of the header: what it is called, where it stands.
struct Field {
    name: &'static str,
    at: usize,
    len: usize,
}

impl Field {
    const fn new(name: &'static str, at: usize, len: usize) -> Self {
        Self { name, at, len }
    }

    fn of<'a>(&self, header: &'a [u8; BLOCK]) -> &'a [u8] {
        &header[self.at..self.at + self.len]
    }

    fn of_mut<'a>(&self, header: &'a mut [u8; BLOCK]) -> &'a mut [u8] {
        &mut header[self.at..self.at + self.len]
    }
}

const NAME: Field = Field::new("name", 0, 100);
const MODE: Field = Field::new("mode", 100, 8);
const UID: Field = Field::new("uid", 108, 8);
const GID: Field = Field::new("gid", 116, 8);
const SIZE: Field = Field::new("size", 124, 12);
const MTIME: Field = Field::new("mtime", 136, 12);
const CHECKSUM: Field = Field::new("chksum", 148, 8);
const TYPE: usize = 156;
const LINK: Field = Field::new("linkname", 157, 100);
/// Magic and version together, since releases and other writers divide the eight bytes differently.
const MAGIC: Field = Field::new("magic", 257, 8);
const USER: Field = Field::new("uname", 265, 32);
const GROUP: Field = Field::new("gname", 297, 32);
const DEVICE_MAJOR: Field = Field::new("devmajor", 329, 8);
const DEVICE_MINOR: Field = Field::new("devminor", 337, 8);
const PREFIX: Field = Field::new("prefix", 345, 155);

const MAGIC_USTAR: &[u8; 8] = b"ustar\x0000";
const MAGIC_GNU: &[u8; 8] = b"ustar  \0";
/// Of releases before 9.2.2, which also wrote the group one byte too far right.
const MAGIC_OLD: &[u8; 8] = b"ustar00\0";

/// What a member is. Nothing else is sent in a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file, type `0`.
    File,
    /// A directory, type `5`.
    Directory,
    /// A symbolic link, type `2`: a tablespace in `pg_tblspc`.
    Symlink {
        /// Where it points, at most [`MAX_NAME`] bytes.
        target: Vec<u8>,
    },
}

/// The header of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHeader {
    /// The name as it stands in the header, at most [`MAX_NAME`] bytes: `base/1/2619`, `pg_wal/`, `./pg_wal/summaries/`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// The owner on the server.
    pub uid: u32,
    /// The owner's group on the server.
    pub gid: u32,
    /// Bytes of content that follow, at most [`MAX_SIZE`]; 0 unless this is a file.
    pub size: u64,
    /// When it was changed last, in seconds since 1970.
    pub mtime: u64,
}

impl MemberHeader {
    /// The name without what only its spelling adds: a leading `./` and the slash at the end of directories and links.
    pub fn path(&self) -> &[u8] {
        let name = self.name.strip_prefix(b"./").unwrap_or(&self.name);
        name.strip_suffix(b"/").unwrap_or(name)
    }

    /// The bytes that follow this header up to the next one: content and padding.
    pub fn stored_size(&self) -> u64 {
        padded_size(self.size)
    }

    /// Writes the header as servers since 9.3 do (`tarCreateHeader`): names of directories **and symbolic links** end in
    /// a slash, which is added where it is missing; numbers are octal and end in a blank, or base-256 where they do not fit.
    ///
    /// # Errors
    /// A name or target that is too long, empty, or contains a NUL byte; a size on what has no content. The server's
    /// texts for the first two: `file name too long for tar format: …`, `symbolic link target too long for tar format: …`.
    pub fn encode(&self) -> Result<[u8; BLOCK], TarError> {
        let (flag, target, described) = match &self.kind {
            MemberKind::File => (b'0', None, "file"),
            MemberKind::Directory => (b'5', None, "directory"),
            MemberKind::Symlink { target } => (b'2', Some(target), "symbolic link"),
        };
        if flag != b'0' && self.size != 0 {
            return Err(TarProblem::UnexpectedContent { kind: described, size: self.size }.into());
        }
        if self.size > MAX_SIZE {
            return Err(TarProblem::TooLarge(self.size).into());
        }
        let mut header = [0; BLOCK];
        let name = self.field_name(flag)?;
        NAME.of_mut(&mut header)[..name.len()].copy_from_slice(name);
        if let Some(target) = target {
            if target.is_empty() {
                return Err(TarProblem::NoLinkTarget.into());
            }
            if target.len() > MAX_NAME {
                let (name, target) = (self.name.clone(), target.clone());
                return Err(TarProblem::LinkTargetTooLong { name, target }.into());
            }
            if target.contains(&0) {
                return Err(TarProblem::NulByte("symbolic link target").into());
            }
            LINK.of_mut(&mut header)[..target.len()].copy_from_slice(target);
        }
        if flag != b'0' && !self.name.ends_with(b"/") {
            header[self.name.len()] = b'/';
        }
        write_number(MODE.of_mut(&mut header), u64::from(self.mode & 0o7777));
        write_number(UID.of_mut(&mut header), u64::from(self.uid));
        write_number(GID.of_mut(&mut header), u64::from(self.gid));
        write_number(SIZE.of_mut(&mut header), self.size);
        write_number(MTIME.of_mut(&mut header), self.mtime);
        header[TYPE] = flag;
        MAGIC.of_mut(&mut header).copy_from_slice(MAGIC_USTAR);
        for owner in [USER, GROUP] {
            owner.of_mut(&mut header)[..8].copy_from_slice(b"postgres");
        }
        write_number(DEVICE_MAJOR.of_mut(&mut header), 0);
        write_number(DEVICE_MINOR.of_mut(&mut header), 0);
        let sum = checksum(&header);
        write_number(CHECKSUM.of_mut(&mut header), sum);
        Ok(header)
    }

    /// The name, if the field can hold it together with the slash that a directory or a link needs.
    fn field_name(&self, flag: u8) -> Result<&[u8], TarProblem> {
        let is_file = flag == b'0';
        if self.name.is_empty() {
            return Err(TarProblem::EmptyName);
        }
        if self.name.contains(&0) {
            return Err(TarProblem::NulByte("file name"));
        }
        let slash = self.name.ends_with(b"/");
        if is_file && slash {
            return Err(TarProblem::FileNamedAsDirectory);
        }
        let length = self.name.len() + usize::from(!is_file && !slash);
        if length > MAX_NAME { Err(TarProblem::NameTooLong(self.name.clone())) } else { Ok(&self.name) }
    }

    /// Reads a header, or finds a block of zeros, which is none.
    ///
    /// Stricter than `isValidTarHeader` and its callers: everything must be as a server writes it. Tolerated are what old
    /// servers wrote (`ustar00` as magic, the group one byte late, the file type in the mode, other blanks after numbers),
    /// GNU's magic, and number fields other than size and checksum that are empty.
    ///
    /// # Errors
    /// The first problem, without a position: [`TarReader`](super::TarReader) adds that.
    pub fn decode(header: &[u8; BLOCK]) -> Result<Option<Self>, TarError> {
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let magic = MAGIC.of(header);
        if ![MAGIC_USTAR, MAGIC_GNU, MAGIC_OLD].iter().any(|known| magic == known.as_slice()) {
            return Err(TarProblem::Magic.into());
        }
        let (stored, computed) = (read_number(&CHECKSUM, CHECKSUM.of(header))?, checksum(header));
        if stored != computed {
            return Err(TarProblem::Checksum { stored, computed }.into());
        }
        let name = read_text(&NAME, header)?;
        if name.is_empty() {
            return Err(TarProblem::EmptyName.into());
        }
        let target = read_text(&LINK, header)?;
        let size = read_number(&SIZE, SIZE.of(header))?;
        let (kind, described) = match header[TYPE] {
            b'0' => (MemberKind::File, "file"),
            b'5' => (MemberKind::Directory, "directory"),
            b'2' if target.is_empty() => return Err(TarProblem::NoLinkTarget.into()),
            b'2' => (MemberKind::Symlink { target: target.to_vec() }, "symbolic link"),
            other => return Err(TarProblem::UnsupportedType(other).into()),
        };
        let is_file = kind == MemberKind::File;
        if is_file && name.ends_with(b"/") {
            return Err(TarProblem::FileNamedAsDirectory.into());
        }
        if !is_file && size != 0 {
            return Err(TarProblem::UnexpectedContent { kind: described, size }.into());
        }
        if header[TYPE] != b'2' && !target.is_empty() {
            return Err(TarProblem::Excess(LINK.name).into());
        }
        if PREFIX.of(header).iter().any(|&byte| byte != 0) {
            return Err(TarProblem::Excess(PREFIX.name).into());
        }
        let group = match GID.of(header) {
            [0, late @ ..] if magic == MAGIC_OLD.as_slice() => read_group(late)?,
            field => read_id(&GID, field)?,
        };
        let mode = read_optional(&MODE, MODE.of(header))?;
        if mode > 0o177_777 {
            return Err(number_problem(&MODE, NumberProblem::OutOfRange).into());
        }
        Ok(Some(Self {
            name: name.to_vec(),
            kind,
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid: read_id(&UID, UID.of(header))?,
            gid: group,
            size,
            mtime: read_optional(&MTIME, MTIME.of(header))?,
        }))
    }

    /// The name field of a header that may be anything, for messages.
    pub(super) fn raw_name(header: &[u8; BLOCK]) -> Vec<u8> {
        NAME.of(header).iter().copied().take_while(|&byte| byte != 0).collect()
    }
}

/// `size` rounded up to whole blocks: what a file of that size takes in an archive, after its header.
pub fn padded_size(size: u64) -> u64 {
    size.saturating_add(padding(size) as u64)
}

/// The bytes of padding after a file of `size` bytes, below [`BLOCK`].
pub fn padding(size: u64) -> usize {
    let block = BLOCK as u64;
    usize::try_from((block - size % block) % block).unwrap_or_default()
}

/// The sum of the header's bytes with the checksum itself counted as eight blanks, `tarChecksum`.
fn checksum(header: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(header) - sum(CHECKSUM.of(header)) + u64::from(b' ') * 8
}

/// `print_tar_number`: octal digits and a blank, or base-256 after the byte 0x80.
fn write_number(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits) == 0 {
        field[digits] = b' ';
        for digit in field[..digits].iter_mut().rev() {
            *digit = b'0' + (value & 7) as u8;
            value >>= 3;
        }
    } else {
        for byte in field.iter_mut().rev() {
            *byte = (value & 0xFF) as u8;
            value >>= 8;
        }
        field[0] = 0x80;
    }
}

fn number_problem(field: &Field, problem: NumberProblem) -> TarProblem {
    TarProblem::Number { field: field.name, problem }
}

/// A number as [`write_number`] writes it; NULs may stand for the blank, and digits may be fewer.
fn read_number(field: &Field, bytes: &[u8]) -> Result<u64, TarProblem> {
    let fail = |problem| Err(number_problem(field, problem));
    let value = match bytes {
        [0x80, rest @ ..] => {
            let (high, low) = rest.split_at(rest.len().saturating_sub(8));
            if high.iter().any(|&byte| byte != 0) {
                return fail(NumberProblem::OutOfRange);
            }
            low.iter().fold(0, |value: u64, &byte| value << 8 | u64::from(byte))
        }
        [0xC0..=0xFF, ..] => return fail(NumberProblem::Negative),
        [0x81..=0xBF, ..] => return fail(NumberProblem::OutOfRange),
        _ => {
            let digits = bytes.iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
            let (digits, rest) = bytes.split_at(digits);
            if digits.is_empty() {
                return fail(NumberProblem::NotOctal);
            }
            if rest.is_empty() {
                return fail(NumberProblem::Unterminated);
            }
            if rest.iter().any(|&byte| byte != b' ' && byte != 0) {
                return fail(NumberProblem::Trailing);
            }
            // At most eleven digits, 33 bits.
            digits.iter().fold(0, |value, &digit| value << 3 | u64::from(digit - b'0'))
        }
    };
    if value > MAX_SIZE { fail(NumberProblem::OutOfRange) } else { Ok(value) }
}

/// A number field that other writers leave empty.
fn read_optional(field: &Field, bytes: &[u8]) -> Result<u64, TarProblem> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(0) } else { read_number(field, bytes) }
}

fn read_id(field: &Field, bytes: &[u8]) -> Result<u32, TarProblem> {
    let id = read_optional(field, bytes)?;
    u32::try_from(id).map_err(|_| number_problem(field, NumberProblem::OutOfRange))
}

/// The seven digits of a group that stands one byte late: the size has overwritten their terminator.
fn read_group(digits: &[u8]) -> Result<u32, TarProblem> {
    let mut terminated = digits.to_vec();
    terminated.push(b' ');
    read_id(&GID, &terminated)
}

/// A text up to its NUL, with nothing behind it.
fn read_text<'a>(field: &Field, header: &'a [u8; BLOCK]) -> Result<&'a [u8], TarProblem> {
    let bytes = field.of(header);
    let end = bytes.iter().position(|&byte| byte == 0).ok_or(TarProblem::Unterminated(field.name))?;
    let (text, rest) = bytes.split_at(end);
    if rest.iter().any(|&byte| byte != 0) { Err(TarProblem::Excess(field.name)) } else { Ok(text) }
}
