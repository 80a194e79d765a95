//! A record on disk: what oracles need to judge a case once more, without its server.
//!
//! `run --keep` writes one beside what the clients left. It holds the case itself, how its clients ended, what the server said
//! and still held, and of the server's files and WAL a checksum (CRC-32C) of each block. Paths are relative to its directory,
//! so that all of it can be moved.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_mock::cluster::{SlotState, Tablespace};
use backstop_mock::server::{Carried, Found};
use backstop_mock::{BackupOutcome, BackupRecord, ServerState, SessionCounts};
use backstop_protocol::base_backup::options::{BaseBackupOptions, ManifestOption};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use serde::{Deserialize, Serialize};

use super::{ClientRecord, FaultRecord, Record};
use crate::oracle::artifact::Artifact;
use crate::oracle::original::{Expected, ExpectedKind, Known, Original, against_checksums, block_checksums};
use crate::oracle::wal::{PIECE, Recovery};
use crate::scenario::Case;
use crate::scenario::credentials::Credentials;
use crate::scenario::model::Scenario;

/// The name of the file in the directory of a case.
pub const FILE_NAME: &str = "record.json";

/// No record is larger: checksums of a gigabyte are a megabyte.
const LARGEST: u64 = 1 << 30;

/// The only format so far.
const FORMAT: u32 = 1;

/// What does not make a record.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read, or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is no record.
    #[error("{path} is no record of a run: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Saved {
    format: u32,
    /// The case's id.
    id: String,
    /// The scenario file, as it was found.
    path: PathBuf,
    /// The client, as on the command line.
    client: String,
    seed: u64,
    scenario: Scenario,
    server: SavedServer,
    clients: Vec<ClientRecord>,
    sessions: Vec<SavedSession>,
    errors: Vec<(u32, String)>,
    backups: Vec<SavedBackup>,
    faults: Vec<FaultRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedServer {
    version: ServerVersion,
    system_identifier: u64,
    wal_segment_size: u64,
    tablespaces: Vec<SavedTablespace>,
    sessions: usize,
    running_backups: usize,
    slots: Vec<SavedSlot>,
    oldest_wal: Lsn,
    commands: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedTablespace {
    oid: u32,
    location: String,
    in_place: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedSlot {
    name: String,
    temporary: bool,
    restart_lsn: Option<Lsn>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedSession {
    session: u32,
    client: Option<String>,
    messages: u64,
    wal: Option<(Lsn, Lsn)>,
    overconfirmed: Option<(Lsn, Lsn)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedBackup {
    session: u32,
    start: Lsn,
    start_timeline: u32,
    end: Option<Lsn>,
    end_timeline: Option<u32>,
    manifest: bool,
    label: String,
    /// `backup_profile`, with `\xff` for what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    ended: SavedOutcome,
    command_complete: bool,
    client_terminated: bool,
    /// What a sound copy holds. Nothing, if the client left nothing to compare with it.
    files: Option<Vec<SavedFile>>,
    /// Checksums of the WAL from the beginning of the segment in which the backup starts to its end, without what recovery
    /// does not read, in pieces.
    wal: Vec<Option<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum SavedOutcome {
    Running,
    Complete,
    Failed(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SavedFile {
    /// The path in the manifest, with `\xff` for what is no text.
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// `directory`, `symlink`, `special`; a file has a size instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<SavedKind>,
    /// Eight hexadecimal digits for each block.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    blocks: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<Vec<u32>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SavedKind {
    Directory,
    Symlink,
    Special,
}

/// Writes `record` of `case` into `directory`, where the clients' targets are.
///
/// # Errors
/// A file of the server that cannot be read, a record that cannot be written.
pub fn save(directory: &Path, case: &Case, client: &str, seed: u64, record: &Record) -> Result<(), SavedError> {
    let path = directory.join(FILE_NAME);
    let failed = |source| SavedError::File { path: path.clone(), source };
    let original = &*record.original;
    let mut clients = record.clients.clone();
    for client in &mut clients {
        if let Ok(relative) = client.target.strip_prefix(directory) {
            client.target = relative.to_path_buf();
        }
    }
    let backups = record.backups.iter().map(|backup| saved_backup(record, backup)).collect::<io::Result<_>>();
    let tablespaces = original.tablespaces().into_iter();
    let state = &record.state;
    let saved = Saved {
        format: FORMAT,
        id: case.id.clone(),
        path: case.path.clone(),
        client: client.to_owned(),
        seed,
        scenario: Scenario::clone(&case.scenario),
        server: SavedServer {
            version: original.version(),
            system_identifier: original.system_identifier(),
            wal_segment_size: original.segment_size().bytes(),
            tablespaces: tablespaces
                .map(|Tablespace { oid, location, in_place }| SavedTablespace { oid, location, in_place })
                .collect(),
            sessions: state.sessions,
            running_backups: state.running_backups,
            slots: state
                .slots
                .iter()
                .map(|slot| SavedSlot {
                    name: slot.name.clone(),
                    temporary: slot.temporary,
                    restart_lsn: slot.restart_lsn,
                })
                .collect(),
            oldest_wal: state.oldest_wal,
            commands: state.commands.clone(),
        },
        clients,
        sessions: record
            .session_counts
            .iter()
            .map(|count| SavedSession {
                session: count.session,
                client: count.application_name.clone(),
                messages: count.messages,
                wal: count.carried.wal,
                overconfirmed: count.carried.overconfirmed,
            })
            .collect(),
        errors: record.errors.clone(),
        backups: backups.map_err(failed)?,
        faults: record.faults.clone(),
    };
    let text = serde_json::to_vec(&saved).map_err(|error| failed(error.into()))?;
    fs::write(&path, text).map_err(failed)
}

fn saved_backup(record: &Record, backup: &BackupRecord) -> io::Result<SavedBackup> {
    let left = record.clients.iter().filter(|client| record.is_session_of(backup.session, &client.name));
    let left = left.into_iter().any(|client| !Artifact::load(&client.target).is_empty());
    let original = &*record.original;
    let (files, wal) = if left {
        let files = original.expected(Some(backup))?;
        let files = files.into_iter().map(|file| saved_file(original, &file)).collect::<io::Result<_>>()?;
        (Some(files), saved_wal(original, backup))
    } else {
        (None, Vec::new())
    };
    Ok(SavedBackup {
        session: backup.session,
        start: backup.start,
        start_timeline: backup.start_timeline.0,
        end: backup.end,
        end_timeline: backup.end_timeline.map(|timeline| timeline.0),
        manifest: backup.options.manifest != ManifestOption::No,
        label: backup.label_text.clone(),
        profile: backup.profile.as_ref().map(|profile| profile.escape_ascii().to_string()),
        ended: match &backup.ended {
            BackupOutcome::Running => SavedOutcome::Running,
            BackupOutcome::Complete => SavedOutcome::Complete,
            BackupOutcome::Failed(why) => SavedOutcome::Failed(why.clone()),
        },
        command_complete: backup.command_complete,
        client_terminated: backup.client_terminated,
        files,
        wal,
    })
}

fn saved_file(original: &dyn Original, file: &Expected) -> io::Result<SavedFile> {
    let (size, kind) = match file.kind {
        ExpectedKind::File { size } => (Some(size), None),
        ExpectedKind::Directory => (None, Some(SavedKind::Directory)),
        ExpectedKind::Symlink => (None, Some(SavedKind::Symlink)),
        ExpectedKind::Special => (None, Some(SavedKind::Special)),
    };
    let mut blocks = String::new();
    let mut piece = vec![0; 16 * BLOCK_SIZE];
    let mut at = 0;
    while at < size.unwrap_or(0) {
        let wanted = usize::try_from(size.unwrap_or(0) - at).unwrap_or(usize::MAX).min(piece.len());
        let piece = piece.get_mut(..wanted).unwrap_or_default();
        original.read(file, at, piece)?;
        blocks.extend(block_checksums(piece).map(|checksum| format!("{checksum:08x}")));
        at += wanted as u64;
    }
    let changed = file.changed_blocks().map(<[u32]>::to_vec);
    Ok(SavedFile { path: file.path.escape_ascii().to_string(), size, kind, blocks, changed })
}

/// Stops where the server's WAL cannot be read: then there is nothing to compare with.
fn saved_wal(original: &dyn Original, backup: &BackupRecord) -> Vec<Option<String>> {
    let mut pieces = Vec::new();
    let Some(end) = backup.end else { return pieces };
    let mut position = original.segment_size().round_down(backup.start);
    let mut recovery = Recovery::new(original, backup.start_timeline, backup.start);
    while position < end {
        let mut piece = vec![0; usize::try_from(PIECE.min(end - position)).unwrap_or_default()];
        let known = original.read_wal(backup.start_timeline, position, &mut piece);
        let read = recovery.read(position, &mut piece).1;
        let checksums = || block_checksums(&piece).map(|checksum| format!("{checksum:08x}")).collect();
        pieces.push((known && read.is_ok()).then(checksums));
        position = position + piece.len() as u64;
    }
    pieces
}

/// A record that was read from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The case.
    pub case: Case,
    /// The client, as on the command line of the run.
    pub client: String,
    /// The seed with which it ran.
    pub seed: u64,
    /// What can be judged.
    pub record: Record,
}

/// Reads a record, the file itself or the one in a directory.
///
/// # Errors
/// A file that cannot be read or is no record.
pub fn load(path: &Path) -> Result<Loaded, SavedError> {
    let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_path_buf() };
    let failed = |source| SavedError::File { path: path.clone(), source };
    let content = |problem: String| SavedError::Content { path: path.clone(), problem };
    if fs::metadata(&path).map_err(failed)?.len() > LARGEST {
        return Err(content(format!("it is larger than {LARGEST} bytes")));
    }
    let bytes = fs::read(&path).map_err(failed)?;
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
    if saved.format != FORMAT {
        return Err(content(format!("its format is {}, expected {FORMAT}", saved.format)));
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    unpack(saved, directory).map_err(content)
}

fn unpack(saved: Saved, directory: &Path) -> Result<Loaded, String> {
    let size = saved.server.wal_segment_size;
    let segment_size = WalSegmentSize::new(size).ok_or_else(|| format!("{size} is no size of WAL segments"))?;
    let mut clients = saved.clients;
    for client in &mut clients {
        client.target = directory.join(&client.target);
    }
    let mut originals = BTreeMap::new();
    let mut backups = Vec::new();
    for backup in saved.backups {
        let files = backup.files.unwrap_or_default().into_iter().map(loaded_file).collect::<Result<Vec<_>, _>>()?;
        let wal = backup.wal.iter().map(|piece| piece.as_deref().map(checksums).transpose());
        let wal = wal.collect::<Result<Vec<_>, _>>()?;
        let from = segment_size.round_down(backup.start);
        originals.insert(
            (backup.session, backup.start),
            SavedCopy { files, timeline: TimelineId(backup.start_timeline), from, wal },
        );
        backups.push(BackupRecord {
            session: backup.session,
            start: backup.start,
            start_timeline: TimelineId(backup.start_timeline),
            end: backup.end,
            end_timeline: backup.end_timeline.map(TimelineId),
            options: BaseBackupOptions {
                manifest: if backup.manifest { ManifestOption::Yes } else { ManifestOption::No },
                ..BaseBackupOptions::default()
            },
            label_text: backup.label,
            tablespaces: Vec::new(),
            ended: match backup.ended {
                SavedOutcome::Running => BackupOutcome::Running,
                SavedOutcome::Complete => BackupOutcome::Complete,
                SavedOutcome::Failed(why) => BackupOutcome::Failed(why),
            },
            command_complete: backup.command_complete,
            client_terminated: backup.client_terminated,
            // Is in the files already.
            found: BTreeMap::<Vec<u8>, Found>::new(),
            profile: backup.profile.as_deref().and_then(unescape),
        });
    }
    let server = saved.server;
    let state = ServerState {
        sessions: server.sessions,
        running_backups: server.running_backups,
        backup_label: None,
        start_up_failure: None,
        slots: server.slots.into_iter().map(loaded_slot).collect(),
        oldest_wal: server.oldest_wal,
        commands: server.commands,
    };
    let session_counts = saved.sessions.into_iter().map(|session| {
        let mut carried = Carried::default();
        (carried.wal, carried.overconfirmed) = (session.wal, session.overconfirmed);
        SessionCounts {
            session: session.session,
            application_name: session.client,
            role: None,
            messages: session.messages,
            // Only a sweep asks for them, and that of its own recording run.
            commands: 0,
            carried,
        }
    });
    let tablespaces = server.tablespaces.into_iter();
    let original = SavedOriginal {
        version: server.version,
        system_identifier: server.system_identifier,
        segment_size,
        tablespaces: tablespaces
            .map(|SavedTablespace { oid, location, in_place }| Tablespace { oid, location, in_place })
            .collect(),
        copies: originals,
    };
    Ok(Loaded {
        case: Case {
            id: saved.id,
            path: saved.path,
            scenario: Arc::new(saved.scenario),
            combination: Vec::new(),
            step: None,
            credentials: Credentials::default(),
        },
        client: saved.client,
        seed: saved.seed,
        record: Record {
            clients,
            original: Box::new(original),
            state,
            backups,
            faults: saved.faults,
            transcript: Vec::new(),
            session_counts: session_counts.collect(),
            errors: saved.errors,
            said: BTreeMap::new(),
            log: String::new(),
        },
    })
}

fn loaded_slot(slot: SavedSlot) -> SlotState {
    SlotState {
        name: slot.name,
        temporary: slot.temporary,
        active_pid: None,
        restart_lsn: slot.restart_lsn,
        invalidation_reason: None,
        logical: None,
    }
}

fn loaded_file(file: SavedFile) -> Result<Expected, String> {
    let path = unescape(&file.path).ok_or_else(|| format!("{:?} is no path", file.path))?;
    let kind = match (file.kind, file.size) {
        (None, Some(size)) => ExpectedKind::File { size },
        (Some(SavedKind::Directory), None) => ExpectedKind::Directory,
        (Some(SavedKind::Symlink), None) => ExpectedKind::Symlink,
        (Some(SavedKind::Special), None) => ExpectedKind::Special,
        _ => return Err(format!("{:?} has a size or a kind, not both", file.path)),
    };
    let known = Known::Blocks { checksums: checksums(&file.blocks)?, changed: file.changed };
    Ok(Expected { path, kind, known })
}

/// Eight digits each.
fn checksums(text: &str) -> Result<Vec<u32>, String> {
    let digits = text.as_bytes().chunks(8);
    let checksum = |digits: &[u8]| {
        let digits = str::from_utf8(digits).ok().filter(|digits| digits.len() == 8)?;
        u32::from_str_radix(digits, 16).ok()
    };
    digits.map(checksum).collect::<Option<_>>().ok_or_else(|| "checksums are eight hexadecimal digits each".to_owned())
}

/// The bytes that `escape_ascii` wrote.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other @ (b'\\' | b'\'' | b'"') => other,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(bytes)
}

/// What was written down of a server.
#[derive(Debug)]
struct SavedOriginal {
    version: ServerVersion,
    system_identifier: u64,
    segment_size: WalSegmentSize,
    tablespaces: Vec<Tablespace>,
    /// By session and start position of the backup.
    copies: BTreeMap<(u32, Lsn), SavedCopy>,
}

#[derive(Debug)]
struct SavedCopy {
    files: Vec<Expected>,
    timeline: TimelineId,
    from: Lsn,
    wal: Vec<Option<Vec<u32>>>,
}

impl Original for SavedOriginal {
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
        true
    }

    fn expected(&self, backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>> {
        let copy = backup.and_then(|backup| self.copies.get(&(backup.session, backup.start)));
        Ok(copy.map(|copy| copy.files.clone()).unwrap_or_default())
    }

    fn read(&self, _file: &Expected, _offset: u64, _bytes: &mut [u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only checksums were written down"))
    }

    fn difference(&self, file: &Expected, offset: u64, stored: &[u8]) -> io::Result<Option<Range<u64>>> {
        let Known::Blocks { checksums, .. } = &file.known else { return Ok(None) };
        Ok(against_checksums(checksums, offset, stored))
    }

    fn read_wal(&self, _timeline: TimelineId, _position: Lsn, _bytes: &mut [u8]) -> bool {
        false
    }

    fn wal_difference(
        &self,
        timeline: TimelineId,
        position: Lsn,
        stored: &[u8],
        _unread: &[Range<usize>],
    ) -> Option<Lsn> {
        // Backups of one timeline hold the same WAL, so that any that knows the position will do.
        let mut known = self.copies.values().filter(|copy| copy.timeline == timeline).filter_map(|copy| {
            let offset = position.0.checked_sub(copy.from.0)?;
            copy.wal.get(usize::try_from(offset / PIECE).ok()?)?.as_ref()
        });
        // The last piece of one backup is the beginning of a longer one of another.
        let blocks = stored.len().div_ceil(BLOCK_SIZE);
        let checksums = known.find(|checksums| checksums.len() == blocks)?;
        against_checksums(checksums, 0, stored).map(|bytes| position + bytes.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_come_back() {
        let name: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&name.escape_ascii().to_string()), Some(name));
        assert_eq!(unescape("\\q"), None);
        assert_eq!(unescape("\\x4"), None);
    }

    #[test]
    fn checksums_come_in_eights() {
        assert_eq!(checksums("0000000aFFFFFFFF"), Ok(vec![10, u32::MAX]));
        assert!(checksums("0000000").is_err());
        assert!(checksums("0000000g").is_err());
        assert!(checksums("ééééé").is_err());
    }

    #[test]
    fn what_is_no_record_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let told = |text: &str| {
            fs::write(directory.path().join(FILE_NAME), text).expect("a file");
            let error = load(directory.path()).expect_err(text).to_string();
            error.replace(&directory.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(told("{"), @r#"DIR/record.json is no record of a run: EOF while parsing an object at line 1 column 1"#);
        insta::assert_snapshot!(told(r#"{"format": 1, "colour": 2}"#), @r#"DIR/record.json is no record of a run: unknown field `colour`, expected one of `format`, `id`, `path`, `client`, `seed`, `scenario`, `server`, `clients`, `sessions`, `errors`, `backups`, `faults` at line 1 column 22"#);
    }
}
