//! Is it WAL? Whether it came as a stream or as files, the WAL of a backup has to be there without a hole and has to parse.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::reader::{WalError, WalReader, WalReaderConfig};
use backstop_protocol::wal_file::WalSegmentSize;

use crate::error::ClientError;

/// Follows WAL from a segment's beginning.
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
    pub(crate) fn push(&mut self, timeline: TimelineId, at: Lsn, bytes: &[u8]) -> Result<(), ClientError> {
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
