//! Reading what passed on the wire: captures, bytes of one direction, or hexadecimal digits in; a line for each message out.
//!
//! [`source`] finds out what a file is and hands out pieces of connections; [`reassembly`] puts packets in order; a
//! [`Conversation`] cuts the bytes of both directions into messages and says what each means, and [`content`] follows archives
//! down to members and their offsets. Nothing here refuses: what is not understood is said, with the byte at which that begins.

mod content;
pub mod conversation;
mod copy;
pub mod line;
pub mod packets;
pub mod reassembly;
pub mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

pub use self::conversation::{Conversation, From};
pub use self::line::Line;
use self::source::Piece;

/// A capture with more connections than this is read no further.
const MAX_CONNECTIONS: usize = 10_000;

/// Why a file cannot be decoded at all.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be read.
    #[error("could not read: {0}")]
    Read(io::Error),
    /// The output cannot be written.
    #[error(transparent)]
    Write(io::Error),
    /// Hexadecimal digits that are none.
    #[error("line {line}, column {column}: {problem}")]
    Hex {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A capture that is damaged or of an unknown kind.
    #[error("{0}")]
    Capture(String),
    /// More connections than anybody reads about.
    #[error("the capture has more than {MAX_CONNECTIONS} connections")]
    TooMany,
}

/// Decodes `input` and writes a line for each message, and more below it for what is inside. `from` says who sent the bytes where the
/// input does not.
///
/// # Errors
/// An input that is broken as a file. What its connections hold is never an error.
pub fn decode(input: impl Read + Send, from: Option<From>, out: &mut impl Write) -> Result<(), DecodeError> {
    let mut connections: BTreeMap<u32, Conversation> = BTreeMap::new();
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    source::read(input, from, &mut |piece| {
        let (number, lines) = match piece {
            Piece::Connection { number, name } => {
                writeln!(out, "connection #{number}: {name}").map_err(DecodeError::Write)?;
                names.insert(number, name);
                return if names.len() > MAX_CONNECTIONS { Err(DecodeError::TooMany) } else { Ok(()) };
            }
            Piece::Bytes { number, at, from, bytes } => {
                (number, connections.entry(number).or_default().push(at, from, &bytes))
            }
            Piece::Missing { number, at, from, bytes } => {
                (number, connections.entry(number).or_default().missing(at, from, bytes))
            }
            Piece::LeftOut { number, what } => (number, connections.entry(number).or_default().left_out(&what)),
            Piece::End { number } => {
                (number, connections.remove(&number).map(Conversation::finish).unwrap_or_default())
            }
        };
        lines.iter().try_for_each(|line| line.write(number, out)).map_err(DecodeError::Write)
    })?;
    for (number, conversation) in connections {
        conversation.finish().iter().try_for_each(|line| line.write(number, out)).map_err(DecodeError::Write)?;
    }
    out.flush().map_err(DecodeError::Write)
}
