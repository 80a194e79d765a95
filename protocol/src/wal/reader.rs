//! Verifies WAL as it arrives.
//!
//! [`WalReader`] takes bytes from the start of a segment on, in pieces of any size, and checks what a server checks when it
//! replays: page headers, record lengths, links to the record before, CRCs, and the layout of bodies. It holds no more of a
//! record than its header and the first 4 KiB of its body.
//!
//! In what a server streams, an error is an error. In a segment file of `pg_wal` that has been recycled, it is how WAL ends:
//! what follows is left from an earlier life of the file. Whoever reads such files compares
//! [`valid_to`](WalReader::valid_to) with the position that has to be reached.

mod error;
mod pages;
mod records;
#[cfg(test)]
mod tests;

use crate::lsn::Lsn;
use crate::timeline::{TimelineHistory, TimelineId};
use crate::version::ServerVersion;
use crate::wal_file::WalSegmentSize;

use super::page::{LONG_HEADER_SIZE, Layout, WAL_PAGE_SIZE};
use super::record::block::BodyLayout;
use super::record::{RECORD_ALIGNMENT, RECORD_HEADER_SIZE, Record, RecordHeader};

pub use error::{WalError, WalProblem};

/// Whose WAL is read, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalReaderConfig {
    /// The release that wrote it.
    pub version: ServerVersion,
    /// The cluster that wrote it; if it is not known, the first segment decides.
    pub system_identifier: Option<u64>,
    /// How often a long header comes.
    pub segment_size: WalSegmentSize,
    /// The timeline that is read.
    pub timeline: TimelineId,
    /// Its history: every page must be of the timeline that its first byte belongs to. Without a history pages of earlier
    /// timelines are taken, too, as long as the numbers do not go down.
    pub history: Option<TimelineHistory>,
    /// The start of a segment. Any other position is rounded down to one.
    pub start: Lsn,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends, rounded up to a multiple of 8.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// What it means.
    pub record: Record,
    /// Which blocks it changes, and how much of it is what.
    pub layout: BodyLayout,
}

/// Who hears of records, if anybody does.
type Told<'a> = Option<&'a mut dyn FnMut(ReadRecord)>;

/// How WAL ended so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalTail {
    /// Not at all: another record can follow.
    Open,
    /// Within a record or a page header.
    Partial,
    /// With a SWITCH; zero bytes follow to the end of the segment.
    Switch,
    /// With zero bytes where a record or a page should begin: nothing was written there.
    Zero,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Before a record, or in the padding before it.
    Between,
    /// Within a record that began before the start; so many bytes are left.
    Skipping(u64),
    /// Within a record.
    Record(Partial),
    /// Behind the last record of a segment.
    Empty { switched: bool },
    /// Behind a segment that ended without a SWITCH.
    Ended,
}

#[derive(Clone, Debug)]
struct Partial {
    start: Lsn,
    head: [u8; RECORD_HEADER_SIZE],
    /// Bytes taken, of header and body.
    taken: u64,
    /// Known once the first four bytes are.
    total: Option<u32>,
    body_crc: u32,
}

impl Partial {
    fn left(&self) -> u64 {
        u64::from(self.total.unwrap_or(u32::MAX)).saturating_sub(self.taken)
    }
}

/// A push parser for WAL.
#[derive(Clone, Debug)]
pub struct WalReader {
    config: WalReaderConfig,
    layout: Layout,
    /// The next byte expected.
    position: Lsn,
    /// The header of the page that `position` is on, as far as it came.
    page_header: Vec<u8>,
    phase: Phase,
    /// The beginning of the body of the record under way.
    body: Vec<u8>,
    valid_to: Lsn,
    last_record: Option<Lsn>,
    latest_timeline: TimelineId,
    tail: WalTail,
    /// Whether what follows a SWITCH is looked at.
    reads_tail: bool,
    records: u64,
    failure: Option<WalError>,
}

impl WalReader {
    /// A reader that expects the first byte of the segment that holds `config.start`.
    pub fn new(config: WalReaderConfig) -> Self {
        let start = config.segment_size.round_down(config.start);
        Self {
            layout: Layout(config.segment_size),
            position: start,
            page_header: Vec::with_capacity(LONG_HEADER_SIZE),
            phase: Phase::Between,
            body: Vec::new(),
            valid_to: start,
            last_record: None,
            latest_timeline: TimelineId(0),
            tail: WalTail::Open,
            reads_tail: true,
            records: 0,
            failure: None,
            config: WalReaderConfig { start, ..config },
        }
    }

    /// The same reader that takes whatever follows a SWITCH to the end of the segment, as recovery does: it goes on with the
    /// next segment. A server leaves zero bytes there.
    #[must_use]
    pub fn passing_over_tails(mut self) -> Self {
        self.reads_tail = false;
        self
    }

    /// The next byte expected: the start, plus what was pushed.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The end of the last whole and valid record, rounded up to a multiple of 8; the end of a segment that a SWITCH left
    /// empty. A record that began before the start counts as valid, as nothing can be said against it.
    pub fn valid_to(&self) -> Lsn {
        self.valid_to
    }

    /// Where the last valid record begins.
    pub fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    /// Valid records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How often a long header comes.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.config.segment_size
    }

    /// The cluster that wrote the WAL, once it is known.
    pub fn system_identifier(&self) -> Option<u64> {
        self.config.system_identifier
    }

    /// How WAL ended so far.
    pub fn tail(&self) -> WalTail {
        match self.phase {
            Phase::Record(_) | Phase::Skipping(_) => WalTail::Partial,
            Phase::Between if !self.position.0.is_multiple_of(WAL_PAGE_SIZE) && !self.header_complete() => {
                WalTail::Partial
            }
            Phase::Between | Phase::Empty { .. } | Phase::Ended => self.tail,
        }
    }

    /// Takes the next bytes. After an error every call returns the same error.
    pub fn push(&mut self, data: &[u8]) -> Result<(), WalError> {
        self.read(data, None)
    }

    /// Takes the next bytes and tells every record that they complete.
    pub fn push_with(&mut self, data: &[u8], mut on_record: impl FnMut(ReadRecord)) -> Result<(), WalError> {
        self.read(data, Some(&mut on_record))
    }

    fn read(&mut self, data: &[u8], mut told: Told<'_>) -> Result<(), WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut rest = data;
        while !rest.is_empty() {
            let taken = self.step(rest, &mut told).inspect_err(|error| self.failure = Some(error.clone()))?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Tells that nothing follows: an error if a record was begun and not finished.
    pub fn finish(&self) -> Result<(), WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        match &self.phase {
            Phase::Record(partial) => Err(WalError { at: partial.start, problem: WalProblem::Truncated }),
            Phase::Skipping(_) => Err(WalError { at: self.config.start, problem: WalProblem::Truncated }),
            _ => Ok(()),
        }
    }

    /// Takes some of `data`, which is not empty: at least one byte, none beyond the page.
    fn step(&mut self, data: &[u8], told: &mut Told<'_>) -> Result<usize, WalError> {
        let page = self.position.align_down(WAL_PAGE_SIZE);
        let page_left = page + WAL_PAGE_SIZE - self.position;
        let data = data.get(..bounded(page_left, data.len())).unwrap_or_default();
        match self.phase {
            Phase::Empty { switched } => return self.empty(data, switched),
            Phase::Ended => return Err(WalError { at: self.valid_to, problem: WalProblem::Hole }),
            Phase::Between | Phase::Skipping(_) | Phase::Record(_) => {}
        }
        if self.position == page {
            self.page_header.clear();
        }
        if !self.header_complete() {
            let missing = self.layout.header_size(page) - (self.position - page);
            let part = data.get(..bounded(missing, data.len())).unwrap_or_default();
            self.page_header.extend_from_slice(part);
            self.position = self.position + part.len() as u64;
            if self.header_complete() {
                self.begin_page(page)?;
            }
            return Ok(part.len());
        }
        let taken = match &mut self.phase {
            Phase::Skipping(left) => {
                let part = bounded(*left, data.len());
                *left -= part as u64;
                if *left == 0 {
                    self.phase = Phase::Between;
                    self.valid_to = (self.position + part as u64).align_up(RECORD_ALIGNMENT);
                }
                part
            }
            Phase::Record(_) => return self.part(data, told),
            _ => {
                let padding = self.position.align_up(RECORD_ALIGNMENT) - self.position;
                if padding == 0 {
                    let taken = self.whole(data, told)?;
                    if taken > 0 {
                        return Ok(taken);
                    }
                    self.phase = Phase::Record(Partial {
                        start: self.position,
                        head: [0; RECORD_HEADER_SIZE],
                        taken: 0,
                        total: None,
                        body_crc: 0,
                    });
                    return self.part(data, told);
                }
                bounded(padding, data.len())
            }
        };
        self.position = self.position + taken as u64;
        Ok(taken)
    }

    fn header_complete(&self) -> bool {
        let page = self.position.align_down(WAL_PAGE_SIZE);
        self.position > page && self.page_header.len() as u64 == self.layout.header_size(page)
    }

    /// What follows the last record of a segment.
    fn empty(&mut self, data: &[u8], switched: bool) -> Result<usize, WalError> {
        let looks = self.reads_tail || !switched;
        if let Some(offset) = first_that_is_not_zero(data).filter(|_| looks) {
            return Err(WalError { at: self.position + offset as u64, problem: WalProblem::NotEmpty });
        }
        self.position = self.position + data.len() as u64;
        if self.config.segment_size.offset_of(self.position) == 0 {
            self.phase = if switched { Phase::Between } else { Phase::Ended };
            if switched {
                self.valid_to = self.position;
            }
        }
        Ok(data.len())
    }
}

/// The smaller of a count of bytes and what there is.
fn bounded(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(there)
}

/// The end of a segment is mostly zeros: they are looked at in blocks.
fn first_that_is_not_zero(data: &[u8]) -> Option<usize> {
    let (blocks, _) = data.as_chunks::<64>();
    let zeros = blocks.iter().take_while(|block| block.iter().fold(0, |all, byte| all | byte) == 0).count() * 64;
    Some(zeros + data.get(zeros..)?.iter().position(|byte| *byte != 0)?)
}
