//! The WAL of a backup must cover it from the start position to the end position, byte for byte, and must parse.

use std::collections::BTreeMap;
use std::io::Read as _;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal_file::WalFileName;

use super::Evidence;
use super::artifact::{Content, Item};
use super::bytes::first_difference;

/// How much WAL is read and compared at a time.
const PIECE: u64 = 128 << 10;

/// Holes, other bytes than the server's, and WAL that does not parse, between the backup's start and end position.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let Some(backup) = evidence.backup else { return Vec::new() };
    let Some(end) = backup.end else { return Vec::new() };
    match check(evidence, backup.start, end) {
        Ok(()) => Vec::new(),
        Err(problem) => vec![problem],
    }
}

fn check(evidence: &Evidence<'_>, start: Lsn, end: Lsn) -> Result<(), String> {
    let cluster = evidence.cluster;
    let size = cluster.segment_size();
    let timeline = evidence.backup.map_or(cluster.timeline(), |backup| backup.start_timeline);
    let segments = segments(evidence);
    let first = size.round_down(start);
    let mut reader = WalReader::new(WalReaderConfig {
        version: cluster.version(),
        system_identifier: Some(cluster.system_identifier()),
        segment_size: size,
        timeline,
        history: None,
        start: first,
    });
    let mut position = first;
    for segment in size.segment_of(start)..=size.segment_before(end) {
        let name = WalFileName::new(timeline, segment, size).to_string();
        let content = segments.get(&name).ok_or_else(|| format!("WAL segment {name} is missing"))?;
        if content.size != size.bytes() {
            return Err(format!("WAL segment {name} has {} bytes instead of {}", content.size, size.bytes()));
        }
        let stop = end.min(size.start_of(segment + 1));
        let mut stored = content.open().map_err(|error| format!("WAL segment {name}: {error}"))?;
        while position < stop {
            let wanted = usize::try_from(PIECE.min(stop - position)).unwrap_or_default();
            let (mut ours, mut theirs) = (vec![0; wanted], vec![0; wanted]);
            stored.read_exact(&mut ours).map_err(|error| format!("WAL segment {name}: {error}"))?;
            // What the server has recycled since can no longer be compared, but it still has to parse.
            if cluster.read_wal(timeline, position, &mut theirs).is_ok()
                && let Some(at) = first_difference(&ours, &theirs)
            {
                return Err(format!("WAL differs from the server's at {}", position + at as u64));
            }
            reader.push(&ours).map_err(|error| format!("WAL does not parse: {error}"))?;
            position = position + wanted as u64;
        }
    }
    let valid = reader.valid_to();
    if valid < end {
        return Err(format!("WAL is valid to {valid} only, the backup ends at {end}"));
    }
    Ok(())
}

/// The WAL segments in the backup, by name.
fn segments<'a>(evidence: &'a Evidence<'_>) -> BTreeMap<String, &'a Content> {
    let directory = format!("{}/", evidence.cluster.version().wal_directory());
    let files = evidence.artifact.items.iter().filter_map(|(path, item)| {
        let name = str::from_utf8(path.strip_prefix(directory.as_bytes())?).ok()?;
        let Item::File(content) = item else { return None };
        name.parse::<WalFileName>().is_ok().then(|| (name.to_owned(), content))
    });
    files.collect()
}
