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
                match compare(cluster, segment, &path) {
                    Ok(end) if segment.partial => partial.push((segment, end)),
                    Ok(_) => archive.completes(cluster, segment),
                    Err(_) if spoilt(&name) => {}
                    Err(problem) => archive.problems.push(format!("\"{name}\" {problem}")),
                }
            } else if let Some(timeline) = history_of(&name) {
                let theirs = cluster.history(timeline).map(|history| history.to_string().into_bytes());
                if theirs.is_none() || std::fs::read(&path).ok() != theirs {
                    archive.problems.push(format!("\"{name}\" is not the server's"));
                }
            } else if !name.ends_with(UNFINISHED) || client.ending.is_success() {
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use backstop_mock::config::Config;
    use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;
    use crate::record::Ending;
    use crate::scenario::model::ArchivedFile;

    /// A server on timeline 2 with two segments and a half of 1 MiB.
    fn cluster() -> Cluster {
        let wal_segment_size = WalSegmentSize::new(1 << 20).expect("a valid size");
        let wal_start = Some(Lsn(0x30_0028));
        let config =
            Config { wal_segment_size, wal_start, timeline: TimelineId(2), size: 1 << 19, ..Config::default() };
        let cluster = Cluster::new(&config).expect("a cluster");
        cluster.grow_wal(3 << 19);
        cluster
    }

    fn content(cluster: &Cluster, timeline: u32, segment: u64) -> (String, Vec<u8>) {
        let name = WalFileName::new(TimelineId(timeline), segment, cluster.segment_size());
        let mut content = vec![0; 1 << 20];
        cluster.read_wal_file(name, 0, &mut content).expect("WAL");
        (name.to_string(), content)
    }

    /// An archive with these files.
    struct Stage {
        cluster: Cluster,
        directory: TempDir,
        client: Client,
    }

    impl Stage {
        fn new() -> Self {
            let stage =
                Self { cluster: cluster(), directory: TempDir::new().expect("a directory"), client: Client::default() };
            for segment in [2, 3] {
                let (name, content) = content(&stage.cluster, 2, segment);
                stage.put(&name, &content);
            }
            let history = stage.cluster.history(TimelineId(2)).expect("a history").to_string();
            stage.put("00000002.history", history.as_bytes());
            let (name, content) = content(&stage.cluster, 2, 4);
            stage.put(&format!("{name}.partial"), &content);
            stage
        }

        fn put(&self, name: &str, content: &[u8]) {
            std::fs::write(self.directory.path().join(name), content).expect("written");
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.directory.path().join(name)).expect("removed");
        }

        fn load(&self) -> Archive {
            let record = ClientRecord {
                name: "archive".to_owned(),
                ending: Ending::Exited(0),
                said: String::new(),
                elapsed: Duration::ZERO,
                target: self.directory.path().to_owned(),
                changes_outside: Vec::new(),
            };
            Archive::load(&self.cluster, &self.client, &record)
        }

        fn problems(&self) -> String {
            self.load().problems.join("\n")
        }
    }

    #[test]
    fn a_sound_archive_is_accepted_in_every_form() {
        let mut stage = Stage::new();
        assert_eq!(stage.problems(), "");
        let (name, content) = content(&stage.cluster, 2, 3);
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).expect("compressed");
        stage.remove(&name);
        stage.put(&format!("{name}.gz"), &encoder.finish().expect("compressed"));
        // What a crash left of a segment: the rest was never written.
        stage.put(&format!("{name}.partial"), &[&content[..4096], &vec![0; (1 << 20) - 4096]].concat());
        assert_eq!(stage.problems(), "");
        let end = stage.cluster.flush_position();
        stage.client.endpos = Some(end);
        assert_eq!(stage.load().lacks(&stage.client), Vec::<String>::new());
        stage.client.endpos = Some(Lsn(0x60_0000));
        assert_eq!(stage.load().lacks(&stage.client).len(), 1);
    }

    #[test]
    fn what_is_not_the_servers_is_refused() {
        let stage = Stage::new();
        let (name, mut other) = content(&stage.cluster, 2, 3);
        other[5000] ^= 1;
        stage.put(&name, &other);
        stage.put("00000002.history", b"1\t0/1\tno reason\n");
        stage.put("notes", b"");
        let (short, content) = content(&stage.cluster, 2, 2);
        stage.put(&short, &content[..1234]);
        stage.put("000000020000000000000007.gz", b"no gzip");
        insta::assert_snapshot!(stage.problems(), @r#"
        "00000002.history" is not the server's
        "000000020000000000000002" holds 1234 bytes of WAL instead of 1048576
        "000000020000000000000003" differs from the server's WAL at 0/301388
        "000000020000000000000007.gz" cannot be read: unexpected end of file
        "notes" does not belong into an archive
        "#);
    }

    #[test]
    fn holes_and_missing_histories_are_refused() {
        let stage = Stage::new();
        stage.remove("000000020000000000000003");
        insta::assert_snapshot!(stage.problems(), @r#"nothing is there between 0/300000 and 0/400000"#);
        stage.remove("000000020000000000000004.partial");
        assert_eq!(stage.problems(), "");
        stage.remove("00000002.history");
        insta::assert_snapshot!(stage.problems(), @r#""00000002.history" is missing"#);
    }

    #[test]
    fn a_partial_segment_that_holds_something_else_is_refused() {
        let stage = Stage::new();
        let (name, mut other) = content(&stage.cluster, 2, 4);
        other[4096..].fill(0);
        stage.put(&format!("{name}.partial"), &other);
        assert_eq!(stage.problems(), "");
        other[9000] = 1;
        stage.put(&format!("{name}.partial"), &other);
        insta::assert_snapshot!(stage.problems(), @r#""000000020000000000000004.partial" differs from the server's WAL at 0/401000"#);
    }

    #[test]
    fn what_the_scenario_spoilt_is_not_judged() {
        let mut stage = Stage::new();
        let (name, content) = content(&stage.cluster, 2, 2);
        stage.put(&name, &content[..1234]);
        assert_ne!(stage.problems(), "");
        let size = Some(backstop_mock::units::ByteSize(1234));
        stage.client.has = vec![ArchivedFile { name, size }];
        assert_eq!(stage.problems(), "");
    }
}
