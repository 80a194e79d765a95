//! The WAL of a backup must cover it from the start position to the end position, must be the server's, and must parse.
//!
//! Recovery never looks at some bytes of WAL: the padding behind a record, and what follows a SWITCH to the end of its
//! segment. Neither does this oracle: a backup is no worse for them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;

use backstop_mock::BackupRecord;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::reader::{ReadRecord, WalError, WalReader, WalReaderConfig};
use backstop_protocol::wal::record::RECORD_ALIGNMENT;
use backstop_protocol::wal_file::WalFileName;

use super::Evidence;
use super::artifact::{Content, Item};
use super::original::Original;

/// How much WAL is read and compared at a time: whole pages.
pub const PIECE: u64 = 128 << 10;

/// Holes, other bytes than the server's, and WAL that does not parse, between the backup's start and end position.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let Some(backup) = evidence.backup else { return Vec::new() };
    let Some(end) = backup.end else { return Vec::new() };
    match check(evidence, backup, end) {
        Ok(()) => Vec::new(),
        Err(problem) => vec![problem],
    }
}

fn check(evidence: &Evidence<'_>, backup: &BackupRecord, end: Lsn) -> Result<(), String> {
    let original = evidence.original;
    let (size, timeline) = (original.segment_size(), backup.start_timeline);
    let segments = segments(evidence);
    let mut recovery = Recovery::new(original, timeline, backup.start);
    let mut position = size.round_down(backup.start);
    for segment in size.segment_of(backup.start)..=size.segment_before(end) {
        let name = WalFileName::new(timeline, segment, size).to_string();
        let content = segments.get(&name).ok_or_else(|| format!("WAL segment {name} is missing"))?;
        if content.size != size.bytes() {
            return Err(format!("WAL segment {name} has {} bytes instead of {}", content.size, size.bytes()));
        }
        let stop = end.min(size.start_of(segment + 1));
        let mut stored = content.open().map_err(|error| format!("WAL segment {name}: {error}"))?;
        while position < stop {
            let mut piece = vec![0; usize::try_from(PIECE.min(stop - position)).unwrap_or_default()];
            stored.read_exact(&mut piece).map_err(|error| format!("WAL segment {name}: {error}"))?;
            let (unread, read) = recovery.read(position, &mut piece);
            // What the server has recycled since can no longer be compared, but it still has to parse.
            if let Some(at) = original.wal_difference(timeline, position, &piece, &unread) {
                return Err(format!("WAL differs from the server's at {at}"));
            }
            read.map_err(|error| format!("WAL does not parse: {error}"))?;
            position = position + piece.len() as u64;
        }
    }
    let valid = recovery.valid_to();
    if valid < end {
        return Err(format!("WAL is valid to {valid} only, the backup ends at {end}"));
    }
    Ok(())
}

/// Tells of every record from the backup's start position on, as far as its WAL goes, and why it goes no further.
pub fn read_on(evidence: &Evidence<'_>, backup: &BackupRecord, mut tell: impl FnMut(&ReadRecord)) -> String {
    let (size, timeline) = (evidence.original.segment_size(), backup.start_timeline);
    let segments = segments(evidence);
    let mut recovery = Recovery::new(evidence.original, timeline, backup.start);
    let mut position = size.round_down(backup.start);
    for segment in size.segment_of(backup.start).. {
        let name = WalFileName::new(timeline, segment, size).to_string();
        let Some(content) = segments.get(&name) else { return format!("WAL segment {name} is missing") };
        if content.size != size.bytes() {
            return format!("WAL segment {name} has {} bytes instead of {}", content.size, size.bytes());
        }
        let mut stored = match content.open() {
            Ok(stored) => stored,
            Err(error) => return format!("WAL segment {name}: {error}"),
        };
        let until = size.start_of(segment + 1);
        while position < until {
            let mut piece = vec![0; usize::try_from(PIECE.min(until - position)).unwrap_or_default()];
            if let Err(error) = stored.read_exact(&mut piece) {
                return format!("WAL segment {name}: {error}");
            }
            let (_, read) = recovery.read_with(position, &mut piece, |record| tell(record));
            if let Err(error) = read {
                return error.to_string();
            }
            position = position + piece.len() as u64;
        }
    }
    "WAL has no end".to_owned()
}

/// Reads WAL as recovery does, and blanks what recovery does not look at.
#[derive(Debug)]
pub struct Recovery {
    reader: WalReader,
    /// The end of the segment that a SWITCH left.
    left_to: Lsn,
}

impl Recovery {
    /// From the beginning of the segment that holds `start`.
    pub fn new(original: &dyn Original, timeline: TimelineId, start: Lsn) -> Self {
        let config = WalReaderConfig {
            version: original.version(),
            system_identifier: Some(original.system_identifier()),
            segment_size: original.segment_size(),
            timeline,
            history: None,
            start,
        };
        Self { reader: WalReader::new(config).passing_over_tails(), left_to: Lsn::INVALID }
    }

    /// Reads the next bytes, at `position`, and sets those to zero that recovery does not look at: returned are their places
    /// in `piece`, which ends where a page does or a record, and whether it could be read.
    pub fn read(&mut self, position: Lsn, piece: &mut [u8]) -> (Vec<Range<usize>>, Result<(), WalError>) {
        self.read_with(position, piece, |_| {})
    }

    /// The same, telling of every record that ends in `piece`.
    fn read_with(
        &mut self,
        position: Lsn,
        piece: &mut [u8],
        mut tell: impl FnMut(&ReadRecord),
    ) -> (Vec<Range<usize>>, Result<(), WalError>) {
        let end = position + piece.len() as u64;
        let size = self.reader.segment_size();
        let mut unread = Vec::new();
        if self.left_to > position {
            unread.push((position, self.left_to));
        }
        let mut left_to = self.left_to;
        let read = self.reader.push_with(piece, |record| {
            // Page headers are multiples of 8 long, so that the length alone says how much padding there is.
            let padding = Lsn(0) + u64::from(record.header.total_length);
            let padding = padding.align_up(RECORD_ALIGNMENT) - padding;
            unread.push((Lsn(record.end.0.saturating_sub(padding)), record.end));
            tell(&record);
            if record.header.is_switch() {
                left_to = Lsn(record.end.0.next_multiple_of(size.bytes()));
                unread.push((record.end, left_to));
            }
        });
        self.left_to = left_to;
        let place = |lsn: Lsn| usize::try_from(lsn.clamp(position, end) - position).unwrap_or_default();
        let unread =
            unread.into_iter().map(|(from, until)| place(from)..place(until)).filter(|range| !range.is_empty());
        let unread: Vec<_> = unread.collect();
        blank(piece, &unread);
        (unread, read)
    }

    /// The end of the last valid record.
    pub fn valid_to(&self) -> Lsn {
        self.reader.valid_to()
    }
}

/// Sets what is not read to zero.
pub fn blank(piece: &mut [u8], unread: &[Range<usize>]) {
    for range in unread {
        piece.get_mut(range.clone()).unwrap_or_default().fill(0);
    }
}

/// The WAL segments in the backup, by name.
fn segments<'a>(evidence: &'a Evidence<'_>) -> BTreeMap<String, &'a Content> {
    let directory = format!("{}/", evidence.original.version().wal_directory());
    let files = evidence.artifact.items.iter().filter_map(|(path, item)| {
        let name = str::from_utf8(path.strip_prefix(directory.as_bytes())?).ok()?;
        let Item::File(content) = item else { return None };
        name.parse::<WalFileName>().is_ok().then(|| (name.to_owned(), content))
    });
    files.collect()
}
