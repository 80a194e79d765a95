//! Names of the files in which `pg_receivewal` keeps WAL.

use std::fmt;
use std::str::FromStr;

use crate::base_backup::options::CompressionAlgorithm;
use crate::wal_file::WalFileName;

/// What follows the name of a segment that is not complete.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// A file that holds a segment, or the beginning of one: `000000010000000000000003.gz.partial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivedSegment {
    /// The segment.
    pub file: WalFileName,
    /// How it is compressed. `pg_receivewal` itself knows no files of Zstandard, archive commands do.
    pub compression: CompressionAlgorithm,
    /// Whether it is not complete yet.
    pub partial: bool,
}

impl fmt::Display for ArchivedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partial = if self.partial { PARTIAL_SUFFIX } else { "" };
        write!(f, "{}{}{partial}", self.file, self.compression.suffix())
    }
}

/// A text that is not the name of a segment in an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid name {0:?} of an archived WAL segment: expected one such as \"000000010000000000000003.gz.partial\"")]
pub struct InvalidArchivedName(pub String);

impl FromStr for ArchivedSegment {
    type Err = InvalidArchivedName;

    fn from_str(name: &str) -> Result<Self, InvalidArchivedName> {
        let invalid = || InvalidArchivedName(name.to_owned());
        let (rest, partial) = match name.strip_suffix(PARTIAL_SUFFIX) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (file, suffix) = rest.split_at_checked(24).ok_or_else(invalid)?;
        let known = CompressionAlgorithm::ALL.into_iter().find(|algorithm| algorithm.suffix() == suffix);
        let compression = known.ok_or_else(invalid)?;
        Ok(Self { file: file.parse().map_err(|_| invalid())?, compression, partial })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_has_its_name() {
        let forms = ["", ".gz", ".lz4", ".zst"];
        for form in forms.iter().flat_map(|form| [(*form).to_owned(), format!("{form}{PARTIAL_SUFFIX}")]) {
            let name = format!("00000001000000000000000A{form}");
            let parsed: ArchivedSegment = name.parse().expect(&name);
            assert_eq!((parsed.to_string(), parsed.partial), (name, form.ends_with(PARTIAL_SUFFIX)));
        }
    }

    #[test]
    fn other_names_are_refused() {
        let names = [
            "",
            ".partial",
            "00000002.history",
            "00000001000000000000000a",
            "00000001000000000000000A.partial.gz",
            "00000001000000000000000A.bz2",
            "00000001000000000000000A.00000028.backup",
            "00000001000000000000000A.gz.gz",
        ];
        for name in names {
            assert!(name.parse::<ArchivedSegment>().is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in ".{0,40}") {
            if let Ok(name) = text.parse::<ArchivedSegment>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
