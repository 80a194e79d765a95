//! What changes while a server lives: WAL that grows and goes, slots, timelines.

use std::time::Duration;

use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::wal_file::WalFileName;
use tokio::time::Instant;

use super::{Cluster, Inner, State, WalReadError};

impl Inner {
    /// Writes a checkpoint, or makes a restartpoint of one that has just been replayed. Either saves the slots.
    fn checkpoint(&self, state: &mut State) {
        state.wal.checkpoint();
        if let Some(timeout) = state.limits.idle_slot {
            let lost = state.slots.invalidate_idle(timeout);
            self.condemn(&lost);
        }
        state.slots.save();
        // Everything that was replayed is on disk now.
        state.min_recovery_point = state.wal.flush_position();
        self.remove_old_wal(state);
        self.publish(state);
    }
}

impl Cluster {
    /// The current timeline.
    pub fn timeline(&self) -> TimelineId {
        self.inner.lock().wal.timeline()
    }

    /// The ancestors of `timeline`, if this server has its history file. Timeline 1 has none.
    pub fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        self.inner.lock().wal.history(timeline)
    }

    /// The timelines whose history files lie in `pg_wal`, ascending.
    pub fn history_timelines(&self) -> Vec<TimelineId> {
        self.inner.lock().wal.history_timelines()
    }

    /// Where WAL has been flushed to; on a standby, where it has been received and replayed to.
    pub fn flush_position(&self) -> Lsn {
        self.inner.lock().wal.flush_position()
    }

    /// The start of the oldest segment that is still there.
    pub fn oldest_wal(&self) -> Lsn {
        self.inner.lock().wal.oldest()
    }

    /// Fills `buf` with WAL of `timeline` from `from`, all of which must have been flushed.
    pub fn read_wal(&self, timeline: TimelineId, from: Lsn, buf: &mut [u8]) -> Result<(), WalReadError> {
        self.inner.lock().wal.read(timeline, from, buf)
    }

    /// Fills `buf` with a part of a segment file, whose bytes after the last flushed record are zero.
    pub fn read_wal_file(&self, file: WalFileName, offset: u64, buf: &mut [u8]) -> Result<(), WalReadError> {
        let size = self.segment_size();
        let segment = file.segment(size).ok_or(WalReadError::NotThere)?;
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > size.bytes()) {
            return Err(WalReadError::NotThere);
        }
        self.inner.lock().wal.read_file(file.timeline, size.start_of(segment).saturating_add(offset), buf)
    }

    /// The segment files that hold the WAL from `start` to `end`, ascending: what BASE_BACKUP's WAL option appends.
    pub fn wal_files(&self, start: Lsn, end: Lsn) -> Result<Vec<WalFileName>, WalReadError> {
        self.inner.lock().wal.files(start, end)
    }

    /// Waits until WAL has been flushed beyond `position`, and returns the flush position.
    pub async fn flushed_beyond(&self, position: Lsn) -> Lsn {
        let mut receiver = self.inner.flushed.subscribe();
        let grown = receiver.wait_for(|flushed| *flushed > position).await.map(|flushed| *flushed);
        match grown {
            Ok(flushed) => flushed,
            // The sender lives as long as the cluster.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets WAL grow at the configured rate while the server runs, for ever, with checkpoints on the way. Returns at once if the rate is 0.
    pub async fn run_wal(&self) {
        /// A hundred steps a second, but none smaller than a page.
        const SMALLEST_STEP: u64 = 8192;
        let rate = self.inner.wal_rate;
        if rate == 0 {
            return;
        }
        let step = (rate / 100).max(SMALLEST_STEP).next_multiple_of(SMALLEST_STEP);
        let begin = Instant::now();
        let mut grown = 0_u128;
        loop {
            grown += u128::from(step);
            let nanos = u64::try_from(grown * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
            let Some(due) = begin.checked_add(Duration::from_nanos(nanos)) else { return };
            tokio::time::sleep_until(due).await;
            if self.inner.lock().running {
                self.grow_wal(step);
            }
        }
    }

    /// Appends about `bytes` of WAL, and checkpoints when it is time to.
    pub fn grow_wal(&self, bytes: u64) {
        let mut state = self.inner.lock();
        state.wal.grow(bytes);
        if state.wal.since_redo() >= state.limits.checkpoint_distance {
            self.inner.checkpoint(&mut state);
        } else {
            self.inner.publish(&state);
        }
    }

    /// `pg_switch_wal()`: ends the current segment, and returns the end of the record that does. At the beginning of a
    /// segment it does nothing, and returns that.
    pub fn switch_wal_record(&self) -> Lsn {
        let mut state = self.inner.lock();
        let position = state.wal.switch_record();
        self.inner.publish(&state);
        position
    }

    /// Ends the current segment (`pg_switch_wal`), and returns where the next begins.
    pub fn switch_wal(&self) -> Lsn {
        let mut state = self.inner.lock();
        let next = state.wal.switch();
        self.inner.publish(&state);
        next
    }

    /// Writes a checkpoint, or makes a restartpoint of a standby, and removes the segments that nothing needs any more.
    pub fn checkpoint(&self) {
        self.inner.checkpoint(&mut self.inner.lock());
    }

    /// Ends recovery on a new timeline (`pg_promote`).
    pub fn promote(&self) -> Result<TimelineId, Diagnostic> {
        let mut state = self.inner.lock();
        if !state.in_recovery {
            let refusal = Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress");
            return Err(refusal.with_hint("Recovery control functions can only be executed during recovery."));
        }
        state.in_recovery = false;
        let timeline = state.wal.promote(self.inner.epoch);
        self.inner.summarize(&mut state);
        self.inner.publish(&state);
        Ok(timeline)
    }

    /// Lets a standby follow its primary to a new timeline: another standby was promoted, and this one replays what that one
    /// writes. It stays a standby; what streams the old timeline from it comes to the end of that.
    pub fn follow_promotion(&self) -> Result<TimelineId, Diagnostic> {
        let mut state = self.inner.lock();
        if !state.in_recovery {
            let refusal = Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress");
            return Err(refusal);
        }
        let timeline = state.wal.promote(self.inner.epoch);
        state.min_recovery_point = state.wal.flush_position();
        self.inner.publish(&state);
        Ok(timeline)
    }
}
