//! The WAL that the manifest asks for, read by our own reader.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use backstop_protocol::base_backup::manifest::WalRange;
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent};
use backstop_protocol::control::ControlFile;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::Finding;
use super::archive;
use super::archives::ArchiveFile;
use super::restorable::Essentials;
use super::subject::{Stop, Subject};
use crate::error::reason;
use crate::wal_check::WalCheck;

/// How much of a segment is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// Where the WAL lies.
pub(super) enum WalSource {
    Directory(PathBuf),
    Archives(Vec<ArchiveFile>),
}

/// A range of the manifest while its segments are read, oldest first.
struct Range {
    wanted: WalRange,
    segment_size: WalSegmentSize,
    check: WalCheck,
    /// The number of the segment that has to come next, and of the last one.
    next: u64,
    last: u64,
    failure: Option<String>,
}

impl Range {
    fn new(range: WalRange, control: &ControlFile) -> Self {
        let segment_size = control.wal_segment_size;
        let identifier = control.system_identifier;
        let check =
            WalCheck::streamed(control.version, identifier, segment_size, range.timeline, range.start).in_files();
        let next = segment_size.segment_of(range.start);
        let failure = (range.start >= range.end)
            .then(|| format!("end of WAL {} is not behind its start {}", range.end, range.start));
        Self { wanted: range, segment_size, check, next, last: segment_size.segment_before(range.end), failure }
    }

    /// The file that has to come next.
    fn next_file(&self) -> Option<WalFileName> {
        let open = self.failure.is_none() && self.next <= self.last;
        open.then(|| WalFileName::new(self.wanted.timeline, self.next, self.segment_size))
    }

    /// Takes bytes at `offset` of the wanted segment.
    fn push(&mut self, offset: u64, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        let at = self.segment_size.start_of(self.next).saturating_add(offset);
        let pushed = self.check.push(self.wanted.timeline, at, bytes);
        self.failure = pushed.err().map(|error| error.to_string());
    }

    /// The wanted segment ended after so many bytes.
    fn end_segment(&mut self, length: u64) {
        if length != self.segment_size.bytes() && self.failure.is_none() {
            let name = WalFileName::new(self.wanted.timeline, self.next, self.segment_size);
            let expected = self.segment_size.bytes();
            self.failure = Some(format!("segment \"{name}\" has {length} bytes, expected {expected}"));
        }
        self.next += 1;
    }

    fn outcome(self) -> Option<Finding> {
        let wanted = self.next_file();
        let detail = match (self.failure, wanted) {
            (Some(failure), _) => failure,
            (None, Some(name)) => format!("could not find file \"{name}\""),
            (None, None) => self.check.covers(self.wanted.end).err()?.to_string(),
        };
        let text = format!("WAL parsing failed for timeline {}", self.wanted.timeline);
        Some(Finding::new(text).with_detail(detail))
    }
}

/// Reads the WAL of every range.
pub(super) fn verify(subject: &mut Subject<'_>, essentials: &Essentials, source: &WalSource) -> Result<(), Stop> {
    let wanted = &subject.listed.manifest.wal_ranges;
    if wanted.is_empty() {
        return Ok(());
    }
    let control = match essentials.control() {
        Ok(control) => control,
        Err(problem) => {
            for timeline in wanted.iter().map(|range| range.timeline).collect::<Vec<_>>() {
                let text = format!("WAL parsing failed for timeline {timeline}");
                subject.found(&Finding::new(text).with_detail(&problem))?;
            }
            return Ok(());
        }
    };
    let mut ranges: Vec<Range> = wanted.iter().map(|range| Range::new(*range, &control)).collect();
    match source {
        WalSource::Directory(directory) => ranges.iter_mut().for_each(|range| read_directory(range, directory)),
        WalSource::Archives(files) => read_archives(&mut ranges, files),
    }
    for range in ranges {
        if let Some(finding) = range.outcome() {
            subject.found(&finding)?;
        }
    }
    Ok(())
}

fn read_directory(range: &mut Range, directory: &Path) {
    while let Some(name) = range.next_file() {
        let path = directory.join(name.to_string());
        if let Err(error) = read_segment(range, &path) {
            let (path, reason) = (path.display(), reason(&error));
            range.failure = Some(format!("could not read file \"{path}\": {reason}"));
        }
    }
}

fn read_segment(range: &mut Range, path: &Path) -> std::io::Result<()> {
    let size = range.segment_size.bytes();
    // One byte more than there should be tells that there is more.
    let mut file = File::open(path)?.take(size + 1);
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if length < size {
                    range.push(length, buffer.get(..count).unwrap_or_default());
                }
                length += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    range.end_segment(length);
    Ok(())
}

/// Segments stand in archives in the order in which they were written, and a pass over them is enough; as many passes are
/// made as bring any further.
fn read_archives(ranges: &mut [Range], files: &[ArchiveFile]) {
    let read = AtomicU64::new(0);
    loop {
        let before: u64 = ranges.iter().map(|range| range.next).sum();
        for file in files {
            let mut current = None;
            let result = archive::read(&file.path, file.compression, &read, |event| {
                take(ranges, &mut current, event);
                ControlFlow::Continue(())
            });
            if let Err(error) = result {
                let problem = format!("archive \"{}\": {error}", file.name);
                for range in ranges.iter_mut() {
                    range.failure.get_or_insert_with(|| problem.clone());
                }
            }
        }
        let after: u64 = ranges.iter().map(|range| range.next).sum();
        if after == before || ranges.iter().all(|range| range.next_file().is_none()) {
            return;
        }
    }
}

/// The segment that passes: its range, and how much of it came.
type Current = Option<(usize, u64)>;

fn take(ranges: &mut [Range], current: &mut Current, event: TarEvent) {
    match event {
        TarEvent::Member(header) => {
            let name = segment_name(&header);
            let index = name.and_then(|name| ranges.iter().position(|range| range.next_file() == Some(name)));
            *current = index.map(|index| (index, 0));
        }
        TarEvent::Data(bytes) => {
            if let Some((index, offset)) = current
                && let Some(range) = ranges.get_mut(*index)
            {
                if *offset < range.segment_size.bytes() {
                    range.push(*offset, &bytes);
                }
                *offset += bytes.len() as u64;
            }
        }
        TarEvent::MemberEnd => {
            if let Some((index, length)) = current.take()
                && let Some(range) = ranges.get_mut(index)
            {
                range.end_segment(length);
            }
        }
        TarEvent::End => {}
    }
}

/// The segment in a member: at the top of `pg_wal.tar`, or below `pg_wal` in the archive of the data directory.
fn segment_name(header: &MemberHeader) -> Option<WalFileName> {
    let path = header.path();
    let name = path.strip_prefix(b"pg_wal/").unwrap_or(path);
    let file = header.kind == MemberKind::File;
    str::from_utf8(name).ok().filter(|_| file)?.parse().ok()
}
