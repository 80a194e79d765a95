//! Why an archive is refused, and where.

use std::fmt;

/// An archive that is refused, or a header that cannot be written.
///
/// The texts are PostgreSQL's where it has one for the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TarError {
    /// What is wrong.
    pub problem: TarProblem,
    /// The name of the member that it is wrong with, as the header spells it; for what stands between members, of the
    /// member before. Nothing if there is none, or when a header is encoded or decoded on its own.
    pub member: Option<Vec<u8>>,
    /// The offset in the archive, in bytes. Nothing when a header is encoded or decoded on its own.
    pub offset: Option<u64>,
}

impl From<TarProblem> for TarError {
    fn from(problem: TarProblem) -> Self {
        Self { problem, member: None, offset: None }
    }
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)?;
        let Some(offset) = self.offset else {
            return Ok(());
        };
        match &self.member {
            None => write!(f, " (at byte {offset} of the archive)"),
            Some(name) => {
                let place = if self.problem.is_between_members() { "after member" } else { "member" };
                write!(f, " ({place} {}, byte {offset} of the archive)", quoted(name))
            }
        }
    }
}

/// What is wrong with an archive or a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarProblem {
    /// A name of more than [`MAX_NAME`](super::MAX_NAME) bytes, the closing slash included. `tarCreateHeader`, SQLSTATE 54000.
    #[error("file name too long for tar format: {}", quoted(.0))]
    NameTooLong(Vec<u8>),
    /// A link target of more than [`MAX_NAME`](super::MAX_NAME) bytes.
    #[error("symbolic link target too long for tar format: file name {}, target {}", quoted(.name), quoted(.target))]
    LinkTargetTooLong {
        /// The name of the link.
        name: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
    },
    /// A NUL byte inside the name or the target that a header is to hold.
    #[error("{0} contains a NUL byte")]
    NulByte(&'static str),
    /// A size that no reader could take in.
    #[error("archive member of {0} bytes is too large for tar format")]
    TooLarge(u64),
    /// The checksum field differs from the sum of the header.
    #[error(
        "input file does not appear to be a valid tar archive: header checksum is {stored}, but {computed} was computed"
    )]
    Checksum {
        /// What the header says.
        stored: u64,
        /// The sum of its bytes.
        computed: u64,
    },
    /// No ustar magic.
    #[error("input file does not appear to be a valid tar archive: no ustar magic")]
    Magic,
    /// A number field that is not written as PostgreSQL writes numbers.
    #[error("tar header field \"{field}\" {problem}")]
    Number {
        /// The field: `mode`, `uid`, `gid`, `size`, `mtime` or `chksum`.
        field: &'static str,
        /// What is wrong with it.
        problem: NumberProblem,
    },
    /// A member type that a base backup does not have.
    #[error("unsupported tar member type {}", kind_name(*.0))]
    UnsupportedType(u8),
    /// An empty name.
    #[error("tar member has empty name")]
    EmptyName,
    /// A name or link target that fills its field to the end, so that readers differ in where it ends.
    #[error("tar header field \"{0}\" is not terminated")]
    Unterminated(&'static str),
    /// Bytes in a field that has to be empty there, or behind a terminator.
    #[error("tar header field \"{0}\" holds more than it should")]
    Excess(&'static str),
    /// A regular file whose name ends in a slash; old readers took it for a directory.
    #[error("tar member is a regular file but its name ends in a slash")]
    FileNamedAsDirectory,
    /// A symbolic link without a target.
    #[error("tar member is a symbolic link without a target")]
    NoLinkTarget,
    /// A directory or a symbolic link that announces content.
    #[error("tar member is a {kind} but has a size of {size}")]
    UnexpectedContent {
        /// `directory` or `symbolic link`.
        kind: &'static str,
        /// The size in its header.
        size: u64,
    },
    /// A byte of padding that is not zero.
    #[error("padding of tar member is not zero")]
    Padding,
    /// The archive ended inside the content or the padding of a member. `astreamer_tar.c`.
    #[error("COPY stream ended before last file was finished")]
    Truncated,
    /// The archive ended inside a header.
    #[error("COPY stream ended before last file was finished: inside a header")]
    TruncatedHeader,
    /// The archive ended at a member boundary, without the two zero blocks that this server sends.
    #[error("archive ended without its two terminating zero blocks")]
    MissingTrailer,
    /// One zero block, then something else or nothing.
    #[error("archive has a single zero block where two must end it")]
    SingleZeroBlock,
    /// Anything behind the two zero blocks.
    #[error("archive continues after its two terminating zero blocks")]
    AfterTrailer,
    /// Bytes that came after the archive had been declared complete.
    #[error("archive continues after its end")]
    AfterEnd,
}

impl TarProblem {
    fn is_between_members(&self) -> bool {
        matches!(
            self,
            Self::TruncatedHeader | Self::MissingTrailer | Self::SingleZeroBlock | Self::AfterTrailer | Self::AfterEnd
        )
    }
}

/// What is wrong with a number field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberProblem {
    /// The first byte is neither an octal digit nor the mark of a base-256 number: blanks, above all.
    #[error("does not begin with an octal digit")]
    NotOctal,
    /// Something else than blanks and NULs after the digits.
    #[error("has something else than blanks after its digits")]
    Trailing,
    /// Digits to the very end of the field.
    #[error("is not terminated")]
    Unterminated,
    /// A negative base-256 number.
    #[error("is negative")]
    Negative,
    /// More than the value can be.
    #[error("is out of range")]
    OutOfRange,
}

/// A name between quotes, with everything escaped that could disturb a terminal or a log.
pub(crate) fn quoted(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", name.escape_ascii()),
    }
}

/// What a type flag stands for elsewhere.
fn kind_name(flag: u8) -> String {
    let known = match flag {
        0 => "file of the time before ustar",
        b'1' => "hard link",
        b'3' => "character device",
        b'4' => "block device",
        b'6' => "fifo",
        b'7' => "contiguous file",
        b'x' => "pax header",
        b'g' => "global pax header",
        b'L' => "GNU long name",
        b'K' => "GNU long link target",
        b'S' => "GNU sparse file",
        _ => "unknown",
    };
    format!("\"{}\" ({known})", flag.escape_ascii())
}
