//! What a server *has*: files, tablespaces, write-ahead log, timelines, slots, running backups, settings and a role.
//!
//! A [`Cluster`] speaks no protocol. It answers what a walsender would ask the rest of PostgreSQL, and it changes as a
//! server does: WAL grows, segments are recycled, a standby is promoted. Its files are either a real data directory of a
//! stopped server or *synthetic*, a function of the seed, so that a terabyte costs neither disk nor memory. In both cases WAL
//! goes on in a [generated log](backstop_protocol::wal::log), whatever the cluster does.

mod backup;
mod contents;
mod entry;
mod settings;
mod slots;
mod wal;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use tokio::sync::{Notify, watch};

use crate::config::{Config, ConfigError};

use settings::Settings;
use slots::Slots;

pub use backup::{BackupEnd, RunningBackup};
pub use entry::{Entry, EntryKind};
pub use slots::SlotState;
pub use wal::WalReadError;

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
    settings: Settings,
    tablespaces: Vec<Tablespace>,
    wal_rate: u64,
    epoch: i64,
    state: Mutex<State>,
    /// The flush position.
    flushed: watch::Sender<Lsn>,
    /// Told whenever a slot becomes free.
    slot_freed: Notify,
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
struct State {
    in_recovery: bool,
    timeline: TimelineId,
    slots: Slots,
    running_backups: usize,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that a session panicked; what it left is as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// A cluster as `config` describes it.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let facts = Facts {
            version: config.version,
            system_identifier: 7_000_000_000_000_000_000 | config.seed >> 8,
            segment_size: config.wal_segment_size,
            checksums: config.checksums,
        };
        let settings = Settings::new(config, &facts);
        let slots = Slots::new(facts.version, settings.count("max_replication_slots", 10)?);
        let flush = config.wal_start.unwrap_or(Lsn(2 * facts.segment_size.bytes()));
        let state = State { in_recovery: false, timeline: config.timeline, slots, running_backups: 0 };
        let inner = Inner {
            facts,
            settings,
            tablespaces: Vec::new(),
            wal_rate: config.wal_rate,
            epoch: 1_767_225_600,
            state: Mutex::new(state),
            flushed: watch::Sender::new(flush),
            slot_freed: Notify::new(),
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

    /// Unix seconds at which the server's life begins: decided by the seed, never by the machine's clock.
    pub fn epoch(&self) -> i64 {
        self.inner.epoch
    }

    /// The current timeline.
    pub fn timeline(&self) -> TimelineId {
        self.inner.lock().timeline
    }

    /// Whether this is a standby that has not been promoted.
    pub fn in_recovery(&self) -> bool {
        self.inner.lock().in_recovery
    }

    /// Where WAL has been flushed to; on a standby, where it has been received and replayed to.
    pub fn flush_position(&self) -> Lsn {
        *self.inner.flushed.borrow()
    }

    /// The ancestors of `timeline`, if this server has its history file. Timeline 1 has none.
    pub fn history(&self, _timeline: TimelineId) -> Option<TimelineHistory> {
        None
    }

    /// The timelines whose history files lie in `pg_wal`, ascending.
    pub fn history_timelines(&self) -> Vec<TimelineId> {
        Vec::new()
    }

    /// The canonical name and the value of a setting.
    pub fn show(&self, name: &str) -> Option<(String, String)> {
        self.inner.settings.get(name)
    }

    /// Begins a base backup (`do_pg_backup_start`): a WAL switch and a checkpoint on a primary, the latest restartpoint on
    /// a standby. Nothing needs to be written for a checkpoint, so that `fast` and spread ones are the same.
    pub fn start_backup(&self, label: &str, _fast: bool) -> Result<RunningBackup, Diagnostic> {
        let mut state = self.inner.lock();
        state.running_backups += 1;
        let start = self.flush_position();
        Ok(RunningBackup {
            start,
            timeline: state.timeline,
            checkpoint: start,
            label_text: label.to_owned(),
            started_at: self.inner.epoch,
            in_recovery: state.in_recovery,
            inner: Arc::clone(&self.inner),
        })
    }

    /// Ends a base backup (`do_pg_backup_stop`): an end-of-backup record and a WAL switch on a primary.
    pub fn stop_backup(&self, backup: RunningBackup) -> Result<BackupEnd, Diagnostic> {
        backup.check()?;
        Ok(BackupEnd { end: self.flush_position(), timeline: backup.timeline })
    }

    /// How many base backups run.
    pub fn running_backups(&self) -> usize {
        self.inner.lock().running_backups
    }

    /// The tablespaces without the base directory, by ascending OID.
    pub fn tablespaces(&self) -> Vec<Tablespace> {
        self.inner.tablespaces.clone()
    }

    /// Bytes of the files of a tablespace, or of the base directory: what PROGRESS estimates from.
    pub fn tablespace_size(&self, _oid: Option<u32>) -> u64 {
        0
    }

    /// What a base backup sends of a tablespace, or of the base directory, in its order. Without `backup_label`,
    /// `tablespace_map` and `global/pg_control`, which the walsender sends itself, with the links of tablespaces, and
    /// with the directories of `pg_wal` but no WAL.
    pub fn entries(&self, _oid: Option<u32>) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>> {
        Ok(Box::new(std::iter::empty()))
    }

    /// Reads the content of an entry from `offset`. Fewer bytes than asked for only at its end.
    pub fn read(&self, _entry: &Entry, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// The 8192 bytes of `global/pg_control` as a backup taken now holds them.
    pub fn control_file(&self) -> io::Result<Vec<u8>> {
        Ok(vec![0; 8192])
    }

    /// Fills `buf` with WAL of `timeline` from `from`, all of which must have been flushed.
    pub fn read_wal(&self, _timeline: TimelineId, _from: Lsn, _buf: &mut [u8]) -> Result<(), WalReadError> {
        Err(WalReadError::NotThere)
    }

    /// Fills `buf` with a part of a segment file, whose bytes after the last flushed record are zero.
    pub fn read_wal_file(&self, _file: WalFileName, _offset: u64, _buf: &mut [u8]) -> Result<(), WalReadError> {
        Err(WalReadError::NotThere)
    }

    /// The segment files that hold the WAL from `start` to `end`, ascending: what BASE_BACKUP's WAL option appends.
    pub fn wal_files(&self, _start: Lsn, _end: Lsn) -> Result<Vec<WalFileName>, WalReadError> {
        Ok(Vec::new())
    }

    /// Waits until WAL has been flushed beyond `position`, and returns the flush position.
    pub async fn flushed_beyond(&self, position: Lsn) -> Lsn {
        let mut receiver = self.inner.flushed.subscribe();
        let grown = receiver.wait_for(|flushed| *flushed > position).await.map(|flushed| *flushed);
        match grown {
            Ok(flushed) => flushed,
            // Cannot happen: the sender lives as long as the cluster.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets WAL grow at the configured rate, for ever. Returns at once if the rate is 0.
    pub async fn run_wal(&self) {
        if self.inner.wal_rate == 0 {
            return;
        }
        std::future::pending().await
    }

    /// The start of the oldest segment that is still there.
    pub fn oldest_wal(&self) -> Lsn {
        self.flush_position()
    }

    /// Creates a physical slot for the session `pid`. `reserve` keeps WAL from the last checkpoint's redo point on.
    pub fn create_slot(&self, name: &str, temporary: bool, reserve: bool, pid: i32) -> Result<(), Diagnostic> {
        let reserved = reserve.then(|| self.flush_position());
        self.inner.lock().slots.create(name, temporary, reserved, pid)
    }

    /// Drops a slot. With `wait`, waits until the session that holds it lets it go.
    pub async fn drop_slot(&self, name: &str, pid: i32, wait: bool) -> Result<(), Diagnostic> {
        loop {
            let freed = self.inner.slot_freed.notified();
            let result = self.inner.lock().slots.drop(name, pid);
            match result {
                Err(refusal) if wait && refusal.code == SqlState::OBJECT_IN_USE => freed.await,
                done => return done,
            }
        }
    }

    /// Drops a slot whoever holds it (a fault), and returns what it was.
    pub fn drop_slot_by_force(&self, name: &str) -> Option<SlotState> {
        let slot = self.inner.lock().slots.drop_by_force(name);
        self.inner.slot_freed.notify_waiters();
        slot
    }

    /// Takes a slot for the session `pid`, which is going to stream from it.
    pub fn acquire_slot(&self, name: &str, pid: i32) -> Result<SlotState, Diagnostic> {
        self.inner.lock().slots.acquire(name, pid)
    }

    /// Gives a slot back.
    pub fn release_slot(&self, name: &str, pid: i32) {
        self.inner.lock().slots.release(name, pid);
        self.inner.slot_freed.notify_waiters();
    }

    /// Drops the temporary slots of a session: after any error, and at its end.
    pub fn drop_temporary_slots(&self, pid: i32) {
        self.inner.lock().slots.drop_temporary(pid);
        self.inner.slot_freed.notify_waiters();
    }

    /// Lets go of everything that the session `pid` holds.
    pub fn end_session(&self, pid: i32) {
        self.inner.lock().slots.end_session(pid);
        self.inner.slot_freed.notify_waiters();
    }

    /// A slot as READ_REPLICATION_SLOT sees it.
    pub fn read_slot(&self, name: &str) -> Option<SlotState> {
        self.inner.lock().slots.get(name).cloned()
    }

    /// Notes that the client of a slot has flushed WAL up to `position`.
    pub fn confirm_flush(&self, name: &str, position: Lsn) {
        self.inner.lock().slots.confirm(name, position);
    }

    /// Every slot, by name.
    pub fn slots(&self) -> Vec<SlotState> {
        self.inner.lock().slots.all()
    }

    /// Removes every segment through `through`, needed or not (a fault), and returns the slots that this invalidated, as
    /// they were before.
    pub fn recycle_wal(&self, _through: WalFileName) -> Vec<SlotState> {
        Vec::new()
    }

    /// Ends the current segment (`pg_switch_wal`), and returns where the next begins.
    pub fn switch_wal(&self) -> Lsn {
        self.flush_position()
    }

    /// Writes a checkpoint, or makes a restartpoint of a standby, and removes the segments that nothing needs any more.
    pub fn checkpoint(&self) {}

    /// Ends recovery on a new timeline (`pg_promote`).
    pub fn promote(&self) -> Result<TimelineId, Diagnostic> {
        let refusal = Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress");
        Err(refusal.with_hint("Recovery control functions can only be executed during recovery."))
    }
}

/// What a sound backup of `cluster` must hold: every file with the path that the manifest gives it, in the order of
/// sending, without the three files that are different in each backup (`backup_label`, `tablespace_map`,
/// `global/pg_control`) and without WAL.
pub fn ground_truth(_cluster: &Cluster) -> io::Result<Box<dyn Iterator<Item = io::Result<(Vec<u8>, Entry)>> + Send>> {
    Ok(Box::new(std::iter::empty()))
}
