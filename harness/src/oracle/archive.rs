//! An archive of WAL must hold the server's, byte for byte and without a hole, and no more may be confirmed than it holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use backstop_mock::cluster::Cluster;
use backstop_protocol::base_backup::options::CompressionAlgorithm;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_archive::ArchivedSegment;
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

use crate::record::{ClientRecord, Record};
use crate::scenario::model::Client;

/// Other names than segments and history files end so while they are written.
const UNFINISHED: &str = ".tmp";

/// What lies in the archive.
#[derive(Debug, Default)]
pub struct Archive {
    /// Every name, in order.
    pub names: Vec<String>,
    /// What is wrong with what they hold.
    pub problems: Vec<String>,
    /// By number, the timelines whose segment is complete and right.
    complete: BTreeMap<u64, Vec<TimelineId>>,
    /// Up to where it holds the server's WAL.
    end: Option<Lsn>,
}

impl Archive {
    /// Reads the archive of `client` and compares every file with what the server has. Files that the scenario put there with a
    /// wrong size are what they are.
    pub fn load(cluster: &Cluster, scenario: &Client, client: &ClientRecord) -> Self {
        let mut archive = Self::default();
        match names(&client.target) {
            Ok(names) => archive.names = names,
            Err(error) => archive.problems.push(format!("the archive cannot be read: {error}")),
        }
        let spoilt = |name: &str| scenario.has.iter().any(|file| file.size.is_some() && file.name == name);
        let mut partial = Vec::new();
        for name in archive.names.clone() {
            let path = client.target.join(&name);
            if let Ok(segment) = name.parse::<ArchivedSegment>() {
                if spoilt(&name) {
                    continue;
                }
                match compare(cluster, segment, &path) {
                    Ok(end) if segment.partial => partial.push((segment, end)),
                    Ok(_) => archive.completes(cluster, segment),
                    Err(problem) => archive.problems.push(format!("\"{name}\" {problem}")),
                }
            } else if let Some(timeline) = history_of(&name) {
                let theirs = cluster.history(timeline).map(|history| history.to_string().into_bytes());
                if theirs.is_none() || std::fs::read(&path).ok() != theirs {
                    archive.problems.push(format!("\"{name}\" is not the server's"));
                }
            } else if !(name.ends_with(UNFINISHED) && !client.ending.is_success()) {
                archive.problems.push(format!("\"{name}\" does not belong into an archive"));
            }
        }
        archive.follow(cluster, &partial);
        archive
    }

    fn completes(&mut self, cluster: &Cluster, segment: ArchivedSegment) {
        match segment.file.segment(cluster.segment_size()) {
            Some(number) => self.complete.entry(number).or_default().push(segment.file.timeline),
            None => self.problems.push(format!("\"{segment}\" is no segment of this size")),
        }
    }

    /// Holes, and history files that nobody could do without.
    fn follow(&mut self, cluster: &Cluster, partial: &[(ArchivedSegment, Lsn)]) {
        let size = cluster.segment_size();
        let numbers: Vec<u64> = self.complete.keys().copied().collect();
        for pair in numbers.windows(2) {
            if let [one, next] = pair
                && one + 1 != *next
            {
                self.problems.push(format!(
                    "nothing is there between {} and {}",
                    size.start_of(one + 1),
                    size.start_of(*next)
                ));
            }
        }
        let complete = numbers.last().map(|last| size.start_of(last + 1));
        let begun = partial.iter().filter_map(|(segment, end)| Some((segment.file.segment(size)?, *end)));
        let highest = begun.max();
        if let (Some(complete), Some((number, _))) = (complete, highest)
            && size.start_of(number) > complete
        {
            self.problems.push(format!("nothing is there between {complete} and {}", size.start_of(number)));
        }
        self.end = complete.into_iter().chain(highest.map(|(_, end)| end)).max();
        let timelines =
            self.complete.values().flatten().copied().chain(partial.iter().map(|(one, _)| one.file.timeline));
        for timeline in timelines.collect::<std::collections::BTreeSet<_>>() {
            let name = timeline.history_file_name();
            if timeline > TimelineId::FIRST && !self.names.contains(&name) {
                self.problems.push(format!("\"{name}\" is missing"));
            }
        }
    }

    /// Why it does not hold the WAL that `client` was asked for.
    pub fn lacks(&self, client: &Client) -> Vec<String> {
        let Some(wanted) = client.endpos else { return Vec::new() };
        let reached = self.end.unwrap_or(Lsn::INVALID);
        if reached >= wanted {
            Vec::new()
        } else {
            vec![format!("it ends at {reached}, WAL up to {wanted} was asked for")]
        }
    }

    /// Slots of `client` that no longer keep what is not there.
    pub fn confirmed_too_much(&self, client: &Client, record: &Record) -> Vec<String> {
        let slots = record.state.slots.iter().filter(|slot| client.slot_name() == Some(slot.name.as_str()));
        let ahead = slots.filter_map(|slot| Some((slot, slot.restart_lsn?)));
        // Before the first segment there is nothing that could have been confirmed.
        let stored = |kept: Lsn| self.end.is_some_and(|end| kept <= end) || self.names.is_empty();
        let ahead = ahead.filter(|(_, kept)| !stored(*kept));
        let told = |(slot, kept): (&backstop_mock::cluster::SlotState, Lsn)| {
            let end = self.end.unwrap_or(Lsn::INVALID);
            format!("slot \"{}\" keeps WAL from {kept} on, the archive ends at {end}", slot.name)
        };
        ahead.map(told).collect()
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn history_of(name: &str) -> Option<TimelineId> {
    let digits = name.strip_suffix(".history")?;
    let timeline = TimelineId(u32::from_str_radix(digits, 16).ok()?);
    (timeline.history_file_name() == name).then_some(timeline)
}

/// Compares a file with the server's segment. Of one that is not complete the end of what is right is returned: the rest must be
/// missing, or zeros.
fn compare(cluster: &Cluster, segment: ArchivedSegment, path: &Path) -> Result<Lsn, String> {
    let size = cluster.segment_size();
    let start = segment.file.segment(size).map(|number| size.start_of(number)).ok_or("is no segment of this size")?;
    let mut ours = Vec::new();
    let read =
        reader(path, segment.compression).and_then(|reader| reader.take(size.bytes() + 1).read_to_end(&mut ours));
    match read {
        Ok(_) => {}
        // Its compression was never ended.
        Err(_) if segment.partial => {}
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    let bytes = ours.len() as u64;
    if bytes > size.bytes() || (!segment.partial && bytes < size.bytes()) {
        return Err(format!("holds {bytes} bytes of WAL instead of {}", size.bytes()));
    }
    let mut theirs = vec![0; ours.len()];
    match cluster.read_wal_file(segment.file, 0, &mut theirs) {
        Ok(()) => {}
        // What the server has recycled since can no longer be compared.
        Err(backstop_mock::cluster::WalReadError::Removed(_)) => return Ok(start.saturating_add(bytes)),
        Err(error) => return Err(format!("is not a segment of the server's: {error}")),
    }
    let same = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let rest = ours.get(same..).unwrap_or_default();
    if rest.is_empty() || (segment.partial && rest.iter().all(|byte| *byte == 0)) {
        Ok(start.saturating_add(same as u64))
    } else {
        Err(format!("differs from the server's WAL at {}", start.saturating_add(same as u64)))
    }
}

fn reader(path: &Path, compression: CompressionAlgorithm) -> io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    Ok(match compression {
        CompressionAlgorithm::None => Box::new(file),
        CompressionAlgorithm::Gzip => Box::new(MultiGzDecoder::new(file)),
        CompressionAlgorithm::Lz4 => Box::new(FrameDecoder::new(file)),
        CompressionAlgorithm::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}
