//! Cassettes: what clients and a server said to each other, in a file of kilobytes, and a server that says it again.
//!
//! A cassette holds messages in order, with their connection and direction, the headers of archive members and their sizes, and
//! checksums. It holds no contents: pages, WAL and rows are left out, and so are passwords, the exchanges that prove them, and keys.
//! When a cassette is played, contents are made up again: pages with valid headers and checksums, WAL whose records parse and end where
//! the recorded backup ended, and a manifest whose checksums are those of what is sent. What did not fit together in the recording does
//! not fit together again.
//!
//! | to | see |
//! |---|---|
//! | know what a file holds, line by line | [`mod@format`] |
//! | write and read such files | [`mod@file`] |
//! | record | [`Recorder`], `copying`, `redact` |
//! | understand a recording as questions and their answers | [`Tape`] |
//! | make up what was left out | `contents`, `wal` |
//! | play | [`Player`], `answer` |
//! | judge clients by it | [`original`] |

mod answer;
mod contents;
mod copying;
pub mod file;
pub mod format;
mod manifest;
mod matching;
mod original;
mod player;
mod recorder;
mod redact;
mod sizes;
mod tape;
#[cfg(test)]
mod tests;
mod wal;

pub use self::file::CassetteError;
pub use self::original::Recorded;
pub use self::player::Player;
pub use self::recorder::Recorder;
pub use self::tape::Tape;
