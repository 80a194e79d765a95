//! The tar archives of a base backup: the narrow ustar that PostgreSQL writes, and nothing wider.
//!
//! A base backup knows files, directories and symbolic links, names of at most 99 bytes, and no extension but base-256
//! numbers. [`MemberHeader`] is one 512-byte header; [`TarReader`] cuts a pushed stream into members. Both refuse whatever
//! two tar readers could understand differently: pax and GNU extension headers, split names, blanks before numbers, text
//! after a NUL. The one liberty is the magic of releases before 9.2.2, which wrote `ustar00` (see [`MemberHeader::decode`]).

mod error;
mod header;
mod reader;
#[cfg(test)]
mod tests;

pub use error::{NumberProblem, TarError, TarProblem};
pub use header::{BLOCK, MAX_NAME, MAX_SIZE, MemberHeader, MemberKind, padded_size, padding};
pub use reader::{TarEvent, TarReader, Trailer};
