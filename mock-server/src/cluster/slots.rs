//! Replication slots and PostgreSQL's words about them.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use tokio::time::Instant;

use super::Cluster;
use super::logical::LogicalSlot;

/// A replication slot, as `pg_replication_slots` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Its name.
    pub name: String,
    /// Whether it lives no longer than its session.
    pub temporary: bool,
    /// The session that holds it. A temporary slot is always held.
    pub active_pid: Option<i32>,
    /// The oldest position that it keeps. None: it keeps nothing, since it was never used or was invalidated.
    pub restart_lsn: Option<Lsn>,
    /// Why it can no longer be used, if so.
    pub invalidation_reason: Option<InvalidationReason>,
    /// What makes it a logical slot, if it is one.
    pub logical: Option<LogicalSlot>,
}

/// Why a slot was invalidated: `invalidation_reason` of `pg_replication_slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidationReason {
    /// WAL that it needed was removed.
    WalRemoved,
    /// Nobody used it for `idle_replication_slot_timeout` (since 18).
    IdleTimeout,
}

impl InvalidationReason {
    /// PostgreSQL's name of the reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::WalRemoved => "wal_removed",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

/// How safe the WAL is that a slot keeps: `wal_status` of `pg_replication_slots` (since 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, but kept by the slot or by `wal_keep_size`.
    Extended,
    /// Not kept any more: the next checkpoint may remove it.
    Unreserved,
    /// Removed.
    Lost,
}

impl WalStatus {
    /// PostgreSQL's name of the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }
}

/// All slots of a server.
#[derive(Debug)]
pub(super) struct Slots {
    version: ServerVersion,
    /// `max_replication_slots`.
    limit: usize,
    by_name: BTreeMap<String, SlotState>,
    /// The `restart_lsn` that lies on disk, of those that are not temporary. Status updates do not get there; checkpoints do.
    saved: BTreeMap<String, Option<Lsn>>,
    /// Since when nobody holds them.
    inactive_since: BTreeMap<String, Instant>,
}

impl Slots {
    pub(super) fn new(version: ServerVersion, limit: usize) -> Self {
        Self { version, limit, by_name: BTreeMap::new(), saved: BTreeMap::new(), inactive_since: BTreeMap::new() }
    }

    pub(super) fn all(&self) -> Vec<SlotState> {
        self.by_name.values().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&SlotState> {
        self.by_name.get(name)
    }

    /// `ReplicationSlotCreate`: `reserve` is the position that RESERVE_WAL keeps.
    pub(super) fn create(
        &mut self,
        name: &str,
        temporary: bool,
        reserve: Option<Lsn>,
        pid: i32,
    ) -> Result<(), Diagnostic> {
        validate_name(name)?;
        if self.by_name.contains_key(name) {
            let message = format!("replication slot \"{name}\" already exists");
            return Err(Diagnostic::error(SqlState::DUPLICATE_OBJECT, message));
        }
        if self.by_name.len() >= self.limit {
            let setting = self.version.setting_in_message("max_replication_slots");
            let message = "all replication slots are in use";
            return Err(Diagnostic::error(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message)
                .with_hint(format!("Free one or increase {setting}.")));
        }
        let active_pid = temporary.then_some(pid);
        let slot = SlotState {
            name: name.to_owned(),
            temporary,
            active_pid,
            restart_lsn: reserve,
            invalidation_reason: None,
            logical: None,
        };
        self.by_name.insert(name.to_owned(), slot);
        if !temporary {
            self.saved.insert(name.to_owned(), reserve);
            self.inactive_since.insert(name.to_owned(), Instant::now());
        }
        Ok(())
    }

    /// Makes a slot a logical one, or changes what it is.
    pub(super) fn make_logical(&mut self, name: &str, logical: LogicalSlot) {
        if let Some(slot) = self.by_name.get_mut(name) {
            slot.logical = Some(logical);
        }
    }

    /// `ReplicationSlotAcquire` by the session `pid`.
    fn held_by(&mut self, name: &str, pid: i32) -> Result<&mut SlotState, Diagnostic> {
        let Some(slot) = self.by_name.get_mut(name) else {
            let message = format!("replication slot \"{name}\" does not exist");
            return Err(Diagnostic::error(SqlState::UNDEFINED_OBJECT, message));
        };
        match slot.active_pid {
            Some(other) if other != pid => {
                let message = format!("replication slot \"{name}\" is active for PID {other}");
                Err(Diagnostic::error(SqlState::OBJECT_IN_USE, message))
            }
            Some(_) | None => Ok(slot),
        }
    }

    /// Takes the slot for streaming.
    pub(super) fn acquire(&mut self, name: &str, pid: i32) -> Result<SlotState, Diagnostic> {
        let refuses_invalidated = self.version.refuses_invalidated_slots();
        let slot = self.held_by(name, pid)?;
        if let Some(reason) = slot.invalidation_reason.filter(|_| refuses_invalidated) {
            let message = format!("can no longer access replication slot \"{name}\"");
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_detail(format!("This replication slot has been invalidated due to \"{}\".", reason.name())));
        }
        slot.active_pid = Some(pid);
        let slot = slot.clone();
        self.inactive_since.remove(name);
        Ok(slot)
    }

    /// Gives the slot back, unless it is temporary.
    pub(super) fn release(&mut self, name: &str, pid: i32) {
        if let Some(slot) = self.by_name.get_mut(name)
            && !slot.temporary
            && slot.active_pid == Some(pid)
        {
            slot.active_pid = None;
            self.inactive_since.insert(name.to_owned(), Instant::now());
        }
    }

    pub(super) fn drop(&mut self, name: &str, pid: i32) -> Result<(), Diagnostic> {
        self.held_by(name, pid)?;
        self.drop_by_force(name);
        Ok(())
    }

    /// Drops a slot whoever holds it, and says who did.
    pub(super) fn drop_by_force(&mut self, name: &str) -> Option<SlotState> {
        self.saved.remove(name);
        self.inactive_since.remove(name);
        self.by_name.remove(name)
    }

    pub(super) fn drop_temporary(&mut self, pid: i32) {
        self.by_name.retain(|_, slot| !(slot.temporary && slot.active_pid == Some(pid)));
    }

    /// Gives back every slot of an ended session.
    pub(super) fn end_session(&mut self, pid: i32) {
        self.drop_temporary(pid);
        for slot in self.by_name.values_mut().filter(|slot| slot.active_pid == Some(pid)) {
            slot.active_pid = None;
            self.inactive_since.insert(slot.name.clone(), Instant::now());
        }
    }

    /// What outlives no server, whoever holds it.
    pub(super) fn drop_all_temporary(&mut self) {
        self.by_name.retain(|_, slot| !slot.temporary);
    }

    /// `CheckPointReplicationSlots`: what a crash will leave.
    pub(super) fn save(&mut self) {
        for (name, saved) in &mut self.saved {
            *saved = self.by_name.get(name).and_then(|slot| slot.restart_lsn);
        }
    }

    /// Everything that was not saved is lost, and nobody holds a slot any more.
    pub(super) fn crash(&mut self) {
        self.drop_all_temporary();
        for slot in self.by_name.values_mut() {
            slot.active_pid = None;
            slot.restart_lsn = self.saved.get(&slot.name).copied().flatten();
            self.inactive_since.insert(slot.name.clone(), Instant::now());
        }
    }

    /// `PhysicalConfirmReceivedLocation`: the client has flushed WAL up to `flushed`.
    pub(super) fn confirm(&mut self, name: &str, flushed: Lsn) {
        if let Some(slot) = self.by_name.get_mut(name)
            && slot.invalidation_reason.is_none()
            && !flushed.is_invalid()
        {
            slot.restart_lsn = Some(flushed);
        }
    }

    /// The oldest position that any slot keeps.
    pub(super) fn oldest_restart(&self) -> Option<Lsn> {
        self.by_name.values().filter_map(|slot| slot.restart_lsn).min()
    }

    /// Invalidates the slots that keep a position before `oldest`, and returns them as they were.
    pub(super) fn invalidate_before(&mut self, oldest: Lsn) -> Vec<SlotState> {
        self.invalidate(InvalidationReason::WalRemoved, |slot, _| slot.restart_lsn.is_some_and(|lsn| lsn < oldest))
    }

    /// Invalidates the slots that keep WAL and that nobody has held for so long, and returns them as they were.
    pub(super) fn invalidate_idle(&mut self, timeout: Duration) -> Vec<SlotState> {
        let now = Instant::now();
        self.invalidate(InvalidationReason::IdleTimeout, |slot, since| {
            slot.restart_lsn.is_some() && since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
        })
    }

    fn invalidate(
        &mut self,
        reason: InvalidationReason,
        which: impl Fn(&SlotState, Option<Instant>) -> bool,
    ) -> Vec<SlotState> {
        let mut lost = Vec::new();
        for slot in self.by_name.values_mut() {
            if which(slot, self.inactive_since.get(&slot.name).copied()) {
                lost.push(slot.clone());
                slot.restart_lsn = None;
                slot.invalidation_reason = Some(reason);
                self.saved.entry(slot.name.clone()).and_modify(|saved| *saved = None);
            }
        }
        lost
    }
}

/// `ReplicationSlotValidateName`.
fn validate_name(name: &str) -> Result<(), Diagnostic> {
    /// `NAMEDATALEN`, with the byte that ends the name.
    const NAME_LIMIT: usize = 64;
    if name.is_empty() {
        let message = format!("replication slot name \"{name}\" is too short");
        return Err(Diagnostic::error(SqlState::INVALID_NAME, message));
    }
    if name.len() >= NAME_LIMIT {
        let message = format!("replication slot name \"{name}\" is too long");
        return Err(Diagnostic::error(SqlState::NAME_TOO_LONG, message));
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        let message = format!("replication slot name \"{name}\" contains invalid character");
        let hint = "Replication slot names may only contain lower case letters, numbers, and the underscore character.";
        return Err(Diagnostic::error(SqlState::INVALID_NAME, message).with_hint(hint));
    }
    Ok(())
}

impl Cluster {
    /// Creates a physical slot for the session `pid`. `reserve` keeps WAL from the last checkpoint's redo point on.
    pub fn create_slot(&self, name: &str, temporary: bool, reserve: bool, pid: i32) -> Result<(), Diagnostic> {
        let mut state = self.inner.lock();
        let reserved = reserve.then(|| state.wal.checkpoint_at().redo);
        state.slots.create(name, temporary, reserved, pid)
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

    /// Drops a slot that no session holds but perhaps `pid` (`pg_drop_replication_slot()`).
    pub fn drop_idle_slot(&self, name: &str, pid: i32) -> Result<(), Diagnostic> {
        self.inner.lock().slots.drop(name, pid)
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
        self.inner.condemned.send_if_modified(|condemned| condemned.remove(&pid));
        self.inner.slot_freed.notify_waiters();
    }

    /// Resolves when a slot that the session `pid` holds has lost its WAL: the session is to be terminated.
    pub(crate) async fn condemned(&self, pid: i32) {
        let mut condemned = self.inner.condemned.subscribe();
        if condemned.wait_for(|condemned| condemned.contains(&pid)).await.is_err() {
            // The sender lives as long as the cluster.
            std::future::pending::<()>().await;
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(version: ServerVersion) -> Slots {
        let mut slots = Slots::new(version, 3);
        slots.create("s1", false, None, 1).expect("a slot");
        slots
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, Diagnostic>) -> String {
        let diagnostic = result.expect_err("must be refused");
        format!("{} {diagnostic}", diagnostic.code)
    }

    #[test]
    fn refuses_names_in_the_words_of_postgresql() {
        let mut slots = slots(ServerVersion::V15);
        insta::assert_snapshot!(refusal(slots.create("", false, None, 1)), @r#"42602 ERROR:  replication slot name "" is too short"#);
        insta::assert_snapshot!(refusal(slots.create("Bad-Name", false, None, 1)), @r#"
        42602 ERROR:  replication slot name "Bad-Name" contains invalid character
        HINT:  Replication slot names may only contain lower case letters, numbers, and the underscore character.
        "#);
        assert!(slots.create(&"x".repeat(63), false, None, 1).is_ok());
        assert_eq!(slots.create(&"x".repeat(64), false, None, 1).expect_err("too long").code, SqlState::NAME_TOO_LONG);
    }

    #[test]
    fn refuses_what_exists_and_what_is_too_much() {
        let mut slots = slots(ServerVersion::V15);
        insta::assert_snapshot!(refusal(slots.create("s1", false, None, 1)), @r#"42710 ERROR:  replication slot "s1" already exists"#);
        for name in ["s2", "s3"] {
            slots.create(name, false, None, 1).expect("a slot");
        }
        insta::assert_snapshot!(refusal(slots.create("s4", false, None, 1)), @r"
        53400 ERROR:  all replication slots are in use
        HINT:  Free one or increase max_replication_slots.
        ");
        slots.version = ServerVersion::V17;
        insta::assert_snapshot!(refusal(slots.create("s4", false, None, 1)), @r#"
        53400 ERROR:  all replication slots are in use
        HINT:  Free one or increase "max_replication_slots".
        "#);
    }

    #[test]
    fn a_slot_has_one_session() {
        let mut slots = slots(ServerVersion::V15);
        insta::assert_snapshot!(refusal(slots.acquire("nosuch", 7)), @r#"42704 ERROR:  replication slot "nosuch" does not exist"#);
        slots.acquire("s1", 7).expect("a free slot");
        insta::assert_snapshot!(refusal(slots.drop("s1", 8)), @r#"55006 ERROR:  replication slot "s1" is active for PID 7"#);
        slots.release("s1", 7);
        slots.drop("s1", 8).expect("a free slot");
    }

    #[test]
    fn temporary_slots_go_with_their_session() {
        let mut slots = slots(ServerVersion::V15);
        slots.create("t", true, Some(Lsn(0x100_0028)), 7).expect("a slot");
        slots.acquire("s1", 7).expect("a free slot");
        assert!(slots.acquire("t", 8).is_err(), "held by its session");
        slots.acquire("t", 7).expect("its own");
        slots.release("t", 7);
        assert_eq!(slots.get("t").and_then(|slot| slot.active_pid), Some(7));
        slots.end_session(7);
        assert_eq!(slots.all().iter().map(|slot| slot.active_pid).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn lost_wal_invalidates() {
        for (version, refused) in [(ServerVersion::V15, false), (ServerVersion::V18, true)] {
            let mut slots = slots(version);
            slots.create("r", false, Some(Lsn(0x100_0028)), 1).expect("a slot");
            assert_eq!(slots.oldest_restart(), Some(Lsn(0x100_0028)));
            assert!(slots.invalidate_before(Lsn(0x100_0000)).is_empty());
            assert_eq!(slots.invalidate_before(Lsn(0x200_0000)).len(), 1);
            slots.confirm("r", Lsn(0x300_0000));
            assert_eq!(slots.get("r").and_then(|slot| slot.restart_lsn), None);
            assert_eq!(slots.acquire("r", 1).is_err(), refused, "{version}");
        }
        let mut slots = slots(ServerVersion::V18);
        slots.confirm("s1", Lsn(0x100_0028));
        slots.invalidate_before(Lsn(0x200_0000));
        insta::assert_snapshot!(refusal(slots.acquire("s1", 1)), @r#"
        55000 ERROR:  can no longer access replication slot "s1"
        DETAIL:  This replication slot has been invalidated due to "wal_removed".
        "#);
    }
}
