//! Is it WAL? Whether it came as a stream or as files, the WAL of a backup has to be there without a hole and has to parse.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::reader::{WalError, WalReader, WalReaderConfig, WalTail};
use backstop_protocol::wal_file::WalSegmentSize;

use crate::error::ClientError;

/// Follows WAL from a segment's beginning.
#[derive(Clone)]
pub(crate) struct WalCheck {
    version: ServerVersion,
    system_identifier: u64,
    segment_size: WalSegmentSize,
    timeline: TimelineId,
    next: Lsn,
    /// None for releases before 9.5, whose records look different: there only holes are found.
    reader: Option<WalReader>,
    /// What the reader refused, if that is judged at the end.
    failure: Option<WalError>,
    /// A file holds what its last use left behind the WAL's end. A stream does not.
    leftovers: bool,
}

impl WalCheck {
    /// For WAL of `timeline` that is streamed from the beginning of the segment that holds `start`.
    pub(crate) fn streamed(
        version: ServerVersion,
        system_identifier: u64,
        segment_size: WalSegmentSize,
        timeline: TimelineId,
        start: Lsn,
    ) -> Self {
        let next = segment_size.round_down(start);
        let mut check = Self {
            version,
            system_identifier,
            segment_size,
            timeline,
            next,
            reader: None,
            failure: None,
            leftovers: false,
        };
        check.reader = check.reader_at(next);
        check
    }

    /// For WAL in files, from the one that holds `start`.
    pub(crate) fn in_files(self) -> Self {
        Self { leftovers: true, ..self }
    }

    fn reader_at(&self, start: Lsn) -> Option<WalReader> {
        self.version.has_current_wal_format().then(|| {
            WalReader::new(WalReaderConfig {
                version: self.version,
                system_identifier: Some(self.system_identifier),
                segment_size: self.segment_size,
                timeline: self.timeline,
                history: None,
                start,
            })
        })
    }

    /// Takes the WAL of `timeline` at `at`, which must follow what came before.
    ///
    /// Files may be there of both timelines that a segment belongs to, as a server that was promoted keeps what it had; sorted by
    /// segment, either may come first. Recovery takes the newer one.
    pub(crate) fn push(&mut self, timeline: TimelineId, at: Lsn, bytes: &[u8]) -> Result<(), ClientError> {
        if self.leftovers && timeline < self.timeline {
            return Ok(());
        }
        if self.leftovers && timeline > self.timeline && at.saturating_add(self.segment_size.bytes()) == self.next {
            // What the older one held behind the fork is nobody's any more.
            self.failure = None;
            self.next = at;
        }
        if at != self.next {
            return Err(ClientError::Wal { at, problem: format!("a hole, expected {}", self.next) });
        }
        if timeline != self.timeline {
            // The first file of a timeline begins with what its parent's held.
            if timeline < self.timeline || self.segment_size.offset_of(at) != 0 {
                return Err(ClientError::Wal { at, problem: format!("of timeline {timeline}, not {}", self.timeline) });
            }
            self.timeline = timeline;
            self.reader = self.reader_at(at);
        }
        self.next = at.saturating_add(bytes.len() as u64);
        let Some(reader) = &mut self.reader else { return Ok(()) };
        match reader.push(bytes) {
            Ok(()) => Ok(()),
            Err(error) if self.leftovers => {
                self.failure.get_or_insert(error);
                Ok(())
            }
            Err(error) => Err(wal_error(&error)),
        }
    }

    /// Goes on with `timeline`, which begins at `fork`, from the beginning of that segment.
    pub(crate) fn switch(&mut self, timeline: TimelineId, fork: Lsn) -> Result<(), ClientError> {
        self.covers(fork)?;
        self.timeline = timeline;
        self.next = self.segment_size.round_down(fork);
        self.reader = self.reader_at(self.next);
        Ok(())
    }

    /// How far the WAL is valid, where that can be known: the end of the last whole record.
    pub(crate) fn valid_to(&self) -> Option<Lsn> {
        self.reader.as_ref().map(WalReader::valid_to)
    }

    /// Whether WAL can go on behind what was pushed, which ended with a segment. True where that cannot be known.
    pub(crate) fn goes_on(&self) -> bool {
        self.failure.is_none()
            && self.reader.as_ref().is_none_or(|reader| match reader.tail() {
                WalTail::Open | WalTail::Partial | WalTail::Switch => true,
                WalTail::Zero => false,
            })
    }

    /// Requires valid WAL up to `end`.
    pub(crate) fn covers(&self, end: Lsn) -> Result<(), ClientError> {
        let valid_to = self.reader.as_ref().map_or(self.next, WalReader::valid_to);
        if valid_to >= end {
            return Ok(());
        }
        if let Some(failure) = &self.failure {
            return Err(wal_error(failure));
        }
        Err(ClientError::Wal { at: valid_to, problem: format!("no valid record up to {end}") })
    }
}

fn wal_error(error: &WalError) -> ClientError {
    ClientError::Wal { at: error.at, problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::wal::log::{WalLog, WalLogConfig};

    use super::*;

    const SIZE: u64 = 1 << 20;
    const START: Lsn = Lsn(SIZE + 0x28);

    fn log() -> WalLog {
        let config = WalLogConfig {
            version: ServerVersion::V15,
            system_identifier: 7,
            timeline: TimelineId(1),
            segment_size: WalSegmentSize::new(SIZE).expect("a size"),
            start: START,
            prev: Lsn::INVALID,
            seed: 1,
        };
        WalLog::new(config).expect("a log")
    }

    fn segment(log: &WalLog, number: u64) -> Vec<u8> {
        let mut segment = vec![0; usize::try_from(SIZE).expect("a size")];
        log.read_zero_filled(Lsn(number * SIZE), &mut segment).expect("WAL");
        segment
    }

    #[test]
    fn files_of_two_timelines_may_hold_the_same_segment_in_either_order() {
        let mut old = log();
        old.fill(300 << 10);
        let mut new = old.branch(TimelineId(2));
        // Up to the fork it holds what its parent's did.
        let (fork, mut forked) = (new.first(), segment(&old, 1));
        old.fill(SIZE);
        let end = new.fill(SIZE);
        let at = usize::try_from(fork - Lsn(SIZE)).expect("a size");
        new.read_zero_filled(fork, &mut forked[at..]).expect("WAL");
        assert!(end > Lsn(2 * SIZE) && segment(&old, 1) != forked);
        let files = [(1, 1, segment(&old, 1)), (2, 1, forked), (2, 2, segment(&new, 2))];
        for order in [[0, 1, 2], [1, 0, 2]] {
            let size = WalSegmentSize::new(SIZE).expect("a size");
            let begins = TimelineId(if order[0] == 0 { 1 } else { 2 });
            let streamed = WalCheck::streamed(ServerVersion::V15, 7, size, begins, START);
            let mut check = streamed.clone().in_files();
            for index in order {
                let (timeline, number, content) = &files[index];
                for (part, bytes) in content.chunks(100_000).enumerate() {
                    let at = Lsn(number * SIZE + part as u64 * 100_000);
                    check.push(TimelineId(*timeline), at, bytes).expect("WAL");
                }
            }
            check.covers(end).expect("all of it");
            // A stream has one timeline at a time.
            let mut streamed = streamed;
            let first = streamed.push(TimelineId(1), Lsn(SIZE), &files[0].2);
            assert_eq!(first.is_ok(), begins == TimelineId(1));
            if first.is_ok() {
                streamed.push(TimelineId(2), Lsn(SIZE), &files[1].2).expect_err("it has been there");
            }
        }
    }

    #[test]
    fn what_only_the_older_timeline_holds_is_a_hole() {
        let mut old = log();
        let mut new = old.branch(TimelineId(2));
        new.fill(SIZE);
        let end = old.fill(2 * SIZE);
        let size = WalSegmentSize::new(SIZE).expect("a size");
        let mut check = WalCheck::streamed(ServerVersion::V15, 7, size, TimelineId(2), START).in_files();
        check.push(TimelineId(2), Lsn(SIZE), &segment(&new, 1)).expect("WAL");
        check.push(TimelineId(1), Lsn(2 * SIZE), &segment(&old, 2)).expect("nobody's");
        check.covers(end).expect_err("nothing holds it");
    }
}
