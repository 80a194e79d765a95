//! What `pg_wal/summaries` covers: the work of the WAL summarizer (since 17).
//!
//! The files themselves are never sent, and which blocks changed is a function of the cluster, so that all that is kept is where
//! the summaries begin and end. A file ends at the redo point of a checkpoint, or where a timeline does.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use super::settings::Settings;
use super::wal::Wal;
use super::{Cluster, Facts, Inner, State};
use crate::config::ConfigError;

/// `SizeOfXLogLongPHD`: what stands before the first record of a segment.
const PAGE_HEADER: u64 = 40;

/// Between which positions there are summaries, whatever the timeline.
#[derive(Debug)]
pub(super) struct Summaries {
    /// `summarize_wal`.
    on: bool,
    /// Whether the summarizer hangs.
    stuck: bool,
    from: Lsn,
    through: Lsn,
}

/// WAL that an incremental backup needs summaries of and that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsummarized {
    /// There is no summary of any part of the range.
    All,
    /// The first position without.
    From(Lsn),
}

/// `TimeLineHistoryEntry`: where a timeline begins and ends in the history of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimelineEntry {
    pub(crate) timeline: TimelineId,
    /// 0 for the first one.
    pub(crate) begin: Lsn,
    /// None for the last one.
    pub(crate) end: Option<Lsn>,
}

impl Summaries {
    /// The summaries at the start of a server: from its oldest record on. Of the WAL of a data directory there are none, since
    /// nobody knows which blocks it changed.
    pub(super) fn new(settings: &Settings, facts: &Facts, wal: &Wal, directory: bool) -> Result<Self, ConfigError> {
        let on = facts.version.has_wal_summaries() && settings.flag("summarize_wal", false)?;
        let stuck = match settings.get("backstop.wal_summarizer").as_ref().map(|(_, value)| value.as_str()) {
            None | Some("running") => false,
            Some("stuck") => true,
            Some(other) => {
                let problem = format!("{other:?} is neither \"running\" nor \"stuck\"");
                return Err(ConfigError::invalid("settings.backstop.wal_summarizer", problem));
            }
        };
        let from = if directory { wal.flush_position() } else { wal.oldest().saturating_add(PAGE_HEADER) };
        let mut summaries = Self { on, stuck, from, through: from };
        summaries.follow(wal.checkpoint_at().redo);
        Ok(summaries)
    }

    pub(super) fn through(&self) -> Lsn {
        self.through
    }

    /// The first position without a summary, if it is going to have one (`GetOldestUnsummarizedLSN`).
    pub(super) fn unsummarized(&self) -> Option<Lsn> {
        self.on.then_some(self.through)
    }

    /// Follows the setting `summarize_wal`. A summarizer that begins again where WAL is gone begins with the oldest there is.
    pub(super) fn switch(&mut self, on: bool, oldest: Lsn) {
        self.on = on;
        let oldest = oldest.saturating_add(PAGE_HEADER);
        if on && self.through < oldest {
            (self.from, self.through) = (oldest, oldest);
        }
    }

    /// Goes on to the redo point of a checkpoint.
    fn follow(&mut self, redo: Lsn) {
        if self.on && !self.stuck {
            self.through = self.through.max(redo);
        }
    }
}

impl Inner {
    /// Lets the summarizer see the latest checkpoint.
    pub(super) fn summarize(&self, state: &mut State) {
        let redo = state.wal.checkpoint_at().redo;
        state.summaries.follow(redo);
        let through = state.summaries.through;
        self.summarized.send_if_modified(|summarized| std::mem::replace(summarized, through) != through);
    }
}

impl Cluster {
    /// Whether the server summarizes WAL.
    pub(crate) fn summarizes_wal(&self) -> bool {
        self.inner.lock().summaries.on
    }

    /// How far WAL has been summarized (`pg_get_wal_summarizer_state`).
    pub fn summarized_lsn(&self) -> Lsn {
        self.inner.lock().summaries.through
    }

    /// Stops the WAL summarizer where it is, or lets it go on and catch up. WAL that waits for it is not removed.
    pub fn hold_wal_summarizer(&self, stuck: bool) {
        let mut state = self.inner.lock();
        state.summaries.stuck = stuck;
        self.inner.summarize(&mut state);
    }

    /// Removes the files of `pg_wal/summaries` that end at or before `through`, behind the server's back.
    pub fn remove_wal_summaries(&self, through: Lsn) {
        let mut state = self.inner.lock();
        state.summaries.from = through.min(state.summaries.through).max(state.summaries.from);
    }

    /// Resolves when WAL has been summarized through `position`.
    pub(crate) async fn summarized_through(&self, position: Lsn) {
        let mut receiver = self.inner.summarized.subscribe();
        // The sender lives as long as self.
        let _ = receiver.wait_for(|summarized| *summarized >= position).await;
    }

    /// Whether the summaries of `timeline` from `start` to `end` are there (`WalSummariesAreComplete`).
    pub(crate) fn unsummarized(&self, timeline: TimelineEntry, start: Lsn, end: Lsn) -> Option<Unsummarized> {
        let state = self.inner.lock();
        let from = state.summaries.from.max(timeline.begin);
        let through = timeline.end.map_or(state.summaries.through, |end| end.min(state.summaries.through));
        if from >= through || through <= start || from >= end {
            return Some(Unsummarized::All);
        }
        match (from <= start, through >= end) {
            (true, true) => None,
            (true, false) => Some(Unsummarized::From(through)),
            (false, _) => Some(Unsummarized::From(start)),
        }
    }

    /// The timelines that lead to `timeline`, itself first (`readTimeLineHistory`).
    pub(crate) fn timeline_entries(&self, timeline: TimelineId) -> Vec<TimelineEntry> {
        let history = self.history(timeline).unwrap_or_default();
        let mut begin = Lsn::INVALID;
        let mut entries = Vec::new();
        for switch in &history.switches {
            entries.push(TimelineEntry { timeline: switch.parent, begin, end: Some(switch.at) });
            begin = switch.at;
        }
        entries.push(TimelineEntry { timeline, begin, end: None });
        entries.reverse();
        entries
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use super::*;
    use crate::config::{Config, Role};

    fn cluster(role: Role) -> Cluster {
        let settings = [("summarize_wal".to_owned(), "on".to_owned())].into();
        Cluster::new(&Config { version: ServerVersion::V18, role, settings, ..Config::default() }).unwrap()
    }

    #[test]
    fn summaries_end_at_the_redo_point() {
        let cluster = cluster(Role::Primary);
        let first = cluster.start_backup("first", true).unwrap().start;
        cluster.grow_wal(100_000);
        assert_eq!(cluster.summarized_lsn(), first);
        let second = cluster.start_backup("second", true).unwrap().start;
        assert_eq!(cluster.summarized_lsn(), second);
        let timeline = cluster.timeline_entries(TimelineId(1))[0];
        assert_eq!(cluster.unsummarized(timeline, first, second), None);
        assert_eq!(cluster.unsummarized(timeline, first, second + 1), Some(Unsummarized::From(second)));
        assert_eq!(cluster.unsummarized(timeline, Lsn(8), second), Some(Unsummarized::From(Lsn(8))));
        cluster.remove_wal_summaries(Lsn(u64::MAX));
        assert_eq!(cluster.unsummarized(timeline, first, second), Some(Unsummarized::All));
        let third = cluster.start_backup("third", true).unwrap().start;
        assert_eq!(cluster.unsummarized(timeline, first, third), Some(Unsummarized::From(first)));
    }

    #[test]
    fn a_summarizer_that_was_stuck_catches_up() {
        let cluster = cluster(Role::Primary);
        cluster.hold_wal_summarizer(true);
        let before = cluster.summarized_lsn();
        let start = cluster.start_backup("test", true).unwrap().start;
        assert_eq!(cluster.summarized_lsn(), before);
        cluster.hold_wal_summarizer(false);
        assert_eq!(cluster.summarized_lsn(), start);
    }

    #[test]
    fn wal_waits_for_its_summary() {
        let cluster = cluster(Role::Primary);
        cluster.hold_wal_summarizer(true);
        let oldest = cluster.oldest_wal();
        for _ in 0..4 {
            cluster.switch_wal();
            cluster.checkpoint();
        }
        assert_eq!(cluster.oldest_wal(), oldest);
        // Without a summarizer nothing waits, and what is gone when it returns cannot be summarized any more.
        cluster.set("summarize_wal", "off").unwrap();
        cluster.checkpoint();
        assert!(cluster.oldest_wal() > oldest);
        cluster.hold_wal_summarizer(false);
        cluster.switch_wal();
        let begin = cluster.oldest_wal() + 40;
        cluster.set("summarize_wal", "on").unwrap();
        let start = cluster.start_backup("test", true).unwrap().start;
        let timeline = cluster.timeline_entries(TimelineId(1))[0];
        assert_eq!(cluster.unsummarized(timeline, begin, start), None);
        assert_eq!(cluster.unsummarized(timeline, Lsn(0x200_0028), start), Some(Unsummarized::From(Lsn(0x200_0028))));
    }

    #[test]
    fn timelines_are_summarized_to_their_switch() {
        let cluster = cluster(Role::Standby);
        let start = cluster.start_backup("test", true).unwrap().start;
        let child = cluster.promote().unwrap();
        let end = cluster.start_backup("test", true).unwrap().start;
        let [new, old] = cluster.timeline_entries(child)[..] else { panic!("two timelines") };
        assert_eq!((old.timeline, new.timeline, old.begin, new.end), (TimelineId(1), child, Lsn(0), None));
        assert_eq!(old.end, Some(new.begin));
        assert_eq!(cluster.unsummarized(old, start, new.begin), None);
        assert_eq!(cluster.unsummarized(new, new.begin, end), None);
        cluster.remove_wal_summaries(Lsn(u64::MAX));
        assert_eq!(cluster.unsummarized(old, start, new.begin), Some(Unsummarized::All));
    }
}
