//! Opens a data directory: what it says of itself, and whether it can be served.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_protocol::control::{ControlFile, DbState};
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{BackupStart, WalLog, WalLogConfig};
use backstop_protocol::wal_file::WalFileName;

use crate::config::ConfigError;

use super::super::Tablespace;
use super::super::wal::Wal;
use super::blocks::RelationFiles;
use super::{Directory, DiskWal, read};

/// A data directory that can be served.
#[derive(Debug)]
pub(in super::super) struct Loaded {
    pub(in super::super) directory: Directory,
    pub(in super::super) control: ControlFile,
    pub(in super::super) wal: Wal,
}

/// Reads a file of at most `limit` bytes.
fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content)).map_err(unreadable)?;
    if content.len() as u64 > limit {
        return Err(invalid(path, format!("larger than {limit} bytes")));
    }
    Ok(content)
}

fn invalid(path: &Path, problem: impl Into<String>) -> ConfigError {
    ConfigError::Directory { path: path.to_owned(), problem: problem.into() }
}

/// Opens the data directory at `root`, whose server must have been shut down.
pub(in super::super) fn load(root: &Path, seed: u64) -> Result<Loaded, ConfigError> {
    let path = root.join("PG_VERSION");
    let text = String::from_utf8_lossy(&read_small(&path, 64)?).trim_end().to_owned();
    let version: ServerVersion = text.parse().map_err(|problem| invalid(&path, format!("{problem}")))?;

    let path = root.join("global/pg_control");
    let control =
        ControlFile::decode(&read_small(&path, 8192)?).map_err(|problem| invalid(&path, problem.to_string()))?;
    if control.version != version {
        return Err(invalid(&path, format!("it belongs to {}, PG_VERSION says {version}", control.version)));
    }
    if control.state != DbState::ShutDown {
        return Err(ConfigError::NotShutDown { path: root.to_owned(), state: state_name(control.state) });
    }
    let directory = Directory { root: root.to_owned(), version, tablespaces: tablespaces(root, version)? };
    let unreadable = |source| ConfigError::Unreadable { path: root.to_owned(), source };
    let blocks = Arc::new(RelationFiles::of(&directory).map_err(unreadable)?);
    let wal = wal(root, &control, seed, blocks)?;
    Ok(Loaded { directory, control, wal })
}

/// A state as `pg_controldata` prints it.
fn state_name(state: DbState) -> &'static str {
    match state {
        DbState::Startup => "starting up",
        DbState::ShutDown => "shut down",
        DbState::ShutDownInRecovery => "shut down in recovery",
        DbState::ShuttingDown => "shutting down",
        DbState::InCrashRecovery => "in crash recovery",
        DbState::InArchiveRecovery => "in archive recovery",
        DbState::InProduction => "in production",
    }
}

/// The WAL in `pg_wal`, and a log that goes on behind it.
fn wal(root: &Path, control: &ControlFile, seed: u64, blocks: Arc<RelationFiles>) -> Result<Wal, ConfigError> {
    let directory = root.join(control.version.wal_directory());
    let segment_size = control.wal_segment_size;
    let timeline = control.checkpoint_copy.timeline;
    let config = WalLogConfig {
        version: control.version,
        system_identifier: control.system_identifier,
        timeline,
        segment_size,
        start: control.checkpoint,
        prev: control.checkpoint,
        seed,
    };
    let control_path = root.join("global/pg_control");
    let log = |config| WalLog::new(config).map_err(|problem| invalid(&control_path, format!("checkpoint: {problem}")));
    // A log that begins with a checkpoint of the same length tells where the real one ends.
    let mut again = log(config)?;
    again.shutdown_checkpoint();
    let mut current = log(WalLogConfig { start: again.insert_position(), ..config })?;
    current.set_checkpoint(control.checkpoint_copy);
    current.set_blocks(blocks);

    let last = segment_size.segment_before(current.first());
    let oldest_segment = oldest_segment(&directory, timeline, last, control)?;
    let history = history(&directory, timeline)?;
    let checkpoint = BackupStart {
        redo: control.checkpoint_copy.redo,
        checkpoint: control.checkpoint,
        checkpoint_copy: control.checkpoint_copy,
    };
    let disk = DiskWal { directory, segment_size, timeline, history: history.clone() };
    Ok(Wal::behind(disk, current, history, oldest_segment, checkpoint))
}

/// The first of the segments that lie in `pg_wal` without a gap up to number `last`, which must be there.
fn oldest_segment(
    directory: &Path,
    timeline: TimelineId,
    last: u64,
    control: &ControlFile,
) -> Result<u64, ConfigError> {
    let unreadable = |source: io::Error| ConfigError::Unreadable { path: directory.to_owned(), source };
    let size = control.wal_segment_size;
    let mut segments = std::collections::BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_str().and_then(|name| name.parse::<WalFileName>().ok());
        segments.extend(name.filter(|name| name.timeline <= timeline).and_then(|name| name.segment(size)));
    }
    let name = WalFileName::new(timeline, last, size).to_string();
    let path = directory.join(&name);
    if read(&path, size.bytes() - 1, &mut [0])
        .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?
        == 0
    {
        return Err(invalid(&path, format!("shorter than {} bytes", size.bytes())));
    }
    let mut oldest = last;
    while oldest > 0 && segments.contains(&(oldest - 1)) {
        oldest -= 1;
    }
    Ok(oldest)
}

/// The history of the timeline. A missing file means that there is none, as it does to PostgreSQL.
fn history(directory: &Path, timeline: TimelineId) -> Result<TimelineHistory, ConfigError> {
    let path = directory.join(timeline.history_file_name());
    let content = match read_small(&path, 1 << 20) {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(TimelineHistory::default());
        }
        content => content?,
    };
    let history = TimelineHistory::parse(&String::from_utf8_lossy(&content));
    let history = history.map_err(|problem| invalid(&path, problem.to_string()))?;
    if history.switches.last().is_some_and(|last| last.parent >= timeline) {
        return Err(invalid(&path, "timeline IDs must be less than child timeline's ID"));
    }
    Ok(history)
}

/// What `pg_tblspc` holds: links and, since 15, directories, by ascending OID.
fn tablespaces(root: &Path, version: ServerVersion) -> Result<Vec<Tablespace>, ConfigError> {
    let directory = root.join("pg_tblspc");
    let unreadable = |path: &Path, source: io::Error| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut tablespaces = Vec::new();
    for entry in fs::read_dir(&directory).map_err(|source| unreadable(&directory, source))? {
        let entry = entry.map_err(|source| unreadable(&directory, source))?;
        let Some(oid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let path: PathBuf = entry.path();
        let kind = entry.file_type().map_err(|source| unreadable(&path, source))?;
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|source| unreadable(&path, source))?;
            let location = String::from_utf8(target.into_os_string().into_vec());
            let location = location.map_err(|_| invalid(&path, "the location of the tablespace is not valid UTF-8"))?;
            tablespaces.push(Tablespace { oid, location, in_place: false });
        } else if kind.is_dir() && version.has_in_place_tablespaces() {
            tablespaces.push(Tablespace { oid, location: format!("pg_tblspc/{oid}"), in_place: true });
        }
    }
    tablespaces.sort_unstable_by_key(|tablespace| tablespace.oid);
    Ok(tablespaces)
}
