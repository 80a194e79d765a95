//! The file: lines, compressed, with a seal at the end.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use sha2::{Digest as _, Sha256};

use super::format::{Event, FORMAT, Foot, Head, hex};

/// What compressed data begins with.
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// No line is longer, in bytes. The longest that is written has the numbers of all blocks of a file.
pub(super) const MAX_LINE: usize = 2 << 20;

/// No cassette is larger, in bytes before compression: some hundred thousand members.
const MAX_TEXT: u64 = 512 << 20;

/// Of zstd: a recording has much in common with itself, and is written once.
const LEVEL: i32 = 9;

/// `ZSTD_WINDOWLOG_LIMIT_DEFAULT`: whoever reads needs no more memory than that.
const WINDOW_LOG: u32 = 27;

/// A file that is no cassette, or one that nobody can play.
#[derive(Debug, thiserror::Error)]
pub enum CassetteError {
    /// It cannot be read.
    #[error("could not read it: {0}")]
    Read(io::Error),
    /// It is something else.
    #[error("it is no cassette: {0}")]
    Foreign(String),
    /// It is of another format.
    #[error(
        "it is a cassette of format {0}, and this program reads format {FORMAT}: play it with the release that recorded it"
    )]
    Format(u32),
    /// Its end is missing.
    #[error(
        "it is cut short: what was recorded has no end. Was the recording interrupted, or the file copied in part?"
    )]
    Cut,
    /// It is not what was recorded.
    #[error("it was changed since it was recorded: {0}")]
    Changed(&'static str),
    /// A line that makes no sense.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1, of the text before compression.
        line: u64,
        /// What is wrong there.
        problem: String,
    },
    /// More than anybody reads.
    #[error("it has more than {} MiB of text", MAX_TEXT >> 20)]
    TooLarge,
}

impl CassetteError {
    pub(super) fn at(line: u64, problem: impl Into<String>) -> Self {
        Self::Line { line, problem: problem.into() }
    }
}

/// Writes a cassette.
pub(super) struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    lines: u64,
    sum: Sha256,
}

impl<W: Write> Writer<W> {
    /// A cassette that goes to `out`.
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(out, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut writer = Self { out: encoder, lines: 0, sum: Sha256::new() };
        let recorder = concat!("backstop ", env!("CARGO_PKG_VERSION")).to_owned();
        writer.line(&Head { cassette: FORMAT, recorder })?;
        Ok(writer)
    }

    fn line(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.sum.update(&text);
        self.lines += 1;
        self.out.write_all(&text)
    }

    pub(super) fn event(&mut self, connection: u32, event: &Event) -> io::Result<()> {
        self.line(&(connection, event))
    }

    /// Writes the seal: nothing follows.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let sha256 = hex(&self.sum.clone().finalize());
        let lines = self.lines;
        self.line(&Foot { lines, sha256 })?;
        let mut out = self.out.finish()?;
        out.flush()?;
        Ok(out)
    }
}

/// Reads a cassette: tells `each` of every event, with its line and its connection.
///
/// # Errors
/// What is wrong with the file, and what `each` makes of an event.
pub(super) fn read(
    input: impl Read,
    mut each: impl FnMut(u64, u32, Event) -> Result<(), CassetteError>,
) -> Result<(), CassetteError> {
    let mut input = BufReader::new(input);
    let mut magic = [0; 4];
    let mut head = (&mut input).take(4);
    let got = read_up_to(&mut head, &mut magic).map_err(CassetteError::Read)?;
    if magic[..got] != MAGIC {
        return Err(CassetteError::Foreign("it is not compressed with Zstandard".to_owned()));
    }
    let mut decoder = zstd::Decoder::with_buffer(BufReader::new(io::Cursor::new(magic).chain(input)))
        .map_err(CassetteError::Read)?
        .single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(CassetteError::Read)?;
    {
        let mut lines =
            Lines { text: BufReader::new(&mut decoder), number: 0, read: 0, sum: Sha256::new(), line: Vec::new() };
        lines.head()?;
        lines.events(&mut each)?;
    }
    let mut after = decoder.finish();
    if after.fill_buf().map_err(CassetteError::Read)?.is_empty() {
        Ok(())
    } else {
        Err(CassetteError::Changed("something follows its end"))
    }
}

/// Fills `buffer` as far as there is something to read.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest)? {
            0 => break,
            read => got += read,
        }
    }
    Ok(got)
}

/// The text, line by line.
struct Lines<R> {
    text: R,
    number: u64,
    read: u64,
    sum: Sha256,
    line: Vec<u8>,
}

impl<R: io::BufRead> Lines<R> {
    /// The next line, without its end.
    fn next(&mut self) -> Result<&[u8], CassetteError> {
        self.line.clear();
        let mut limited = (&mut self.text).take(MAX_LINE as u64 + 1);
        limited.read_until(b'\n', &mut self.line).map_err(broken)?;
        self.number += 1;
        self.read += self.line.len() as u64;
        match self.line.last() {
            Some(b'\n') if self.read > MAX_TEXT => Err(CassetteError::TooLarge),
            Some(b'\n') => {
                let end = self.line.len() - 1;
                Ok(self.line.get(..end).unwrap_or_default())
            }
            _ if self.line.len() > MAX_LINE => Err(CassetteError::at(self.number, "it is too long")),
            _ => Err(CassetteError::Cut),
        }
    }

    fn head(&mut self) -> Result<(), CassetteError> {
        // The format is looked at first: another one may have other keys beside it.
        let line = self.next().map_err(|error| match error {
            CassetteError::Line { problem, .. } => CassetteError::Foreign(problem),
            error => error,
        })?;
        let head: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        let format = head.get("cassette").and_then(serde_json::Value::as_u64);
        let format = format.and_then(|format| u32::try_from(format).ok());
        match format {
            None => return Err(CassetteError::Foreign("its first line names no format".to_owned())),
            Some(FORMAT) => {}
            Some(other) => return Err(CassetteError::Format(other)),
        }
        let head: Result<Head, _> = serde_json::from_slice(line);
        head.map_err(|error| CassetteError::at(1, error.to_string()))?;
        self.count();
        Ok(())
    }

    /// Takes the present line into the sum.
    fn count(&mut self) {
        self.sum.update(&self.line);
    }

    fn events(
        &mut self,
        each: &mut impl FnMut(u64, u32, Event) -> Result<(), CassetteError>,
    ) -> Result<(), CassetteError> {
        // What a line says is believed when the seal has been seen; until then an error in it may mean that it was changed.
        let mut doubtful = None;
        loop {
            let line = self.next()?;
            if line.first() == Some(&b'{') {
                let foot: Foot =
                    serde_json::from_slice(line).map_err(|error| CassetteError::at(self.number, error.to_string()))?;
                let intact = foot.lines == self.number - 1 && foot.sha256 == hex(&self.sum.clone().finalize());
                if !intact {
                    return Err(CassetteError::Changed("its lines are not those that were sealed"));
                }
                let mut rest = [0];
                if self.text.read(&mut rest).map_err(broken)? > 0 {
                    return Err(CassetteError::Changed("lines follow its seal"));
                }
                return doubtful.map_or(Ok(()), Err);
            }
            if doubtful.is_none() {
                let event: Result<(u32, Event), _> = serde_json::from_slice(line);
                let number = self.number;
                let taken = match event {
                    Ok((connection, event)) => each(number, connection, event),
                    Err(error) => Err(CassetteError::at(number, error.to_string())),
                };
                doubtful = taken.err();
            }
            self.count();
        }
    }
}

/// What the decoder says of a file that is not whole.
fn broken(error: io::Error) -> CassetteError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CassetteError::Cut,
        io::ErrorKind::Other | io::ErrorKind::InvalidData => CassetteError::Changed("its compressed bytes are damaged"),
        _ => CassetteError::Read(error),
    }
}
