//! A log of valid WAL that keeps a plan and not bytes.
//!
//! A server's WAL of any length can be read at any position: page headers, record headers, CRCs and contents are made when
//! they are asked for. The plan holds one entry for each record that means something and one for each run of filler,
//! however long: filler records (NOOP, which replay skips) all take the same room, so that the one at any position follows
//! from arithmetic. Equal calls give equal bytes. What a server removes, the log [forgets](WalLog::forget_before), so that
//! its plan stays as small as `pg_wal` however far the log goes.
//!
//! ```
//! use backstop_protocol::{lsn::Lsn, timeline::TimelineId, version::ServerVersion, wal_file::WalSegmentSize};
//! use backstop_protocol::wal::log::{WalLog, WalLogConfig};
//!
//! let mut log = WalLog::new(WalLogConfig {
//!     version: ServerVersion::V18,
//!     system_identifier: 7_710_437_665_680_982_376,
//!     timeline: TimelineId::FIRST,
//!     segment_size: WalSegmentSize::DEFAULT,
//!     start: "0/2000028".parse()?,
//!     prev: "0/1783420".parse()?,
//!     seed: 1,
//! })?;
//! let start = log.backup_start();
//! let end = log.backup_end(start.redo);
//! assert_eq!((start.redo.to_string(), end.to_string()), ("0/2000028".to_owned(), "0/2000120".to_owned()));
//! let mut segment = vec![0; 16 << 20];
//! log.read(Lsn(0x200_0000), &mut segment)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocks;
mod filler;
mod read;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::ServerVersion;
use crate::wal_file::WalSegmentSize;

use super::page::Layout;
use super::record::{CheckPoint, MAX_RECORD_SIZE, RECORD_ALIGNMENT, Record, RunningXacts, WalLevel};

pub use blocks::Blocks;

/// The last position at which a log can begin: half of all there are, so that a log never runs out of them.
pub const MAX_START: Lsn = Lsn(1 << 63);

/// The position that filler never passes.
const MAX_FILLED: Lsn = Lsn(3 << 62);

/// Where a log begins and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalLogConfig {
    /// The release that wrote it. Proven by the tools of 15, 16 and 18 and by recordings of 12 to 18. WAL of releases before 12 has
    /// the pages and records of 12 under its own magic number, which those releases would not replay: their checkpoints are
    /// shorter, up to 10 the pages behind a SWITCH have headers, before 9.5 records have another header and CRC, and before 9.3
    /// pages, too.
    pub version: ServerVersion,
    /// In the long header of every segment.
    pub system_identifier: u64,
    /// In the header of every page.
    pub timeline: TimelineId,
    /// How often a long header comes.
    pub segment_size: WalSegmentSize,
    /// Where the first record begins, a multiple of 8. At the start of a segment, or behind its header (`…28`), the log owns
    /// the whole segment; anywhere else it continues one whose beginning is not its own.
    pub start: Lsn,
    /// Where the record before the first one begins.
    pub prev: Lsn,
    /// Decides what filler holds.
    pub seed: u64,
}

/// A log that cannot begin, or bytes that it cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalLogError {
    /// No record can begin there.
    #[error("invalid start of WAL {0}: expected a multiple of 8 up to {MAX_START}")]
    Start(Lsn),
    /// A block whose image is in what was asked for.
    #[error("could not read the block of a full-page image: {0}")]
    Block(io::ErrorKind),
    /// A read of what is not, or not yet, in the log.
    #[error("could not read WAL from {from} to {to}: there is WAL from {first} to {last}")]
    Range {
        /// The first byte asked for.
        from: Lsn,
        /// The end of what was asked for.
        to: Lsn,
        /// Where the log begins.
        first: Lsn,
        /// Where it ends.
        last: Lsn,
    },
}

/// A record to be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordPlan {
    /// A record by its meaning.
    Record(Record),
    /// A NOOP with so many seeded bytes, at most 512 MiB, of which none are kept.
    Noop(u32),
}

impl From<Record> for RecordPlan {
    fn from(record: Record) -> Self {
        Self::Record(record)
    }
}

/// What the start of a backup wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// The redo position of the checkpoint: the start position of the backup.
    pub redo: Lsn,
    /// Where the checkpoint record begins: `CHECKPOINT LOCATION`.
    pub checkpoint: Lsn,
    /// What it says, for `pg_control`.
    pub checkpoint_copy: CheckPoint,
}

/// A part of the log, by usable bytes.
#[derive(Clone, Debug)]
struct Entry {
    at: u64,
    /// A multiple of 8.
    end: u64,
    prev: Lsn,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Record(Record),
    /// The CRC is that of the body.
    Noop {
        length: u32,
        body_crc: u32,
    },
    /// Filler, with or without full-page images.
    Run {
        images: bool,
    },
    /// Zero bytes without page headers, up to the end of a segment.
    Nothing,
}

/// A log of valid WAL.
#[derive(Clone, Debug)]
pub struct WalLog {
    config: WalLogConfig,
    layout: Layout,
    /// The first byte that can be read.
    first: Lsn,
    /// Usable bytes before the next record.
    end: u64,
    /// The last record.
    prev: Lsn,
    /// In order, without gaps.
    entries: VecDeque<Entry>,
    /// Counters that checkpoints repeat.
    checkpoint: CheckPoint,
    running_backups: u32,
    /// What filler holds images of.
    blocks: Option<Arc<dyn Blocks>>,
    /// From which usable byte on pages say whether a backup is running: true if none is.
    removable: VecDeque<(u64, bool)>,
}

impl WalLog {
    /// An empty log.
    pub fn new(config: WalLogConfig) -> Result<Self, WalLogError> {
        let WalLogConfig { version, timeline, start, .. } = config;
        if start > MAX_START || !start.0.is_multiple_of(RECORD_ALIGNMENT) {
            return Err(WalLogError::Start(start));
        }
        let layout = Layout(config.segment_size);
        let end = layout.usable(start);
        Ok(Self {
            config,
            layout,
            first: layout.end(end),
            end,
            prev: config.prev,
            entries: VecDeque::new(),
            checkpoint: CheckPoint::initial(version, timeline),
            running_backups: 0,
            blocks: None,
            removable: VecDeque::new(),
        })
    }

    /// An empty log of `timeline` that begins where this one ends, as after a promotion. What this one wrote to the segment
    /// both share is still read from this one.
    #[must_use]
    pub fn branch(&self, timeline: TimelineId) -> Self {
        let config = WalLogConfig { timeline, start: self.layout.start(self.end), prev: self.prev, ..self.config };
        let checkpoint = CheckPoint { timeline, previous_timeline: self.config.timeline, ..self.checkpoint };
        Self {
            config,
            layout: self.layout,
            first: self.layout.end(self.end),
            end: self.end,
            prev: self.prev,
            entries: VecDeque::new(),
            checkpoint,
            running_backups: 0,
            blocks: self.blocks.clone(),
            removable: VecDeque::new(),
        }
    }

    /// Lets filler hold full-page images of `blocks` from now on, if there are any. A log that has blocks keeps those that it
    /// has: its images are made when they are read.
    pub fn set_blocks(&mut self, blocks: Arc<dyn Blocks>) {
        if self.blocks.is_none() && blocks.count() > 0 {
            self.blocks = Some(blocks);
        }
    }

    /// Forgets what lies in the segments before that of `position`, which can no longer be read. A record that ends behind
    /// them stays in the plan, because the page headers that cut it count what is left of it.
    pub fn forget_before(&mut self, position: Lsn) {
        let first = self.config.segment_size.round_down(position.min(self.insert_position()));
        if first <= self.first {
            return;
        }
        self.first = first;
        let usable = self.layout.usable(first);
        // What is removed lies in front: the cost is that of what goes, not of what stays.
        while self.entries.front().is_some_and(|entry| entry.end <= usable) {
            self.entries.pop_front();
        }
        // The last of the earlier changes still holds.
        while self.removable.get(1).is_some_and(|change| change.0 <= usable) {
            self.removable.pop_front();
        }
    }

    /// How many entries the plan has: what memory is proportional to. One for each record that means something since the
    /// [first](Self::first) position, one for each uninterrupted stretch of filler, one for the rest of each segment that was
    /// switched.
    pub fn plan_len(&self) -> usize {
        self.entries.len() + self.removable.len()
    }

    /// What the log was made with.
    pub fn config(&self) -> &WalLogConfig {
        &self.config
    }

    /// The first position that can be read: the start, or what was not [forgotten](Self::forget_before).
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// The end of the last record, rounded up to a multiple of 8; after a switch the start of the next segment. Everything
    /// before it can be read.
    pub fn insert_position(&self) -> Lsn {
        self.layout.end(self.end)
    }

    /// Where the next record will begin: the insert position, or behind the page header that comes there.
    pub fn next_record(&self) -> Lsn {
        self.layout.start(self.end)
    }

    /// Where the last record begins.
    pub fn last_record(&self) -> Lsn {
        self.prev
    }

    /// The counters that the next checkpoint will repeat.
    pub fn checkpoint(&self) -> &CheckPoint {
        &self.checkpoint
    }

    /// Sets the counters that checkpoints repeat; positions and timelines among them are the log's own.
    pub fn set_checkpoint(&mut self, counters: CheckPoint) {
        let CheckPoint { redo, timeline, previous_timeline, .. } = self.checkpoint;
        self.checkpoint = CheckPoint { redo, timeline, previous_timeline, ..counters };
    }

    /// Sets the time that checkpoints will say, in seconds since 1970.
    pub fn set_time(&mut self, seconds: i64) {
        self.checkpoint.time = seconds;
    }

    /// How many backups are running.
    pub fn running_backups(&self) -> u32 {
        self.running_backups
    }

    /// Appends a record and tells where it begins and ends. A SWITCH is a [`switch`](Self::switch).
    pub fn insert(&mut self, plan: impl Into<RecordPlan>) -> Range<Lsn> {
        match plan.into() {
            RecordPlan::Record(Record::Switch) => {
                let start = self.next_record();
                self.switch();
                start..self.insert_position()
            }
            RecordPlan::Record(record) => {
                let length = record.encode(self.config.version, 0, self.prev).header().total_length;
                self.push(length.into(), Content::Record(record))
            }
            RecordPlan::Noop(length) => {
                let length = length.min(MAX_RECORD_SIZE / 2 + 1);
                let body_crc = filler::body_crc(self.config.seed, self.end, length);
                self.push(filler::total_length(length).into(), Content::Noop { length, body_crc })
            }
        }
    }

    fn push(&mut self, length: u64, content: Content) -> Range<Lsn> {
        let at = self.end;
        let start = self.layout.start(at);
        self.end = (at + length).next_multiple_of(RECORD_ALIGNMENT);
        self.entries.push_back(Entry { at, end: self.end, prev: self.prev, content });
        self.prev = start;
        start..self.insert_position()
    }

    /// Ends the segment: a SWITCH record, then nothing up to the next segment, whose start is returned. At the start of a
    /// segment this does nothing, as `pg_switch_wal`.
    pub fn switch(&mut self) -> Lsn {
        let per_segment = self.layout.usable_in_segment();
        if !self.end.is_multiple_of(per_segment) {
            let record = Record::Switch;
            let length = record.encode(self.config.version, 0, self.prev).header().total_length;
            self.push(length.into(), Content::Record(record));
            let at = self.end;
            self.end = at.next_multiple_of(per_segment);
            if self.end > at {
                self.entries.push_back(Entry { at, end: self.end, prev: self.prev, content: Content::Nothing });
            }
        }
        self.insert_position()
    }

    /// Appends filler until the insert position is at least `bytes` further on, by less than two KiB more (11 KiB with
    /// [`Blocks`]), and returns it.
    pub fn fill(&mut self, bytes: u64) -> Lsn {
        self.fill_to(self.insert_position().saturating_add(bytes))
    }

    /// Appends filler until the insert position is at or a little behind `target`, and returns it. Filler of any length is
    /// one entry of the plan.
    pub fn fill_to(&mut self, target: Lsn) -> Lsn {
        let wanted = target.min(MAX_FILLED);
        let target = self.layout.usable(wanted);
        // A position within a page header is behind the last byte before it.
        let target = if self.layout.end(target) < wanted { target + 1 } else { target };
        if target > self.end {
            let images = self.blocks.is_some();
            let last = self.entries.back_mut();
            let run = last.filter(|last| matches!(last.content, Content::Run { images: same } if same == images));
            let end = run::end_of(run.as_ref().map_or(self.end, |run| run.at), images, target);
            match run {
                Some(run) => run.end = end,
                None => self.entries.push_back(Entry {
                    at: self.end,
                    end,
                    prev: self.prev,
                    content: Content::Run { images },
                }),
            }
            self.end = end;
            self.prev = self.layout.start(run::last(end));
        }
        self.insert_position()
    }

    /// Writes an online checkpoint: CHECKPOINT_REDO (17 and later), RUNNING_XACTS, CHECKPOINT_ONLINE.
    pub fn online_checkpoint(&mut self) -> BackupStart {
        let mut redo = self.next_record();
        if self.config.version.has_checkpoint_redo_record() {
            redo = self.insert(Record::CheckpointRedo(WalLevel::Replica.number())).start;
        }
        let next_xid = u32::try_from(self.checkpoint.next_xid & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        self.insert(Record::RunningXacts(RunningXacts::idle(next_xid)));
        self.checkpoint.redo = redo;
        self.checkpoint.oldest_active_xid = next_xid;
        let checkpoint_copy = self.checkpoint;
        let checkpoint = self.insert(Record::CheckpointOnline(checkpoint_copy)).start;
        self.checkpoint.previous_timeline = self.config.timeline;
        BackupStart { redo, checkpoint, checkpoint_copy }
    }

    /// Writes the checkpoint of a clean shutdown, which is its own redo position.
    pub fn shutdown_checkpoint(&mut self) -> BackupStart {
        let redo = self.next_record();
        self.checkpoint.redo = redo;
        self.checkpoint.oldest_active_xid = 0;
        let checkpoint_copy = self.checkpoint;
        self.insert(Record::CheckpointShutdown(checkpoint_copy));
        self.checkpoint.previous_timeline = self.config.timeline;
        BackupStart { redo, checkpoint: redo, checkpoint_copy }
    }

    fn count_backups(&mut self, running: u32) {
        let was_idle = std::mem::replace(&mut self.running_backups, running) == 0;
        if was_idle != (running == 0) {
            self.removable.push_back((self.end, running == 0));
        }
    }

    /// Starts a backup on a primary: ends the segment and writes a checkpoint at the beginning of the next one.
    pub fn backup_start(&mut self) -> BackupStart {
        self.count_backups(self.running_backups.saturating_add(1));
        self.switch();
        self.online_checkpoint()
    }

    /// Ends the backup that started at `start`: writes BACKUP_END, whose end is returned as the end position, and ends the
    /// segment.
    pub fn backup_end(&mut self, start: Lsn) -> Lsn {
        self.backup_abort();
        let end = self.insert(Record::BackupEnd(start)).end;
        self.switch();
        end
    }

    /// A backup was given up; nothing is written.
    pub fn backup_abort(&mut self) {
        self.count_backups(self.running_backups.saturating_sub(1));
    }
}
