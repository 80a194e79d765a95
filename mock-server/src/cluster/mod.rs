//! What a server *has*: files, tablespaces, write-ahead log, timelines, slots, running backups, settings and a role.
//!
//! A [`Cluster`] speaks no protocol. It answers what a walsender would ask the rest of PostgreSQL, and it changes as a
//! server does: WAL grows, segments are recycled, a standby is promoted. Its files are either a real data directory of a
//! stopped server or *synthetic*, a function of the seed, so that a terabyte costs neither disk nor memory. In both cases WAL
//! goes on in a [generated log](backstop_protocol::wal::log), whatever the cluster does.

mod backup;
mod changed_files;
mod data_directory;
mod directory;
mod entry;
mod exclusive_backup;
mod ground_truth;
mod life;
mod logical;
mod reload;
mod retention;
mod running_backups;
mod server_files;
mod settings;
mod slots;
mod start_up;
mod summaries;
mod synthetic;
#[cfg(test)]
mod tests;
mod wal;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstop_protocol::base_backup::options::compression::CompressionSupport;
use backstop_protocol::control::{ControlFile, DbState};
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use tokio::sync::{Notify, watch};

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;

use crate::config::{Config, ConfigError, Role, Source};

use changed_files::ChangedFiles;
use directory::Directory;
use entry::Origin;
use running_backups::RunningBackups;
use settings::{Limits, Settings};
use slots::Slots;
use summaries::Summaries;
use synthetic::Synthetic;
use wal::Wal;

pub use backup::{BackupEnd, RunningBackup};
pub(crate) use changed_files::Change;
pub use changed_files::Found;
pub(crate) use data_directory::{DataDirectory, Node, below_data_directory};
pub use entry::{Entry, EntryKind};
pub use exclusive_backup::LabelFiles;
pub use ground_truth::{Truth, ground_truth, ground_truth_at, ground_truth_of, ground_truth_of_directory};
pub use logical::LogicalSlot;
pub use running_backups::KeptWal;
pub use server_files::StoredFile;
pub(crate) use server_files::{ServerFile, ServerFiles, file_access};
pub(crate) use settings::parse_span;
pub use slots::{InvalidationReason, SlotState, WalStatus};
pub(crate) use summaries::{TimelineEntry, Unsummarized};
pub use wal::WalReadError;

/// Entries of a walk; an error ends it.
pub type Entries = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

/// A tablespace besides the base directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its absolute location, or `pg_tblspc/<oid>` when it lives in place.
    pub location: String,
    /// Whether it is a directory in `pg_tblspc` instead of a link (`allow_in_place_tablespaces`, since 15).
    pub in_place: bool,
}

/// A server's possessions, shared by its sessions. Cloning it is cheap and means the same cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// What never changes, and the state behind a lock that is never held across an await.
#[derive(Debug)]
struct Inner {
    facts: Facts,
    files: Files,
    /// `pg_control` but for checkpoint, state and recovery point.
    control: ControlFile,
    /// Bytes of WAL a second.
    wal_rate: u64,
    /// What the server was built with.
    compression: CompressionSupport,
    /// What backups with TARGET 'server' write.
    server_files: Arc<ServerFiles>,
    /// Unix seconds.
    epoch: i64,
    state: Mutex<State>,
    /// The flush position.
    flushed: watch::Sender<Lsn>,
    /// How far WAL has been summarized.
    summarized: watch::Sender<Lsn>,
    /// Told whenever a slot becomes free.
    slot_freed: Notify,
    /// The sessions whose slots have lost their WAL: they are to be terminated.
    condemned: watch::Sender<BTreeSet<i32>>,
}

/// Facts of the data directory.
#[derive(Clone, Copy, Debug)]
struct Facts {
    version: ServerVersion,
    system_identifier: u64,
    segment_size: WalSegmentSize,
    checksums: bool,
}

#[derive(Debug)]
enum Files {
    Synthetic { files: Arc<Synthetic>, tablespaces: Vec<Tablespace> },
    Directory(Directory),
}

impl Files {
    fn tablespaces(&self) -> &[Tablespace] {
        match self {
            Self::Synthetic { tablespaces, .. } => tablespaces,
            Self::Directory(directory) => directory.tablespaces(),
        }
    }
}

#[derive(Debug)]
struct State {
    settings: Settings,
    /// How often they have changed.
    reloads: u64,
    limits: Limits,
    wal: Wal,
    summaries: Summaries,
    slots: Slots,
    in_recovery: bool,
    backups: RunningBackups,
    /// Of an exclusive backup, in the data directory.
    label_files: Option<LabelFiles>,
    /// The same with `.old` behind their names.
    old_label_files: Option<LabelFiles>,
    /// Whether WAL grows: not while the server starts, stops or has stopped.
    running: bool,
    /// Whether the last life ended with a shutdown checkpoint, or has not ended.
    clean: bool,
    /// Of a standby: `minRecoveryPoint` of `pg_control`, where replay of its files becomes consistent.
    min_recovery_point: Lsn,
    /// `lastFpwDisableRecPtr`: where `full_page_writes` was switched off last.
    full_page_writes_disabled: Option<Lsn>,
    /// What faults have left of files.
    changed_files: ChangedFiles,
    /// What was seen of WAL segments by those who list files.
    segments_seen: data_directory::SegmentsSeen,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that a session panicked; what it left is as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody who waits see how far WAL has been flushed.
    fn publish(&self, state: &State) {
        let position = state.wal.flush_position();
        self.flushed.send_if_modified(|flushed| std::mem::replace(flushed, position) != position);
    }
}

/// Unix seconds at which the life of a server begins: a moment of 2026 that the seed decides.
fn epoch(seed: u64) -> i64 {
    const NEW_YEAR_2026: i64 = 1_767_225_600;
    let offset = synthetic::contents::key(seed, b"epoch") % (360 * 86_400);
    NEW_YEAR_2026 + i64::try_from(offset).unwrap_or(0)
}

/// What a promotion makes of a file that had made the server a standby.
fn left_recovery(mut entry: Entry) -> Option<Entry> {
    match entry.name.as_slice() {
        b"standby.signal" => None,
        b"recovery.conf" => {
            entry.name = b"recovery.done".to_vec();
            Some(entry)
        }
        _ => Some(entry),
    }
}

impl Cluster {
    /// A cluster as `config` describes it.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let epoch = epoch(config.seed);
        let (facts, settings, files, mut control, wal) = match &config.source {
            Source::Synthetic => {
                let facts = Facts {
                    version: config.version,
                    system_identifier: synthetic::system_identifier(config.seed, epoch),
                    segment_size: config.wal_segment_size,
                    checksums: config.checksums && config.version.has_data_checksums(),
                };
                let wal = Wal::synthetic(config, &facts, epoch)?;
                let settings = Settings::new(config, &facts);
                let percent = settings.percent("backstop.changed_blocks")?;
                let files = Arc::new(Synthetic::new(config, &facts, epoch, wal.checkpoint_at().redo, percent)?);
                let tablespaces = synthetic::tablespaces(config, facts.version)?;
                let control = synthetic::control(config, &facts);
                (facts, settings, Files::Synthetic { files, tablespaces }, control, wal)
            }
            Source::Directory(root) => {
                let directory::Loaded { directory, control, wal } = directory::load(root, config.seed)?;
                let facts = Facts {
                    version: control.version,
                    system_identifier: control.system_identifier,
                    segment_size: control.wal_segment_size,
                    checksums: control.data_checksum_version != 0,
                };
                (facts, Settings::new(config, &facts), Files::Directory(directory), control, wal)
            }
        };
        control.time = epoch;
        settings.check_walsenders()?;
        let limits = settings.limits(facts.segment_size)?;
        let compression = settings.compression(facts.version)?;
        let server_files = Arc::new(ServerFiles::new(config.server_root.clone(), files.tablespaces(), facts.version));
        let slots = Slots::new(facts.version, settings.count("max_replication_slots", 10)?);
        let flushed = watch::Sender::new(wal.flush_position());
        let in_recovery = config.role == Role::Standby;
        let summaries = Summaries::new(&settings, &facts, &wal, matches!(files, Files::Directory(_)))?;
        let summarized = watch::Sender::new(summaries.through());
        let mut state = State {
            min_recovery_point: wal.flush_position(),
            summaries,
            settings,
            reloads: 0,
            limits,
            wal,
            slots,
            in_recovery,
            running: true,
            clean: true,
            full_page_writes_disabled: None,
            changed_files: ChangedFiles::new(),
            segments_seen: data_directory::SegmentsSeen::new(),
            backups: RunningBackups::default(),
            label_files: None,
            old_label_files: None,
        };
        if !state.settings.flag("full_page_writes", true)? {
            state.set_full_page_writes(false);
        }
        flushed.send_replace(state.wal.flush_position());
        let inner = Inner {
            facts,
            files,
            control,
            wal_rate: config.wal_rate,
            compression,
            server_files,
            epoch,
            state: Mutex::new(state),
            flushed,
            summarized,
            slot_freed: Notify::new(),
            condemned: watch::Sender::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The release.
    pub fn version(&self) -> ServerVersion {
        self.inner.facts.version
    }

    /// The number that every file of this cluster and no other bears.
    pub fn system_identifier(&self) -> u64 {
        self.inner.facts.system_identifier
    }

    /// The size of a WAL segment.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.inner.facts.segment_size
    }

    /// Whether data pages carry checksums.
    pub fn data_checksums(&self) -> bool {
        self.inner.facts.checksums
    }

    /// Whether pages of it can disagree with their checksums: those of a synthetic cluster are right by construction, but for
    /// those that the configuration damages.
    pub(crate) fn may_have_damaged_pages(&self) -> bool {
        self.data_checksums()
            && match &self.inner.files {
                Files::Synthetic { files, .. } => files.has_damage(),
                Files::Directory(_) => true,
            }
    }

    /// Unix seconds at which the server's life begins: decided by the seed, never by the machine's clock.
    pub fn epoch(&self) -> i64 {
        self.inner.epoch
    }

    /// Whether this is a standby that has not been promoted.
    pub fn in_recovery(&self) -> bool {
        self.inner.lock().in_recovery
    }

    /// With what the server was built to compress archives: everything, or the methods that the setting
    /// `backstop.compression` lists.
    pub fn compression(&self) -> CompressionSupport {
        self.inner.compression
    }

    /// Whether the server archives its WAL.
    pub(crate) fn archives(&self, in_recovery: bool) -> bool {
        self.inner.lock().settings.archives(in_recovery)
    }

    /// Whether it tries in vain.
    pub(crate) fn archiving_fails(&self) -> bool {
        self.inner.lock().settings.archiving_fails()
    }

    /// What backups with TARGET 'server' have left on the server, by path.
    pub fn stored_files(&self) -> Vec<StoredFile> {
        self.inner.server_files.stored()
    }

    /// Where backups with TARGET 'server' write.
    pub(crate) fn server_files(&self) -> &Arc<ServerFiles> {
        &self.inner.server_files
    }

    /// The canonical name and the value of a setting.
    pub fn show(&self, name: &str) -> Option<(String, String)> {
        let version = self.version();
        if version.reports_hot_standby() && name.eq_ignore_ascii_case("in_hot_standby") {
            let value = if self.in_recovery() { "on" } else { "off" };
            return Some(("in_hot_standby".to_owned(), value.to_owned()));
        }
        self.inner.lock().settings.get(name)
    }

    /// The tablespaces without the base directory, by ascending OID.
    pub fn tablespaces(&self) -> Vec<Tablespace> {
        self.inner.files.tablespaces().to_vec()
    }

    /// Bytes of the files of a tablespace, or of the base directory: what PROGRESS estimates from. What cannot be read
    /// counts as nothing.
    pub fn tablespace_size(&self, oid: Option<u32>) -> u64 {
        let latest = self.inner.lock().wal.checkpoint_at().redo;
        match &self.inner.files {
            Files::Synthetic { files, .. } => files.size(oid, latest),
            Files::Directory(directory) => directory.size(oid).unwrap_or(0),
        }
    }

    /// What a base backup sends of a tablespace, or of the base directory, in its order, as of the latest checkpoint. Without
    /// `backup_label`, `tablespace_map` and `global/pg_control`, which the walsender sends itself; with the links of
    /// tablespaces, and with the directories of `pg_wal` but no WAL. A label that was renamed to `backup_label.old` is a file
    /// like any other.
    pub fn entries(&self, oid: Option<u32>) -> io::Result<Entries> {
        let latest = self.inner.lock().wal.checkpoint_at().redo;
        self.entries_at(oid, latest)
    }

    /// The same as a backup finds it that started at `position`: relations can change while WAL goes on (setting
    /// `backstop.changed_blocks`). A data directory never changes.
    pub fn entries_at(&self, oid: Option<u32>, position: Lsn) -> io::Result<Entries> {
        let entries: Entries = match &self.inner.files {
            Files::Synthetic { files, .. } => {
                let promoted = !self.in_recovery();
                Box::new(
                    files
                        .entries(oid, position)
                        .filter_map(move |entry| if promoted { left_recovery(entry) } else { Some(entry) })
                        .map(Ok),
                )
            }
            Files::Directory(directory) => directory.entries(oid)?,
        };
        let old = oid.is_none().then(|| self.old_label_files()).flatten();
        Ok(match old {
            Some(files) => {
                let mtime = u64::try_from(self.epoch()).unwrap_or(0);
                Box::new(entries.chain(files.old_entries(mtime).into_iter().map(Ok)))
            }
            None => entries,
        })
    }

    /// The numbers of the blocks in a relation's file that differ from those of a backup that started at `since`, ascending:
    /// at most 131072. What WAL summaries would tell.
    pub fn changed_blocks(&self, entry: &Entry, since: Lsn) -> Vec<u32> {
        let blocks = u32::try_from(entry.size() / BLOCK_SIZE as u64).unwrap_or(u32::MAX);
        match entry.origin.original() {
            // Damage is nothing that WAL knows of.
            Origin::Pages(pages) | Origin::Damaged(pages, _) => pages.changed_since(since, blocks),
            Origin::Nothing | Origin::Bytes(_) | Origin::Zeros | Origin::Disk(_) | Origin::Found(..) => Vec::new(),
        }
    }

    /// To how many blocks, counted from its first file, a relation was truncated after the start of a backup at `since`, if it
    /// was: the limit block of WAL summaries, 0 for a relation that was created.
    pub fn limit_block(&self, entry: &Entry, since: Lsn) -> Option<u32> {
        match entry.origin.original() {
            Origin::Pages(pages) | Origin::Damaged(pages, _) => pages.truncated_since(since),
            Origin::Nothing | Origin::Bytes(_) | Origin::Zeros | Origin::Disk(_) | Origin::Found(..) => None,
        }
    }

    /// Reads the content of an entry from `offset`. Fewer bytes than asked for only at its end.
    pub fn read(&self, entry: &Entry, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        entry.read(offset, buf)
    }

    /// The 8192 bytes of `global/pg_control` as a backup taken now holds them: "in production" with the last checkpoint on
    /// a primary, "in archive recovery" with the last restartpoint and the position to recover to on a standby.
    pub fn control_file(&self) -> io::Result<Vec<u8>> {
        let mut control = self.inner.control.clone();
        let state = self.inner.lock();
        let checkpoint = state.wal.checkpoint_at();
        control.checkpoint = checkpoint.checkpoint;
        control.checkpoint_copy = checkpoint.checkpoint_copy;
        if state.in_recovery {
            control.state = DbState::InArchiveRecovery;
            control.min_recovery_point = state.min_recovery_point;
            control.min_recovery_timeline = state.wal.timeline_at(state.min_recovery_point);
        } else {
            control.state = DbState::InProduction;
            control.min_recovery_point = Lsn::INVALID;
            control.min_recovery_timeline = TimelineId(0);
        }
        Ok(control.encode())
    }
}
