//! A push parser: chunks of an archive in, members out.

use bytes::{Buf, Bytes};

use super::error::{TarError, TarProblem};
use super::header::{BLOCK, MemberHeader, padding};

/// How an archive ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// With two zero blocks: servers since 15, and archives on disk.
    Required,
    /// After its last member: servers up to 14. Exactly two zero blocks are taken for an end as well.
    Absent,
}

/// What a [`TarReader`] finds, in order: `(Member Data* MemberEnd)* End?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarEvent {
    /// A member begins.
    Member(MemberHeader),
    /// Content of it, never empty; a slice of the pushed chunk.
    Data(Bytes),
    /// All of its content was given.
    MemberEnd,
    /// The two zero blocks. Without them an archive ends with [`TarReader::finish`] alone.
    End,
}

#[derive(Clone, Debug)]
enum State {
    /// Collecting a header; so many bytes of `header` are filled.
    Header(usize),
    /// Inside a member: bytes of content to come.
    Content(u64),
    /// Behind a member's content: bytes of padding to come.
    Padding(usize),
    /// Behind both zero blocks.
    Trailer,
    /// Finished.
    Ended,
    /// Refused; every further call says the same.
    Refused(TarError),
}

/// Cuts an archive into members as its bytes arrive, in chunks of whatever size.
///
/// Content is handed out as slices of the chunks, without a copy. Memory is constant; a push yields at most about three
/// events for each block in its chunk. After an error the reader stays in error.
///
/// ```
/// use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent, TarReader, Trailer};
///
/// let header = MemberHeader {
///     name: b"PG_VERSION".to_vec(), kind: MemberKind::File, mode: 0o600, uid: 0, gid: 0, size: 3, mtime: 0,
/// };
/// let mut archive = header.encode()?.to_vec();
/// archive.extend(b"18\n");
/// archive.resize(2048, 0);
///
/// let (mut reader, mut events) = (TarReader::new(Trailer::Required), Vec::new());
/// reader.push(archive.into(), &mut events)?;
/// reader.finish()?;
/// assert_eq!(events[1], TarEvent::Data("18\n".into()));
/// # Ok::<(), backstop_protocol::base_backup::tar::TarError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TarReader {
    trailer: Trailer,
    state: State,
    /// The header in the making, if it came in pieces.
    header: Box<[u8; BLOCK]>,
    /// Whether the block before was the first zero block.
    zero_block: bool,
    /// Padding after the current member.
    padding: usize,
    /// Bytes taken in.
    offset: u64,
    /// The name of the current or last member.
    member: Option<Vec<u8>>,
}

impl TarReader {
    /// A reader at the beginning of an archive.
    pub fn new(trailer: Trailer) -> Self {
        Self {
            trailer,
            state: State::Header(0),
            header: Box::new([0; BLOCK]),
            zero_block: false,
            padding: 0,
            offset: 0,
            member: None,
        }
    }

    /// The bytes taken in so far; after an error, the offset of what was refused.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the archive may end here: between members, or behind the trailer.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header(0) | State::Trailer | State::Ended) && !self.zero_block
    }

    /// Takes in the next bytes and appends what they hold to `out`. When it refuses, events that precede the problem are in
    /// `out` all the same.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut Vec<TarEvent>) -> Result<(), TarError> {
        if let State::Refused(error) = &self.state {
            return Err(error.clone());
        }
        while !chunk.is_empty() {
            self.step(&mut chunk, out).map_err(|error| self.refuse(error))?;
        }
        Ok(())
    }

    /// Declares that no more bytes come.
    ///
    /// # Errors
    /// An archive that ends inside a member, with a single zero block, or without a trailer that it must have.
    pub fn finish(&mut self) -> Result<(), TarError> {
        let problem = match &self.state {
            State::Refused(error) => return Err(error.clone()),
            State::Header(_) if self.zero_block => Some(TarProblem::SingleZeroBlock),
            State::Header(0) if self.trailer == Trailer::Required => Some(TarProblem::MissingTrailer),
            State::Header(0) | State::Trailer | State::Ended => None,
            State::Header(_) => Some(TarProblem::TruncatedHeader),
            State::Content(_) | State::Padding(_) => Some(TarProblem::Truncated),
        };
        match problem {
            None => {
                self.state = State::Ended;
                Ok(())
            }
            Some(problem) => {
                let error = self.here(problem);
                Err(self.refuse(error))
            }
        }
    }

    /// Takes in a part of a chunk that is not empty: up to the next change of state.
    fn step(&mut self, chunk: &mut Bytes, out: &mut Vec<TarEvent>) -> Result<(), TarError> {
        match self.state {
            State::Header(0) if chunk.len() >= BLOCK => {
                let block = chunk.split_to(BLOCK);
                let header = block.first_chunk().map_or_else(|| *self.header, |header| *header);
                self.offset += BLOCK as u64;
                self.take_header(&header, out)?;
            }
            State::Header(filled) => {
                let taken = chunk.len().min(BLOCK - filled);
                self.header[filled..filled + taken].copy_from_slice(&chunk[..taken]);
                self.advance(chunk, taken);
                self.state = State::Header(filled + taken);
                if filled + taken == BLOCK {
                    let header = *self.header;
                    self.take_header(&header, out)?;
                }
            }
            State::Content(remaining) => {
                let taken = usize::try_from(remaining).map_or(chunk.len(), |remaining| remaining.min(chunk.len()));
                out.push(TarEvent::Data(chunk.split_to(taken)));
                self.offset += taken as u64;
                self.state = State::Content(remaining - taken as u64);
                if remaining == taken as u64 {
                    self.end_member(out);
                }
            }
            State::Padding(remaining) => {
                let taken = remaining.min(chunk.len());
                if let Some(bad) = chunk[..taken].iter().position(|&byte| byte != 0) {
                    self.offset += bad as u64;
                    return Err(self.here(TarProblem::Padding));
                }
                self.advance(chunk, taken);
                self.state = if taken == remaining { State::Header(0) } else { State::Padding(remaining - taken) };
            }
            State::Trailer => return Err(self.here(TarProblem::AfterTrailer)),
            State::Ended => return Err(self.here(TarProblem::AfterEnd)),
            State::Refused(ref error) => return Err(error.clone()),
        }
        Ok(())
    }

    /// Acts on a whole block where a header or a zero block must stand.
    fn take_header(&mut self, block: &[u8; BLOCK], out: &mut Vec<TarEvent>) -> Result<(), TarError> {
        let start = self.offset - BLOCK as u64;
        let decoded = if self.zero_block && block.iter().any(|&byte| byte != 0) {
            Err(TarError { problem: TarProblem::SingleZeroBlock, member: self.member.clone(), offset: Some(start) })
        } else {
            MemberHeader::decode(block).map_err(|error| {
                let name = MemberHeader::raw_name(block);
                TarError { problem: error.problem, member: Some(name), offset: Some(start) }
            })
        };
        match decoded {
            Err(error) => {
                self.offset = start;
                return Err(error);
            }
            Ok(None) if self.zero_block => {
                self.zero_block = false;
                self.state = State::Trailer;
                out.push(TarEvent::End);
            }
            Ok(None) => {
                self.zero_block = true;
                self.state = State::Header(0);
            }
            Ok(Some(header)) => {
                self.member = Some(header.name.clone());
                self.padding = padding(header.size);
                self.state = State::Content(header.size);
                let empty = header.size == 0;
                out.push(TarEvent::Member(header));
                if empty {
                    self.end_member(out);
                }
            }
        }
        Ok(())
    }

    fn end_member(&mut self, out: &mut Vec<TarEvent>) {
        out.push(TarEvent::MemberEnd);
        self.state = if self.padding == 0 { State::Header(0) } else { State::Padding(self.padding) };
    }

    fn advance(&mut self, chunk: &mut Bytes, taken: usize) {
        chunk.advance(taken);
        self.offset += taken as u64;
    }

    /// The problem with the current member at the current offset.
    fn here(&self, problem: TarProblem) -> TarError {
        TarError { problem, member: self.member.clone(), offset: Some(self.offset) }
    }

    fn refuse(&mut self, error: TarError) -> TarError {
        self.state = State::Refused(error.clone());
        error
    }
}
