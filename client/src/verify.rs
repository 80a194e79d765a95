//! Is it a backup? What arrived has to agree with itself: labels, control file and manifest with what the server said, and
//! the manifest with every file.

use std::collections::HashSet;

use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, Manifest, ManifestError, ManifestFile, WalRange};
use backstop_protocol::base_backup::tablespace_map::TablespaceMap;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use crate::contents::{Contents, Received};
use crate::error::{ClientError, shown};
use crate::receive::{Position, Tablespace};

/// What the server said about the backup and itself.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) version: ServerVersion,
    pub(crate) flavour: Flavour,
    pub(crate) system_identifier: u64,
    pub(crate) segment_size: WalSegmentSize,
    pub(crate) label: String,
    pub(crate) start: Position,
    pub(crate) end: Position,
    /// The WAL of the backup on which an incremental one builds, by its manifest.
    pub(crate) builds_on: Option<Vec<WalRange>>,
    /// The start of the backup on which one builds that is incremental by LSN.
    pub(crate) builds_on_location: Option<Lsn>,
}

fn incomplete(problem: impl Into<String>) -> ClientError {
    ClientError::Incomplete(problem.into())
}

/// Checks the files that say what the backup is.
pub(crate) fn check_files(contents: &Contents, said: &Said) -> Result<(), ClientError> {
    let kept = |name: &str| contents.kept(name.as_bytes()).ok_or_else(|| incomplete(format!("\"{name}\" is missing")));
    if kept("PG_VERSION")? != format!("{}\n", said.version.name()).as_bytes() {
        return Err(incomplete(format!("file \"PG_VERSION\" is not of version {}", said.version.name())));
    }
    let label = String::from_utf8_lossy(kept("backup_label")?);
    let label = BackupLabel::parse(&label)
        .map_err(|error| incomplete(format!("invalid data in file \"backup_label\": {error}")))?;
    check_label(&label, said)?;
    check_control(kept("global/pg_control")?, &label, said)
}

/// Checks `backup_label` against what the server said.
pub(crate) fn check_label(label: &BackupLabel, said: &Said) -> Result<(), ClientError> {
    let start = said.start;
    let file = WalFileName::holding(start.timeline, start.lsn, said.segment_size);
    let differs = |what: &str, found: String, expected: String| {
        Err(incomplete(format!("{what} in file \"backup_label\" is {found}, but the server announced {expected}")))
    };
    if label.start != start.lsn {
        return differs("start position", label.start.to_string(), start.lsn.to_string());
    }
    if label.start_file != file {
        return differs("start segment", label.start_file.to_string(), file.to_string());
    }
    if let Some(timeline) = label.timeline.filter(|timeline| *timeline != start.timeline) {
        return differs("timeline", timeline.to_string(), start.timeline.to_string());
    }
    match (label.incremental_from, &said.builds_on) {
        (None, None) => {}
        (Some((lsn, timeline)), Some(ranges))
            if ranges.iter().any(|range| (range.start, range.timeline) == (lsn, timeline)) => {}
        (Some((lsn, timeline)), Some(_)) => {
            return Err(incomplete(format!(
                "file \"backup_label\" builds on a backup that started at {lsn} on timeline {timeline}, which is not ours"
            )));
        }
        (Some(_), None) => return Err(incomplete("file \"backup_label\" is of an incremental backup")),
        (None, Some(_)) => return Err(incomplete("file \"backup_label\" is not of an incremental backup")),
    }
    match (label.incremental_from_location, said.builds_on_location) {
        (found, expected) if found == expected => {}
        (Some(found), Some(expected)) => {
            return Err(incomplete(format!(
                "file \"backup_label\" builds on a backup that started at {found}, but {expected} was asked for"
            )));
        }
        (Some(_), None) => return Err(incomplete("file \"backup_label\" is of an incremental backup")),
        _ => return Err(incomplete("file \"backup_label\" is not of an incremental backup")),
    }
    // The server puts the label there as it is, line ends included: such a label cannot be compared.
    if !said.label.contains(['\n', '\r']) && label.label != said.label {
        let text = format!("label \"{}\" in file \"backup_label\" is not ours", shown(label.label.as_bytes()));
        return Err(incomplete(text));
    }
    Ok(())
}

/// Checks `pg_control` against the label and what the server said.
pub(crate) fn check_control(content: &[u8], label: &BackupLabel, said: &Said) -> Result<(), ClientError> {
    let identifier = content.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
    if identifier != said.system_identifier {
        return Err(incomplete(format!(
            "system identifier in file \"global/pg_control\" is {identifier}, but the server's is {}",
            said.system_identifier
        )));
    }
    if !said.version.has_recovery_signal() {
        // The layout of releases before 12 is not known here.
        return Ok(());
    }
    let invalid = |problem: String| incomplete(format!("invalid data in file \"global/pg_control\": {problem}"));
    let control = ControlFile::decode(content).map_err(|error| invalid(error.to_string()))?;
    if control.version != said.version {
        return Err(invalid(format!("it is of version {}", control.version)));
    }
    if control.wal_segment_size != said.segment_size {
        return Err(invalid(format!("WAL segment size is {}", control.wal_segment_size.setting())));
    }
    if control.checkpoint < label.checkpoint {
        return Err(invalid(format!("checkpoint {} is before the backup's, {}", control.checkpoint, label.checkpoint)));
    }
    Ok(())
}

/// Checks that every tablespace outside of the data directory is known to the backup: linked, or in the map if one was asked
/// for.
pub(crate) fn check_tablespaces(
    contents: &Contents,
    tablespaces: &[Tablespace],
    unlinked: &[&Tablespace],
    map_wanted: bool,
    version: ServerVersion,
) -> Result<(), ClientError> {
    let invalid = |problem: String| incomplete(format!("invalid data in file \"tablespace_map\": {problem}"));
    let map = match contents.kept(b"tablespace_map") {
        Some(_) if !map_wanted => return Err(incomplete("a file \"tablespace_map\" that was not asked for")),
        Some(content) => TablespaceMap::parse_as(content, version).map_err(|error| invalid(error.to_string()))?,
        None => TablespaceMap { entries: Vec::new() },
    };
    for (oid, location) in &map.entries {
        let announced = tablespaces.iter().find(|tablespace| tablespace.oid == Some(*oid));
        if announced.is_none_or(|tablespace| tablespace.location != *location) {
            return Err(invalid(format!("tablespace {oid} at \"{}\" was not announced", shown(location))));
        }
    }
    let missing = unlinked.iter().find(|tablespace| !map.entries.iter().any(|(oid, _)| Some(*oid) == tablespace.oid));
    match missing {
        Some(tablespace) => Err(incomplete(format!("tablespace {} is not linked", tablespace.oid.unwrap_or_default()))),
        None => Ok(()),
    }
}

/// Checks the manifest, and every file against it.
pub(crate) fn check_manifest(text: &[u8], contents: &Contents, said: &Said) -> Result<(), ClientError> {
    let wrong = |problem: String| Err(ClientError::Manifest(problem));
    let mut listed: HashSet<&[u8]> = HashSet::with_capacity(contents.files().len());
    let mut problem = None;
    let scanned = Manifest::scan(text, |file| {
        let Some((path, received)) = contents.files().get_key_value(&file.path) else {
            let name = shown(&file.path);
            problem.get_or_insert_with(|| format!("\"{name}\" is present in the manifest but was not received"));
            return Ok(());
        };
        if !listed.insert(path) {
            return Err(ManifestError::duplicate(path));
        }
        if problem.is_none() {
            problem = difference(&file, received, contents.algorithm());
        }
        Ok(())
    });
    let manifest = match scanned {
        Ok(manifest) => manifest,
        Err(error) => return wrong(error.to_string()),
    };
    if manifest.version != said.version.manifest_version() {
        return wrong(format!("unexpected backup manifest version {}", manifest.version));
    }
    if let Some(identifier) = manifest.system_identifier.filter(|identifier| *identifier != said.system_identifier) {
        let ours = said.system_identifier;
        return wrong(format!("manifest system identifier is {identifier}, but the server's is {ours}"));
    }
    if let Some(problem) = problem {
        return wrong(problem);
    }
    if let Some(extra) = contents.files().keys().find(|path| !listed.contains(path.as_slice())) {
        return wrong(format!("\"{}\" was received but is not in the manifest", shown(extra)));
    }
    check_wal_ranges(&manifest, said)
}

/// How a file that was received is not what the manifest says of it.
fn difference(file: &ManifestFile, received: &Received, algorithm: ChecksumAlgorithm) -> Option<String> {
    let name = || shown(&file.path);
    if received.size != file.size {
        let (size, listed) = (received.size, file.size);
        return Some(format!("\"{}\" has size {size} in the backup but size {listed} in the manifest", name()));
    }
    match (&file.checksum, algorithm) {
        (None, ChecksumAlgorithm::None) => None,
        (Some((theirs, checksum)), ours) if *theirs == ours => {
            (*checksum != received.checksum).then(|| format!("checksum mismatch for file \"{}\"", name()))
        }
        (_, ours) => Some(format!("the manifest has no {ours} checksum for file \"{}\"", name())),
    }
}

/// The ranges must lead from the start position to the end position, newest timeline first, as the server lists them.
fn check_wal_ranges(manifest: &Manifest, said: &Said) -> Result<(), ClientError> {
    let (start, end) = (said.start, said.end);
    let newest =
        manifest.wal_ranges.first().is_some_and(|range| (range.timeline, range.end) == (end.timeline, end.lsn));
    let oldest =
        manifest.wal_ranges.last().is_some_and(|range| (range.timeline, range.start) == (start.timeline, start.lsn));
    let joined = manifest
        .wal_ranges
        .windows(2)
        .all(|pair| matches!(pair, [newer, older] if newer.timeline > older.timeline && newer.start == older.end));
    if newest && oldest && joined {
        return Ok(());
    }
    let (from, to) = (start.lsn, end.lsn);
    Err(ClientError::Manifest(format!("the manifest's WAL ranges do not lead from {from} to {to}")))
}
