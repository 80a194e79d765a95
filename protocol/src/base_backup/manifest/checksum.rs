//! The checksums that a manifest can hold, `pg_checksum_type`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// `pg_checksum_type`: how the files of a backup are checksummed (BASE_BACKUP's `MANIFEST_CHECKSUMS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumAlgorithm {
    /// No checksums: the manifest then has neither of the two keys.
    None,
    /// CRC-32 with Castagnoli's polynomial, what the server chooses when nothing is said.
    #[default]
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// Every algorithm, in the order of `pg_checksum_type`.
    pub const ALL: [Self; 6] = [Self::None, Self::Crc32c, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name as the server prints it: `CRC32C`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The length of a checksum in bytes, 0 for [`None`](Self::None).
    pub fn digest_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that `pg_checksum_parse_type` does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized checksum algorithm: \"{}\"", .0.escape_debug())]
pub struct UnrecognizedAlgorithm(pub String);

impl FromStr for ChecksumAlgorithm {
    type Err = UnrecognizedAlgorithm;

    /// Reads a name in whatever case, as `pg_checksum_parse_type` does.
    fn from_str(name: &str) -> Result<Self, UnrecognizedAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnrecognizedAlgorithm(name.to_owned()))
    }
}

/// A running checksum, `pg_checksum_context`.
#[derive(Clone, Debug)]
pub struct ChecksumHasher(State);

#[derive(Clone, Debug)]
enum State {
    None,
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

/// A checksum that has to be made from the first byte to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checksums of pieces cannot be put together")]
pub struct Indivisible;

impl ChecksumHasher {
    /// A checksum of nothing yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::None => State::None,
            ChecksumAlgorithm::Crc32c => State::Crc32c(0),
            ChecksumAlgorithm::Sha224 => State::Sha224(Sha224::new()),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha384 => State::Sha384(Sha384::new()),
            ChecksumAlgorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Takes in the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::None => {}
            State::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            State::Sha224(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha384(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Takes in `length` bytes whose checksum was made apart, in the same way: large files can be read in several places at once.
    ///
    /// # Errors
    /// Only CRC-32C can be put together.
    pub fn append(&mut self, following: &Self, length: usize) -> Result<(), Indivisible> {
        match (&mut self.0, &following.0) {
            (State::Crc32c(crc), State::Crc32c(following)) => *crc = crc32c::crc32c_combine(*crc, *following, length),
            (State::None, State::None) => {}
            _ => return Err(Indivisible),
        }
        Ok(())
    }

    /// The checksum, in the order in which the manifest prints its bytes: a CRC least significant byte first, because the
    /// server prints the four bytes as its (little-endian) memory holds them.
    pub fn finish(self) -> Vec<u8> {
        match self.0 {
            State::None => Vec::new(),
            State::Crc32c(crc) => crc.to_le_bytes().to_vec(),
            State::Sha224(state) => state.finalize().to_vec(),
            State::Sha256(state) => state.finalize().to_vec(),
            State::Sha384(state) => state.finalize().to_vec(),
            State::Sha512(state) => state.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base_backup::manifest::hex;

    fn checksum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> String {
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(bytes);
        hex::encode(&hasher.finish())
    }

    #[test]
    fn computes_the_published_values() {
        assert_eq!(checksum(ChecksumAlgorithm::None, b"abc"), "");
        // The CRC's check value is e3069283, printed least significant byte first.
        assert_eq!(checksum(ChecksumAlgorithm::Crc32c, b"123456789"), "839206e3");
        assert_eq!(
            checksum(ChecksumAlgorithm::Sha224, b"abc"),
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"
        );
        assert_eq!(
            checksum(ChecksumAlgorithm::Sha256, b"18\n"),
            "7ee29791fc17e986b97128845622b077fb45e349fdb80523fac9dba879b4ad60"
        );
        assert!(checksum(ChecksumAlgorithm::Sha384, b"abc").starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab"));
        assert!(checksum(ChecksumAlgorithm::Sha512, b"abc").starts_with("ddaf35a193617abacc417349ae20413112e6fa4e"));
    }

    #[test]
    fn names_are_read_in_any_case() {
        for algorithm in ChecksumAlgorithm::ALL {
            assert_eq!(algorithm.to_string().to_lowercase().parse(), Ok(algorithm));
            assert_eq!(ChecksumHasher::new(algorithm).finish().len(), algorithm.digest_len());
        }
        let refusal = "bo\ngus".parse::<ChecksumAlgorithm>().unwrap_err();
        assert_eq!(refusal.to_string(), "unrecognized checksum algorithm: \"bo\\ngus\"");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes: Vec<u8>, cut: proptest::sample::Index, which in 0_usize..6) {
            let algorithm = ChecksumAlgorithm::ALL[which];
            let mut hasher = ChecksumHasher::new(algorithm);
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hex::encode(&hasher.finish()), checksum(algorithm, &bytes));
        }

        #[test]
        fn sums_of_pieces_are_put_together(bytes: Vec<u8>, cut: proptest::sample::Index, which in 0_usize..6) {
            let algorithm = ChecksumAlgorithm::ALL[which];
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let [mut sum, mut following] = [(); 2].map(|()| ChecksumHasher::new(algorithm));
            sum.update(head);
            following.update(tail);
            let divisible = matches!(algorithm, ChecksumAlgorithm::None | ChecksumAlgorithm::Crc32c);
            prop_assert_eq!(sum.append(&following, tail.len()).is_ok(), divisible);
            prop_assert!(!divisible || hex::encode(&sum.finish()) == checksum(algorithm, &bytes));
        }
    }
}
