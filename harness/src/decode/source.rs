//! What a file is: a capture of packets, hexadecimal digits, or the bytes of one direction.

use std::io::{Cursor, Read};
use std::time::Duration;

use super::{DecodeError, From, packets};

/// How much is read at a time, and looked at to find out what a file is.
const CHUNK: usize = 64 << 10;

/// No text of hexadecimal digits is longer, in bytes.
const MAX_HEX: u64 = 256 << 20;

/// Something of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It begins.
    Connection {
        /// Its number, from 1.
        number: u32,
        /// Both ends.
        name: String,
    },
    /// The next bytes of a direction.
    Bytes {
        /// Which connection.
        number: u32,
        /// Since the capture's beginning.
        at: Option<Duration>,
        /// Who sent them.
        from: From,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Bytes that were not captured.
    Missing {
        /// Which connection.
        number: u32,
        /// Since the capture's beginning.
        at: Option<Duration>,
        /// Who sent them.
        from: From,
        /// How many.
        bytes: u64,
    },
    /// Whole messages of the server that whoever took it down left out.
    LeftOut {
        /// Which connection.
        number: u32,
        /// What is said of them.
        what: String,
    },
    /// It is over.
    End {
        /// Which connection.
        number: u32,
    },
}

/// Reads `input`, whatever it is. `from` says who sent the bytes where neither the input nor its first byte does.
pub(super) fn read(
    mut input: impl Read + Send,
    from: Option<From>,
    each: &mut dyn FnMut(Piece) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut head = Vec::new();
    (&mut input).take(CHUNK as u64).read_to_end(&mut head).map_err(DecodeError::Read)?;
    if packets::is_capture(&head) {
        return packets::read(Cursor::new(head).chain(input), each);
    }
    if is_hex(&head) {
        let mut text = head;
        input.take(MAX_HEX).read_to_end(&mut text).map_err(DecodeError::Read)?;
        return hex(&text, from, each);
    }
    let from = from.unwrap_or_else(|| sender(&head));
    let mut bytes = head;
    while !bytes.is_empty() {
        each(Piece::Bytes { number: 1, at: None, from, bytes: std::mem::take(&mut bytes) })?;
        (&mut input).take(CHUNK as u64).read_to_end(&mut bytes).map_err(DecodeError::Read)?;
    }
    Ok(())
}

/// Who speaks first with such bytes: a packet without a type comes from a client.
fn sender(bytes: &[u8]) -> From {
    if bytes.first() == Some(&0) { From::Client } else { From::Server }
}

/// Whether a file is a text of hexadecimal digits, with the signs of [`hex`].
fn is_hex(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let digits = |line: &[u8]| match line.strip_prefix(b"<").or(line.strip_prefix(b">")) {
        // Nobody's first message begins so: whoever wrote the sign meant it.
        Some(line) => line.trim_ascii_start().first().is_none_or(u8::is_ascii_hexdigit),
        None => line.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace()),
    };
    let first = lines.find(|line| !line.starts_with(b"#") && !line.starts_with(b"..."));
    first.is_some_and(digits)
}

/// Hexadecimal digits, with blanks anywhere between them. A line that begins with `<` comes from the client, one with `>` from the server,
/// one with neither from whom the line before came. `#` begins a comment, `...` a remark on messages of the server that were left out.
fn hex(
    text: &[u8],
    from: Option<From>,
    each: &mut dyn FnMut(Piece) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut from = from;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if let Some(what) = line.strip_prefix(b"...") {
            each(Piece::LeftOut { number: 1, what: String::from_utf8_lossy(what).trim().to_owned() })?;
            continue;
        }
        let digits = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let (digits, before) = match digits.first() {
            Some(b'<') => (&digits[1..], Some(From::Client)),
            Some(b'>') => (&digits[1..], Some(From::Server)),
            _ => (digits, None),
        };
        let skipped = usize::from(before.is_some());
        let bytes = unhex(digits).map_err(|(column, problem)| DecodeError::Hex {
            line: index + 1,
            column: column + skipped + 1,
            problem,
        })?;
        if bytes.is_empty() {
            continue;
        }
        let sender = before.or(from).unwrap_or_else(|| sender(&bytes));
        from = Some(sender);
        each(Piece::Bytes { number: 1, at: None, from: sender, bytes })?;
    }
    Ok(())
}

/// The bytes, or the column, from 0, of what is wrong and what that is.
fn unhex(digits: &[u8]) -> Result<Vec<u8>, (usize, String)> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for (column, digit) in digits.iter().enumerate() {
        if digit.is_ascii_whitespace() {
            continue;
        }
        let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or_else(|| (column, format!("\"{}\" is no hexadecimal digit", digit.escape_ascii())))?;
        match high.take() {
            None => high = Some(value),
            Some(high) => bytes.push(high << 4 | value),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err((digits.len(), "half a byte at the end of the line".to_owned())),
    }
}
