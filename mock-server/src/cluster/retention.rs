//! Which WAL is kept, and which slots lose theirs.

use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::{Cluster, Inner, SlotState, State, WalStatus};

impl State {
    /// `KeepLogSeg`: the oldest segment that a slot or `wal_keep_size` keeps, of a log that ends here.
    pub(super) fn oldest_kept_segment(&self, size: WalSegmentSize) -> u64 {
        let current = size.segment_of(self.wal.flush_position());
        let segments = |bytes: u64| bytes / size.bytes();
        let mut keep = current;
        if let Some(needed) = self.slots.oldest_restart() {
            let allowed = self.limits.slot_keep.map_or(0, |bytes| current.saturating_sub(segments(bytes)));
            keep = keep.min(size.segment_of(needed).max(allowed));
        }
        keep.min(current.saturating_sub(segments(self.limits.keep)).max(1))
    }
}

impl Inner {
    /// `KeepLogSeg` and `RemoveOldXlogFiles`, as after a checkpoint: WAL before its redo point goes, except what a slot or
    /// `wal_keep_size` holds back, `max_slot_wal_keep_size` permitting, and except what a running backup needs (see
    /// [`Cluster::start_backup`]) or the summarizer, which looks at it first.
    pub(super) fn remove_old_wal(&self, state: &mut State) {
        self.summarize(state);
        let size = self.facts.segment_size;
        let redo = size.segment_of(state.wal.checkpoint_at().redo);
        let mut keep = redo.min(state.oldest_kept_segment(size));
        if let Some(needed) = state.backups.oldest_needed() {
            keep = keep.min(size.segment_of(needed));
        }
        if let Some(unsummarized) = state.summaries.unsummarized() {
            keep = keep.min(size.segment_of(unsummarized));
        }
        self.remove_before(state, keep);
    }

    /// Removes segments, and invalidates the slots that needed them. Whoever holds one is terminated.
    fn remove_before(&self, state: &mut State, segment: u64) -> Vec<SlotState> {
        state.wal.remove_before(segment);
        let oldest = state.wal.oldest();
        let lost = state.slots.invalidate_before(oldest);
        self.condemn(&lost);
        lost
    }

    /// Terminates the sessions that hold the slots, and tells those who wait for them.
    pub(super) fn condemn(&self, lost: &[SlotState]) {
        let pids: Vec<_> = lost.iter().filter_map(|slot| slot.active_pid).collect();
        if !pids.is_empty() {
            self.condemned.send_modify(|condemned| condemned.extend(pids));
        }
        if !lost.is_empty() {
            self.slot_freed.notify_waiters();
        }
    }
}

impl Cluster {
    /// Removes every segment through `through`, whatever its timeline, needed or not (a fault), and returns the slots that
    /// this invalidated, as they were before. A name that no segment of this size can have removes nothing.
    pub fn recycle_wal(&self, through: WalFileName) -> Vec<SlotState> {
        let Some(segment) = through.segment(self.segment_size()) else { return Vec::new() };
        self.inner.remove_before(&mut self.inner.lock(), segment.saturating_add(1))
    }

    /// `GetWALAvailability` and what `pg_replication_slots` makes of it. None: the slot keeps nothing.
    pub fn wal_status(&self, slot: &SlotState) -> Option<WalStatus> {
        if slot.invalidation_reason.is_some() {
            return Some(WalStatus::Lost);
        }
        let (size, state) = (self.segment_size(), self.inner.lock());
        let segment = size.segment_of(slot.restart_lsn?);
        let current = size.segment_of(state.wal.flush_position());
        let within = current.saturating_sub(state.limits.max_wal_size / size.bytes() + 1).max(1);
        Some(if segment >= state.oldest_kept_segment(size) {
            if segment >= within { WalStatus::Reserved } else { WalStatus::Extended }
        } else if segment >= size.segment_of(state.wal.oldest()) || slot.active_pid.is_some() {
            WalStatus::Unreserved
        } else {
            WalStatus::Lost
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstop_protocol::version::ServerVersion;

    use super::*;
    use crate::cluster::InvalidationReason;
    use crate::config::Config;

    /// A cluster whose segments have 1 MiB.
    fn cluster(version: ServerVersion, settings: &[(&str, &str)]) -> Cluster {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let wal_segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB");
        Cluster::new(&Config { version, settings, wal_segment_size, size: 64 << 10, ..Config::default() })
            .expect("a valid configuration")
    }

    fn oldest_segment(cluster: &Cluster) -> u64 {
        cluster.segment_size().segment_of(cluster.oldest_wal())
    }

    /// Writes WAL until the checkpoint lies in this segment.
    fn checkpoint_in(cluster: &Cluster, segment: u64) {
        let size = cluster.segment_size();
        while size.segment_of(cluster.flush_position()) < segment {
            cluster.switch_wal();
            cluster.grow_wal(8192);
        }
        cluster.checkpoint();
    }

    #[test]
    fn what_is_to_be_kept_is_rounded_down_to_segments() {
        for (value, oldest) in [("0", 9), ("1MB", 8), ("3MB", 6), ("3200kB", 6), ("1GB", 1)] {
            let cluster = cluster(ServerVersion::V15, &[("wal_keep_size", value)]);
            checkpoint_in(&cluster, 9);
            assert_eq!(oldest_segment(&cluster), oldest, "{value}");
        }
        let cluster = cluster(ServerVersion::V12, &[("wal_keep_segments", "4")]);
        checkpoint_in(&cluster, 9);
        assert_eq!(oldest_segment(&cluster), 5);
    }

    #[test]
    fn a_slot_goes_from_reserved_to_lost() {
        let cluster = cluster(ServerVersion::V15, &[("max_wal_size", "2MB"), ("max_slot_wal_keep_size", "6MB")]);
        cluster.create_slot("s", false, true, 1).expect("a slot");
        cluster.create_slot("unused", false, false, 1).expect("a slot");
        let first =
            cluster.segment_size().segment_of(cluster.read_slot("s").expect("it").restart_lsn.expect("reserved"));
        let status = || cluster.wal_status(&cluster.read_slot("s").expect("the slot"));
        let mut seen = Vec::new();
        for segment in first..first + 9 {
            while cluster.segment_size().segment_of(cluster.flush_position()) < segment {
                // Without the checkpoints that `grow_wal` would write.
                let mut state = cluster.inner.lock();
                state.wal.switch();
                state.wal.grow(8192);
            }
            seen.push(status());
        }
        let expected = [&[WalStatus::Reserved; 4][..], &[WalStatus::Extended; 3], &[WalStatus::Unreserved; 2]].concat();
        assert_eq!(seen, expected.into_iter().map(Some).collect::<Vec<_>>());
        cluster.checkpoint();
        assert_eq!(status(), Some(WalStatus::Lost));
        assert_eq!(
            cluster.read_slot("s").and_then(|slot| slot.invalidation_reason),
            Some(InvalidationReason::WalRemoved)
        );
        assert_eq!(cluster.wal_status(&cluster.read_slot("unused").expect("the slot")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_a_slot_that_loses_its_wal_is_terminated() {
        let cluster = cluster(ServerVersion::V14, &[("max_slot_wal_keep_size", "1MB")]);
        cluster.create_slot("held", false, true, 1).expect("a slot");
        cluster.acquire_slot("held", 17).expect("free");
        checkpoint_in(&cluster, 9);
        cluster.condemned(17).await;
        cluster.end_session(17);
        let still = tokio::time::timeout(Duration::from_secs(1), cluster.condemned(17)).await;
        assert!(still.is_err(), "nobody any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_nobody_uses_is_given_up() {
        let cluster = cluster(ServerVersion::V18, &[("idle_replication_slot_timeout", "10min")]);
        for name in ["idle", "held", "keeps_nothing"] {
            cluster.create_slot(name, false, name != "keeps_nothing", 1).expect("a slot");
        }
        cluster.acquire_slot("held", 1).expect("free");
        tokio::time::advance(Duration::from_secs(599)).await;
        cluster.checkpoint();
        assert!(cluster.slots().iter().all(|slot| slot.invalidation_reason.is_none()));
        tokio::time::advance(Duration::from_secs(1)).await;
        cluster.checkpoint();
        let reasons: Vec<_> = cluster.slots().into_iter().map(|slot| (slot.name, slot.invalidation_reason)).collect();
        let idle = Some(InvalidationReason::IdleTimeout);
        assert_eq!(reasons, [("held".to_owned(), None), ("idle".to_owned(), idle), ("keeps_nothing".to_owned(), None)]);
        insta::assert_snapshot!(cluster.acquire_slot("idle", 2).expect_err("invalidated"), @r#"
        ERROR:  can no longer access replication slot "idle"
        DETAIL:  This replication slot has been invalidated due to "idle_timeout".
        "#);
    }

    #[test]
    fn a_crash_takes_positions_back_that_no_checkpoint_has_saved() {
        let cluster = cluster(ServerVersion::V17, &[]);
        cluster.create_slot("s", false, true, 1).expect("a slot");
        let confirm = || cluster.confirm_flush("s", cluster.flush_position());
        let restart = || cluster.read_slot("s").and_then(|slot| slot.restart_lsn);
        confirm();
        checkpoint_in(&cluster, 5);
        let saved = restart();
        confirm();
        assert_ne!(restart(), saved);
        cluster.crash();
        assert_eq!(restart(), saved);
        cluster.start_up().expect("nothing is missing");
        // And what is needed from there is still there.
        let mut byte = [0];
        cluster.read_wal(cluster.timeline(), saved.expect("a position"), &mut byte).expect("kept");
        confirm();
        cluster.shut_down();
        cluster.crash();
        assert!(restart() > saved, "a shutdown saves");
    }
}
