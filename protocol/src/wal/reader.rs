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
#[cfg(test)]
mod tests;

use crate::lsn::Lsn;
use crate::timeline::{TimelineHistory, TimelineId};
use crate::version::ServerVersion;
use crate::wal_file::WalSegmentSize;

use super::page::{LONG_HEADER_SIZE, Layout, WAL_PAGE_SIZE};
use super::record::block::{BodyLayout, MAX_LAYOUT_SIZE};
use super::record::{
    MAX_RECORD_SIZE, RECORD_ALIGNMENT, RECORD_HEADER_SIZE, RM_MAX_BUILTIN, RM_MIN_CUSTOM, RM_STANDBY, RM_XLOG, Record,
    RecordError, RecordHeader, XLogRecord, finish_crc, info,
};

pub use error::{WalError, WalProblem};

/// Of larger bodies, and of those whose meaning is not known, only the layout is kept; their records are told as
/// [`Record::Other`].
const MAX_KEPT_BODY: usize = 4096;

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
    /// Whether the body is small and may have a meaning.
    meaningful: bool,
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
        self.push_with(data, |_| {})
    }

    /// Takes the next bytes and tells every record that they complete.
    pub fn push_with(&mut self, data: &[u8], mut on_record: impl FnMut(ReadRecord)) -> Result<(), WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut rest = data;
        while !rest.is_empty() {
            let taken = self.step(rest, &mut on_record).inspect_err(|error| self.failure = Some(error.clone()))?;
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
    fn step(&mut self, data: &[u8], on_record: &mut impl FnMut(ReadRecord)) -> Result<usize, WalError> {
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
            Phase::Record(_) => return self.record(data, on_record),
            _ => {
                let padding = self.position.align_up(RECORD_ALIGNMENT) - self.position;
                if padding == 0 {
                    self.phase = Phase::Record(Partial {
                        start: self.position,
                        head: [0; RECORD_HEADER_SIZE],
                        taken: 0,
                        total: None,
                        body_crc: 0,
                        meaningful: false,
                    });
                    return self.record(data, on_record);
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
        if let Some(offset) = data.iter().position(|&byte| looks && byte != 0) {
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

    /// Takes bytes of a record.
    fn record(&mut self, data: &[u8], on_record: &mut impl FnMut(ReadRecord)) -> Result<usize, WalError> {
        let Phase::Record(partial) = &mut self.phase else { return Ok(0) };
        let at = partial.start;
        let fail = |problem| Err(WalError { at, problem });
        // The length first: it is never cut, and without it nothing else has a meaning.
        let have = usize::try_from(partial.taken).unwrap_or(usize::MAX);
        let until = if have < 4 { 4 } else { RECORD_HEADER_SIZE };
        if let Some(room) = partial.head.get_mut(have..until).filter(|room| !room.is_empty()) {
            let part = room.len().min(data.len());
            room.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            partial.taken += part as u64;
            self.position = self.position + part as u64;
            if part < until - have {
                return Ok(part);
            }
            let header = RecordHeader::decode(&partial.head);
            if until == 4 {
                if header.total_length == 0 {
                    self.phase = Phase::Empty { switched: false };
                    self.tail = WalTail::Zero;
                } else if !(RECORD_HEADER_SIZE as u64..=MAX_RECORD_SIZE.into()).contains(&header.total_length.into()) {
                    return fail(WalProblem::RecordLength(header.total_length));
                } else {
                    partial.total = Some(header.total_length);
                }
                return Ok(part);
            }
            let manager = header.resource_manager;
            let custom = manager >= RM_MIN_CUSTOM && self.config.version.has_custom_resource_managers();
            if manager > RM_MAX_BUILTIN && !custom {
                return fail(WalProblem::ResourceManager(manager));
            }
            if self.last_record.map_or(header.prev >= at, |last| header.prev != last) {
                return fail(WalProblem::PrevLink(header.prev));
            }
            partial.meaningful = matches!(manager, RM_XLOG | RM_STANDBY)
                && (manager, header.info & info::MASK) != (RM_XLOG, info::NOOP)
                && partial.left() <= MAX_KEPT_BODY as u64;
            self.body.clear();
            if partial.left() == 0 {
                self.complete(on_record)?;
            }
            return Ok(part);
        }
        let part = data.get(..bounded(partial.left(), data.len())).unwrap_or_default();
        partial.taken += part.len() as u64;
        partial.body_crc = crc32c::crc32c_append(partial.body_crc, part);
        let kept = if partial.meaningful { MAX_KEPT_BODY } else { MAX_LAYOUT_SIZE };
        let missing = kept.saturating_sub(self.body.len()).min(part.len());
        self.body.extend(part.iter().take(missing));
        self.position = self.position + part.len() as u64;
        if partial.left() == 0 {
            self.complete(on_record)?;
        }
        Ok(part.len())
    }

    /// A record's last byte was taken.
    fn complete(&mut self, on_record: &mut impl FnMut(ReadRecord)) -> Result<(), WalError> {
        let Phase::Record(partial) = std::mem::replace(&mut self.phase, Phase::Between) else { return Ok(()) };
        let start = partial.start;
        let header = RecordHeader::decode(&partial.head);
        let RecordHeader { xid, prev, info, resource_manager, .. } = header;
        if finish_crc(partial.body_crc, &partial.head) != header.crc {
            return Err(WalError { at: start, problem: WalProblem::Crc });
        }
        let version = self.config.version;
        let fail = |error: RecordError| WalError { at: start, problem: WalProblem::Record(error) };
        let length = u64::from(header.total_length).saturating_sub(RECORD_HEADER_SIZE as u64);
        let layout = BodyLayout::decode(version, length, &self.body).map_err(|error| fail(error.into()))?;
        let record = if partial.meaningful {
            let body = self.body.clone();
            Record::decode(version, &XLogRecord { xid, prev, info, resource_manager, body }).map_err(fail)?
        } else {
            Record::Other { resource_manager, info }
        };
        self.records += 1;
        self.last_record = Some(start);
        self.valid_to = self.position.align_up(RECORD_ALIGNMENT);
        self.tail = WalTail::Open;
        if header.is_switch() {
            self.tail = WalTail::Switch;
            if self.config.segment_size.offset_of(self.position) != 0 {
                self.phase = Phase::Empty { switched: true };
            }
        }
        on_record(ReadRecord { start, end: self.valid_to, header, record, layout });
        Ok(())
    }
}

/// The smaller of a count of bytes and what there is.
fn bounded(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(there)
}
