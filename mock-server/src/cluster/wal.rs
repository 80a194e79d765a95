//! The write-ahead log that a server keeps: generated, behind whatever lies on disk, on one timeline after the other.

use std::io;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::{TimelineHistory, TimelineId, TimelineSwitch};
use backstop_protocol::wal::log::{BackupStart, RecordPlan, WalLog, WalLogConfig, WalLogError};
use backstop_protocol::wal::record::{CheckPoint, Record, RunningXacts};
use backstop_protocol::wal::stream::PgTimestamp;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use crate::config::{Config, ConfigError, Role};

use super::Facts;
use super::directory::DiskWal;

/// WAL that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// The segment was recycled, or never was on this timeline.
    #[error("requested WAL segment {0} has already been removed")]
    Removed(WalFileName),
    /// Not written yet, or on a timeline that this server does not know.
    #[error("requested WAL is not there")]
    NotThere,
    /// A segment on disk cannot be read.
    #[error("could not read WAL segment: {0}")]
    Io(#[from] io::Error),
}

impl From<WalLogError> for WalReadError {
    fn from(error: WalLogError) -> Self {
        match error {
            WalLogError::Block(kind) => Self::Io(kind.into()),
            WalLogError::Start(_) | WalLogError::Range { .. } => Self::NotThere,
        }
    }
}

/// The WAL of a server.
#[derive(Debug)]
pub(super) struct Wal {
    segment_size: WalSegmentSize,
    /// What lies before the first log.
    disk: Option<DiskWal>,
    /// The generated logs that ended with a promotion, oldest first.
    ended: Vec<WalLog>,
    /// The log that grows.
    current: WalLog,
    /// The ancestors of the current timeline.
    history: TimelineHistory,
    /// The number of the oldest segment that is still there.
    oldest_segment: u64,
    /// The latest checkpoint.
    checkpoint: BackupStart,
}

impl Wal {
    /// The WAL of a synthetic cluster: it begins in the segment before that of `wal_start` (but not before segment 1, as
    /// every cluster's) with a shutdown checkpoint and a promotion for each earlier timeline.
    pub(super) fn synthetic(config: &Config, facts: &Facts, epoch: i64) -> Result<Self, ConfigError> {
        let segment_size = facts.segment_size;
        let key = "cluster.wal-start";
        let given = config.wal_start;
        let wal_start = given.unwrap_or(segment_size.start_of(2));
        let segment = segment_size.segment_of(wal_start);
        if segment == 0 {
            return Err(ConfigError::invalid(key, "the WAL of a cluster begins in segment 1"));
        }
        if config.timeline.0 == 0 || config.timeline.0 > TIMELINE_LIMIT {
            return Err(ConfigError::invalid("server.timeline", format!("expected 1 to {TIMELINE_LIMIT}")));
        }
        let first_segment = (segment - 1).max(1);
        let log = WalLogConfig {
            version: facts.version,
            system_identifier: facts.system_identifier,
            timeline: TimelineId::FIRST,
            segment_size,
            start: segment_size.start_of(first_segment),
            prev: if first_segment == 1 { Lsn::INVALID } else { segment_size.start_of(first_segment - 1) + 0x28 },
            seed: config.seed,
        };
        let mut current = WalLog::new(log).map_err(|problem| ConfigError::invalid(key, problem.to_string()))?;
        current.set_time(epoch);
        let checkpoint = current.shutdown_checkpoint();
        let mut wal = Self {
            segment_size,
            disk: None,
            ended: Vec::new(),
            current,
            history: TimelineHistory::default(),
            oldest_segment: first_segment,
            checkpoint,
        };
        while wal.timeline() < config.timeline {
            wal.promote(epoch);
        }
        if first_segment < segment {
            wal.current.switch();
        }
        if wal.current.next_record() < wal_start {
            reach(&mut wal.current, wal_start)
                .ok_or_else(|| ConfigError::invalid(key, format!("no record can begin at {wal_start}")))?;
        }
        if config.role == Role::Standby {
            // What a standby found when its primary was last restarted: its latest restartpoint.
            wal.checkpoint = wal.current.shutdown_checkpoint();
        }
        Ok(wal)
    }

    /// WAL that goes on behind the shutdown checkpoint with which the WAL on disk ends.
    pub(super) fn behind(
        disk: DiskWal,
        current: WalLog,
        history: TimelineHistory,
        oldest_segment: u64,
        checkpoint: BackupStart,
    ) -> Self {
        let segment_size = current.config().segment_size;
        Self { segment_size, disk: Some(disk), ended: Vec::new(), current, history, oldest_segment, checkpoint }
    }

    pub(super) fn timeline(&self) -> TimelineId {
        self.current.config().timeline
    }

    /// Everything is flushed at once.
    pub(super) fn flush_position(&self) -> Lsn {
        self.current.insert_position()
    }

    pub(super) fn checkpoint_at(&self) -> &BackupStart {
        &self.checkpoint
    }

    pub(super) fn oldest(&self) -> Lsn {
        self.segment_size.start_of(self.oldest_segment)
    }

    /// The timeline on which the record that ends at `position` was written.
    pub(super) fn timeline_at(&self, position: Lsn) -> TimelineId {
        let switch = self.history.switches.iter().find(|switch| position <= switch.at);
        switch.map_or(self.timeline(), |switch| switch.parent)
    }

    /// The history file of `timeline`.
    pub(super) fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        let ancestors = self.history.switches.iter().take_while(|switch| switch.parent < timeline);
        let known = timeline == self.timeline() || self.history.end_of(timeline).is_some();
        let switches: Vec<_> = ancestors.cloned().collect();
        (known && !switches.is_empty()).then_some(TimelineHistory { switches })
    }

    /// The timelines that have a history file, ascending.
    pub(super) fn history_timelines(&self) -> Vec<TimelineId> {
        let children = self.history.switches.iter().skip(1).map(|switch| switch.parent);
        let last = (!self.history.switches.is_empty()).then(|| self.timeline());
        children.chain(last).collect()
    }

    /// Appends about `bytes` of filler.
    pub(super) fn grow(&mut self, bytes: u64) {
        self.current.fill(bytes);
    }

    pub(super) fn switch(&mut self) -> Lsn {
        self.current.switch()
    }

    /// Ends the segment, and returns the end of the SWITCH record, or where the segment begins if nothing is in it.
    pub(super) fn switch_record(&mut self) -> Lsn {
        /// Of a record, of which this one consists, and of a page, which lies in between if it does not fit into the first.
        const HEADER: u64 = 24;
        const PAGE: u64 = BLOCK_SIZE as u64;
        let before = self.current.last_record();
        let next = self.current.switch();
        let record = self.current.last_record();
        if record == before {
            return next;
        }
        let room = PAGE - record.0 % PAGE;
        record.saturating_add(if room < HEADER { 2 * HEADER } else { HEADER })
    }

    pub(super) fn checkpoint(&mut self) {
        self.checkpoint = self.current.online_checkpoint();
    }

    /// Writes the checkpoint of a shutdown, or of the end of a crash recovery, which is of the same kind.
    pub(super) fn shutdown_checkpoint(&mut self) {
        self.checkpoint = self.current.shutdown_checkpoint();
    }

    /// Whether checkpoints say that full-page images are written.
    pub(super) fn full_page_writes(&self) -> bool {
        self.current.checkpoint().full_page_writes
    }

    /// Writes an FPW_CHANGE record and returns where it begins.
    pub(super) fn set_full_page_writes(&mut self, on: bool) -> Lsn {
        self.current.set_checkpoint(CheckPoint { full_page_writes: on, ..*self.current.checkpoint() });
        self.current.insert(Record::FullPageWrites(on)).start
    }

    pub(super) fn backup_start(&mut self) -> BackupStart {
        self.checkpoint = self.current.backup_start();
        self.checkpoint
    }

    pub(super) fn backup_end(&mut self, start: Lsn) -> Lsn {
        self.current.backup_end(start)
    }

    /// `LogStandbySnapshot`, and where the record ends.
    pub(super) fn running_transactions(&mut self) -> Lsn {
        let next_xid = u32::try_from(self.current.checkpoint().next_xid & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        self.current.insert(Record::RunningXacts(RunningXacts::idle(next_xid))).end
    }

    pub(super) fn backup_abort(&mut self) {
        self.current.backup_abort();
    }

    /// Forgets every running backup, as a crash does.
    pub(super) fn abort_backups(&mut self) {
        while self.current.running_backups() > 0 {
            self.current.backup_abort();
        }
    }

    /// Ends the current timeline and begins the next with an end-of-recovery record and a checkpoint.
    pub(super) fn promote(&mut self, now: i64) -> TimelineId {
        let parent = self.timeline();
        let child = TimelineId(parent.0.saturating_add(1));
        let at = self.flush_position();
        self.history.switches.push(TimelineSwitch { parent, at, reason: "no recovery target specified".to_owned() });
        let next = self.current.branch(child);
        self.ended.push(std::mem::replace(&mut self.current, next));
        self.current.set_time(now);
        let time = PgTimestamp::from_unix_micros(now.saturating_mul(1_000_000));
        let wal_level = self.current.checkpoint().wal_level;
        self.current.insert(Record::EndOfRecovery { time, timeline: child, previous_timeline: parent, wal_level });
        self.checkpoint = self.current.online_checkpoint();
        child
    }

    /// Removes the segments before number `segment`, and says whether there were any. The logs forget what lay in them.
    pub(super) fn remove_before(&mut self, segment: u64) -> bool {
        if segment <= self.oldest_segment {
            return false;
        }
        self.oldest_segment = segment;
        let oldest = self.oldest();
        self.current.forget_before(oldest);
        self.ended.retain(|log| log.insert_position() > oldest);
        for log in &mut self.ended {
            log.forget_before(oldest);
        }
        true
    }

    /// Entries in the plans of all logs: what memory is proportional to.
    #[cfg(test)]
    pub(super) fn plan_len(&self) -> usize {
        self.ended.iter().chain([&self.current]).map(WalLog::plan_len).sum()
    }

    /// The name under which segment number `segment` was written: that of the newest timeline that has a part of it.
    fn name_of(&self, segment: u64) -> WalFileName {
        let switch = self.history.switches.iter().find(|switch| self.segment_size.segment_of(switch.at) > segment);
        let timeline = switch.map_or(self.timeline(), |switch| switch.parent);
        WalFileName::new(timeline, segment, self.segment_size)
    }

    /// The files that hold the WAL from `start` to `end`.
    pub(super) fn files(&self, start: Lsn, end: Lsn) -> Result<Vec<WalFileName>, WalReadError> {
        let first = self.segment_size.segment_of(start);
        if end > self.flush_position() {
            return Err(WalReadError::NotThere);
        }
        if first < self.oldest_segment {
            return Err(WalReadError::Removed(self.name_of(first)));
        }
        Ok((first..=self.segment_size.segment_before(end).max(first)).map(|segment| self.name_of(segment)).collect())
    }

    /// Reads WAL that has been flushed.
    pub(super) fn read(&self, timeline: TimelineId, from: Lsn, buf: &mut [u8]) -> Result<(), WalReadError> {
        let end = match self.history.end_of(timeline) {
            Some(end) => end,
            None if timeline == self.timeline() => self.flush_position(),
            None => return Err(WalReadError::NotThere),
        };
        let segment = |position| self.segment_size.segment_of(position);
        if from.saturating_add(buf.len() as u64) > end {
            return Err(WalReadError::NotThere);
        }
        self.read_file(timeline, from, buf).map_err(|error| match error {
            // The segment in which a timeline ends is read from the next one's file, which has the same beginning.
            WalReadError::Removed(_) if timeline < self.timeline() && segment(end) == segment(from) => {
                let child = self.history.child_of(timeline, self.timeline()).unwrap_or(timeline);
                WalReadError::Removed(WalFileName::new(child, segment(from), self.segment_size))
            }
            error => error,
        })
    }

    /// Reads segment files, in which zero bytes follow the last record. The bytes of one read may lie in several segments.
    pub(super) fn read_file(&self, timeline: TimelineId, from: Lsn, buf: &mut [u8]) -> Result<(), WalReadError> {
        let known = timeline == self.timeline() || self.history.end_of(timeline).is_some();
        if !known || from.0.checked_add(buf.len() as u64).is_none() {
            return Err(WalReadError::NotThere);
        }
        let begin = self.history.switches.iter().take_while(|switch| switch.parent < timeline).last();
        let first_segment = begin.map_or(0, |switch| self.segment_size.segment_of(switch.at));
        let segment = self.segment_size.segment_of(from);
        if segment < self.oldest_segment.max(first_segment) {
            return Err(WalReadError::Removed(WalFileName::new(timeline, segment, self.segment_size)));
        }
        let mut at = from;
        let mut rest = buf;
        while !rest.is_empty() {
            // What is left in the part that one log, or the disk, holds.
            let (log, part_end) = self.part(timeline, at);
            let part = usize::try_from(part_end.0.saturating_sub(at.0)).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut(part);
            match (log, &self.disk) {
                (Some(log), _) => log.read_zero_filled(at, piece)?,
                (None, Some(disk)) => disk.read(timeline, at, piece)?,
                (None, None) => return Err(WalReadError::NotThere),
            }
            at = at.saturating_add(part as u64);
            rest = after;
        }
        Ok(())
    }

    /// The log that holds the byte at `at` of `timeline` (none: it lies on disk), and where the next one begins.
    fn part(&self, timeline: TimelineId, at: Lsn) -> (Option<&WalLog>, Lsn) {
        let mut end = Lsn(u64::MAX);
        let newest_first = std::iter::once(&self.current).chain(self.ended.iter().rev());
        for log in newest_first.filter(|log| log.config().timeline <= timeline) {
            if log.first() <= at {
                return (Some(log), end);
            }
            end = log.first();
        }
        (None, end)
    }

    /// WAL since the redo point of the last checkpoint.
    pub(super) fn since_redo(&self) -> u64 {
        self.flush_position().0.saturating_sub(self.checkpoint.redo.0)
    }
}

/// The most timelines that a synthetic cluster begins with.
const TIMELINE_LIMIT: u32 = 1000;

/// Fills the log until a record can begin exactly at `target`, or gives up.
fn reach(log: &mut WalLog, target: Lsn) -> Option<()> {
    /// More than two filler records, less than a page.
    const LAST: u64 = 4096;
    if log.insert_position().saturating_add(2 * LAST) < target {
        log.fill_to(Lsn(target.0 - LAST));
    }
    let gap = target.0.checked_sub(log.next_record().0)?;
    // A NOOP has a header of 24 bytes, its data an introduction of 2 or 5 bytes; up to two page headers lie between.
    for overhead in [24, 26, 29, 24 + 24, 26 + 24, 29 + 24, 24 + 40, 26 + 40, 29 + 40, 29 + 48, 29 + 64] {
        let Some(length) = gap.checked_sub(overhead).and_then(|length| u32::try_from(length).ok()) else { continue };
        let mut trial = log.clone();
        trial.insert(RecordPlan::Noop(length));
        if trial.next_record() == target || trial.insert_position() == target {
            *log = trial;
            return Some(());
        }
    }
    None
}
