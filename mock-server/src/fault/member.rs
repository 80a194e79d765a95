//! What actions say of the header of an archive member.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of an archive member. PostgreSQL writes files, directories and symlinks only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberType {
    /// `0`
    #[default]
    File,
    /// `1`
    HardLink,
    /// `2`
    Symlink,
    /// `3`
    CharacterDevice,
    /// `4`
    BlockDevice,
    /// `5`
    Directory,
    /// `6`
    Fifo,
    /// `7`, which POSIX reserves.
    Contiguous,
    /// `x`: records of pax for the next member.
    PaxHeader,
    /// `g`: records of pax for all members that follow.
    GlobalPaxHeader,
    /// `L`: the name of the next member, by GNU tar.
    LongName,
    /// `K`: the link target of the next member, by GNU tar.
    LongLink,
    /// `S`: a file with holes, by GNU tar.
    Sparse,
}

impl MemberType {
    /// `typeflag`.
    pub(crate) fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharacterDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Contiguous => b'7',
            Self::PaxHeader => b'x',
            Self::GlobalPaxHeader => b'g',
            Self::LongName => b'L',
            Self::LongLink => b'K',
            Self::Sparse => b'S',
        }
    }

    /// Whether bytes follow the header.
    pub(crate) fn has_content(self) -> bool {
        !self.is_link() && !matches!(self, Self::CharacterDevice | Self::BlockDevice | Self::Directory | Self::Fifo)
    }

    /// Whether the header names a target.
    pub(crate) fn is_link(self) -> bool {
        matches!(self, Self::HardLink | Self::Symlink)
    }
}

/// A field of a header, as POSIX calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are POSIX's")]
pub enum HeaderField {
    Name,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Typeflag,
    Linkname,
    /// With `version` behind it.
    Magic,
    Uname,
    Gname,
    Prefix,
}

impl HeaderField {
    /// Where it lies in the header.
    pub(crate) fn range(self) -> Range<usize> {
        match self {
            Self::Name => 0..100,
            Self::Mode => 100..108,
            Self::Uid => 108..116,
            Self::Gid => 116..124,
            Self::Size => 124..136,
            Self::Mtime => 136..148,
            Self::Typeflag => 156..157,
            Self::Linkname => 157..257,
            Self::Magic => 257..265,
            Self::Uname => 265..297,
            Self::Gname => 297..329,
            Self::Prefix => 345..500,
        }
    }
}

/// Permission bits, written in octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mode(pub u32);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let octal = !text.is_empty() && text.len() <= 7 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let mode = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten();
        mode.map(Self).ok_or_else(|| format!("invalid mode {text:?}: expected up to 7 octal digits such as \"4777\""))
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(Mode::try_from("4777".to_owned()), Ok(Mode(0o4777)));
        assert_eq!(String::from(Mode(0o600)), "0600");
        for text in ["", "8", "-1", "0o7", "77777777"] {
            assert!(Mode::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
