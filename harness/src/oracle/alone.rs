//! A backup by itself, without the server that it is a copy of: it has to agree with itself.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use backstop_mock::cluster::Tablespace;
use backstop_mock::{BackupOutcome, BackupRecord};
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::base_backup::options::{BaseBackupOptions, ManifestOption};
use backstop_protocol::base_backup::tablespace_map::TablespaceMap;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::record::Record;
use backstop_protocol::wal_file::WalSegmentSize;

use super::artifact::Artifact;
use super::original::{Expected, Original};
use super::{Evidence, complete, law, manifest, wal};
use crate::record::{ClientRecord, Ending};
use crate::verdict::{Check, Level, Verdict};

/// No label, control file or map is larger.
const SMALL_FILE: u64 = 1 << 20;

/// No manifest that is judged here is larger.
const LARGEST_MANIFEST: u64 = 1 << 30;

/// Judges what lies in `directory`, a plain backup or one in tar format, and says of which release it is, if that can be told.
pub fn judge(directory: &Path) -> (Option<ServerVersion>, Verdict, Vec<Check>) {
    let artifact = Artifact::load(directory);
    let mut checks = Vec::new();
    let facts = match Facts::of(&artifact) {
        Ok(facts) => facts,
        Err(problem) => {
            checks.push(law("it is a backup".to_owned(), "a backup", problem, false));
            return (None, Verdict::Fail, checks);
        }
    };
    let Facts { original, backup, incremental } = facts;
    let client = ClientRecord {
        name: "backup".to_owned(),
        ending: Ending::Exited(0),
        said: String::new(),
        elapsed: Duration::ZERO,
        target: directory.to_path_buf(),
        changes_outside: Vec::new(),
    };
    let mut evidence =
        Evidence { client: &client, original: &original, backup: Some(&backup), sqlstates: Vec::new(), artifact };
    let mut claim = |claim: &str, problems: Vec<String>| {
        let ok = problems.is_empty();
        let found = if ok { "nothing to object to".to_owned() } else { problems.join("; ") };
        checks.push(law(claim.to_owned(), "nothing to object to", found, ok));
    };
    claim("it is complete", complete::problems(&evidence));
    claim("members and manifest agree", manifest::problems(&evidence));
    let ended;
    let wal = match backup.end {
        Some(_) => wal::problems(&evidence),
        None => match end_of_backup(&evidence) {
            Ok(end) => {
                ended = BackupRecord { end: Some(end), ..backup.clone() };
                evidence.backup = Some(&ended);
                wal::problems(&evidence)
            }
            Err(problem) => vec![problem],
        },
    };
    claim("WAL covers it", wal);
    let mut advice = |check: &str, expected: &str, actual: &str, ok: bool| {
        checks.push(Check {
            check: check.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
            ok,
            level: Level::Should,
        });
    };
    if original.version.has_manifest() {
        let there = backup.options.manifest != ManifestOption::No;
        let found = if there { "one" } else { "none: what is missing or changed cannot be told" };
        advice("it has a manifest", "one", found, there);
    }
    if incremental {
        let found = "an incremental backup, which pg_combinebackup has to join with those before";
        advice("it can be restored by itself", "a full backup", found, false);
    }
    let verdict = checks.iter().filter(|check| !check.ok).map(|check| match check.level {
        Level::Should => Verdict::Weak,
        Level::Law | Level::Must => Verdict::Fail,
    });
    let verdict = verdict.max().unwrap_or_default();
    (Some(original.version), verdict, checks)
}

/// What a backup says of itself.
struct Facts {
    original: Alone,
    backup: BackupRecord,
    incremental: bool,
}

impl Facts {
    /// Reads the files without which nothing can be judged.
    fn of(artifact: &Artifact) -> Result<Self, String> {
        if artifact.is_empty() {
            return Err("nothing lies there".to_owned());
        }
        let small = |name: &str| {
            let content = artifact.file(name).ok_or_else(|| format!("\"{name}\" is missing"))?;
            content.read(SMALL_FILE).map_err(|error| format!("\"{name}\" cannot be read: {error}"))
        };
        let text = |name: &str| small(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let version = text("PG_VERSION")?;
        let version: ServerVersion = version.trim_end().parse().map_err(|error| format!("PG_VERSION: {error}"))?;
        let label_text = text("backup_label")?;
        let label = BackupLabel::parse(&label_text).map_err(|error| error.to_string())?;
        let control = small("global/pg_control")?;
        let (system_identifier, segment_size) = if version.has_current_wal_format() {
            let control =
                ControlFile::decode(&control).map_err(|error| format!("global/pg_control cannot be read: {error}"))?;
            (control.system_identifier, control.wal_segment_size)
        } else {
            let identifier = control.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            (identifier.ok_or("global/pg_control is too short")?, WalSegmentSize::DEFAULT)
        };
        let timeline = label.timeline.unwrap_or(label.start_file.timeline);
        let manifest = artifact.manifest.as_ref().and_then(|content| content.read(LARGEST_MANIFEST).ok());
        let manifest = manifest.map(|bytes| Manifest::parse(&bytes));
        // One that cannot be read is refused by whoever judges the manifest.
        let read = manifest.as_ref().and_then(|manifest| manifest.as_ref().ok());
        let last = read.and_then(|manifest| manifest.wal_ranges.first());
        let incremental = label.incremental_from.is_some() || label.incremental_from_location.is_some();
        let backup = BackupRecord {
            session: 0,
            start: label.start,
            start_timeline: timeline,
            end: last.map(|range| range.end),
            end_timeline: last.map(|range| range.timeline),
            options: BaseBackupOptions {
                manifest: if manifest.is_some() { ManifestOption::Yes } else { ManifestOption::No },
                ..BaseBackupOptions::default()
            },
            label_text,
            tablespaces: Vec::new(),
            ended: BackupOutcome::Complete,
            command_complete: true,
            client_terminated: true,
            found: std::collections::BTreeMap::new(),
            profile: None,
        };
        let tablespaces = tablespaces(artifact, version)?;
        let original = Alone { version, system_identifier, segment_size, tablespaces };
        Ok(Self { original, backup, incremental })
    }
}

/// Those that are linked, or that the map names.
fn tablespaces(artifact: &Artifact, version: ServerVersion) -> Result<Vec<Tablespace>, String> {
    let linked = artifact.items.keys().filter_map(|path| {
        let oid = str::from_utf8(path.strip_prefix(b"pg_tblspc/")?).ok()?;
        oid.parse::<u32>().ok()
    });
    let mut oids: Vec<u32> = linked.collect();
    if let Some(content) = artifact.file("tablespace_map") {
        let bytes = content.read(SMALL_FILE).map_err(|error| format!("\"tablespace_map\" cannot be read: {error}"))?;
        let map = TablespaceMap::parse_as(&bytes, version).map_err(|error| error.to_string())?;
        oids.extend(map.entries.iter().map(|(oid, _)| *oid));
    }
    oids.sort_unstable();
    oids.dedup();
    Ok(oids.into_iter().map(|oid| Tablespace { oid, location: String::new(), in_place: false }).collect())
}

/// Where WAL says that the backup ended: behind the record that its end wrote.
fn end_of_backup(evidence: &Evidence<'_>) -> Result<Lsn, String> {
    let Some(backup) = evidence.backup else { return Err("there is no backup".to_owned()) };
    let mut end = None;
    let read = wal::read_on(evidence, backup, |record| {
        if record.record == Record::BackupEnd(backup.start) {
            end = Some(record.end);
        }
    });
    match end {
        Some(end) => Ok(end),
        None => Err(format!("WAL ends before end of online backup, which started at {}: {read}", backup.start)),
    }
}

/// What is known of a server whose files are not: what it, or its backup, says of it.
#[derive(Debug)]
pub(crate) struct Alone {
    pub(crate) version: ServerVersion,
    pub(crate) system_identifier: u64,
    pub(crate) segment_size: WalSegmentSize,
    pub(crate) tablespaces: Vec<Tablespace>,
}

impl Original for Alone {
    fn version(&self) -> ServerVersion {
        self.version
    }

    fn system_identifier(&self) -> u64 {
        self.system_identifier
    }

    fn segment_size(&self) -> WalSegmentSize {
        self.segment_size
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        self.tablespaces.clone()
    }

    fn knows_files(&self) -> bool {
        false
    }

    fn expected(&self, _backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>> {
        Ok(Vec::new())
    }

    fn read(&self, _file: &Expected, _offset: u64, _bytes: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn difference(&self, _file: &Expected, _offset: u64, _stored: &[u8]) -> io::Result<Option<Range<u64>>> {
        Ok(None)
    }

    fn read_wal(&self, _timeline: TimelineId, _position: Lsn, _bytes: &mut [u8]) -> bool {
        false
    }

    fn wal_difference(
        &self,
        _timeline: TimelineId,
        _position: Lsn,
        _stored: &[u8],
        _unread: &[Range<usize>],
    ) -> Option<Lsn> {
        None
    }
}
