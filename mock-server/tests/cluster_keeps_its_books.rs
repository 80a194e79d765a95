//! Backups, slots, checkpoints, crashes and promotions in any order, against a model that is simpler than the cluster: after
//! each step the running backups, the labels, the slots and the oldest WAL have to be those of the model.
//!
//! The model learns positions from the cluster (where a checkpoint's redo point is, how far WAL goes) and computes everything
//! else itself. Nothing is a precondition: what a server refuses in some state, the model expects to be refused.

use std::collections::BTreeMap;

use backstop_mock::cluster::{Cluster, RunningBackup};
use backstop_mock::config::{Config, Role};
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// What can happen.
#[derive(Clone, Debug)]
enum Event {
    /// BASE_BACKUP, or `pg_start_backup(…, exclusive => false)`, in a session.
    Start {
        session: i32,
    },
    /// The end of the n-th of the backups that were begun and not let go.
    Stop(usize),
    /// Its end without a word.
    Abort(usize),
    StartExclusive,
    StopExclusive,
    /// An administrator removes `backup_label`.
    RemoveLabel,
    /// A session goes, with its backups and its temporary slots.
    Disconnect {
        session: i32,
    },
    Crash,
    StartUp,
    Checkpoint,
    /// WAL grows by so many KiB.
    Grow(u64),
    SwitchWal,
    Promote,
    CreateSlot {
        name: u8,
        temporary: bool,
        reserve: bool,
        session: i32,
    },
    /// The client of a slot has flushed everything.
    Advance(u8),
    DropSlot {
        name: u8,
        session: i32,
    },
    /// The fault: WAL goes up to so many segments before the current one, needed or not.
    Recycle {
        before: u64,
    },
}

/// Stories of a primary or of a standby.
struct Stories;

impl ReferenceStateMachine for Stories {
    type State = Role;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Role> {
        prop_oneof![Just(Role::Primary), Just(Role::Standby)].boxed()
    }

    fn transitions(_: &Role) -> BoxedStrategy<Event> {
        let (session, name) = (1..4, 0_u8..3);
        prop_oneof![
            4 => session.clone().prop_map(|session| Event::Start { session }),
            3 => (0_usize..4).prop_map(Event::Stop),
            1 => (0_usize..4).prop_map(Event::Abort),
            2 => Just(Event::StartExclusive),
            2 => Just(Event::StopExclusive),
            1 => Just(Event::RemoveLabel),
            1 => session.clone().prop_map(|session| Event::Disconnect { session }),
            1 => Just(Event::Crash),
            3 => Just(Event::StartUp),
            3 => Just(Event::Checkpoint),
            4 => (1_u64..3000).prop_map(Event::Grow),
            1 => Just(Event::SwitchWal),
            1 => Just(Event::Promote),
            3 => (name.clone(), any::<bool>(), any::<bool>(), session.clone())
                .prop_map(|(name, temporary, reserve, session)| Event::CreateSlot { name, temporary, reserve, session }),
            2 => name.clone().prop_map(Event::Advance),
            1 => (name, session).prop_map(|(name, session)| Event::DropSlot { name, session }),
            1 => (1_u64..5).prop_map(|before| Event::Recycle { before }),
        ]
        .boxed()
    }

    fn apply(state: Role, _: &Event) -> Role {
        state
    }
}

/// A backup of a session, as the model sees it.
struct Backup {
    handle: RunningBackup,
    session: i32,
    name: String,
    in_recovery: bool,
    /// Not ended by a crash.
    runs: bool,
}

#[derive(Debug, PartialEq)]
struct Slot {
    /// The session of a temporary slot.
    owner: Option<i32>,
    restart: Option<Lsn>,
    /// What a crash leaves.
    saved: Option<Lsn>,
    lost: bool,
}

/// The cluster, and the model.
struct Books {
    cluster: Cluster,
    size: WalSegmentSize,
    up: bool,
    in_recovery: bool,
    /// Of the last checkpoint.
    redo: Lsn,
    oldest_segment: u64,
    backups: Vec<Backup>,
    begun: usize,
    exclusive: Option<Lsn>,
    /// The start of the backup whose label lies in the data directory.
    label: Option<Lsn>,
    slots: BTreeMap<String, Slot>,
}

fn slot_name(name: u8) -> String {
    format!("slot_{name}")
}

/// The redo point of the last checkpoint, from the control file.
fn redo(cluster: &Cluster) -> Lsn {
    let control = cluster.control_file().expect("a control file");
    ControlFile::decode(&control).expect("a valid one").checkpoint_copy.redo
}

impl Books {
    fn new(role: Role) -> Self {
        let size = WalSegmentSize::new(1 << 20).expect("1 MiB");
        let config = Config { version: ServerVersion::V14, role, wal_segment_size: size, size: 0, ..Config::default() };
        let cluster = Cluster::new(&config).expect("a cluster");
        Self {
            size,
            up: true,
            in_recovery: role == Role::Standby,
            redo: redo(&cluster),
            oldest_segment: size.segment_of(cluster.oldest_wal()),
            backups: Vec::new(),
            begun: 0,
            exclusive: None,
            label: None,
            slots: BTreeMap::new(),
            cluster,
        }
    }

    /// A checkpoint was written, and removes what nothing needs.
    fn checkpointed(&mut self) {
        self.redo = redo(&self.cluster);
        let backups = self.backups.iter().filter(|backup| backup.runs).map(|backup| backup.handle.start);
        let needed = backups.chain(self.exclusive).chain(self.slots.values().filter_map(|slot| slot.restart));
        let keep = needed.chain([self.redo]).map(|needed| self.size.segment_of(needed)).min();
        self.removed_before(keep.unwrap_or(0));
    }

    fn removed_before(&mut self, segment: u64) {
        self.oldest_segment = self.oldest_segment.max(segment);
        let oldest = self.size.start_of(self.oldest_segment);
        for slot in self.slots.values_mut().filter(|slot| slot.restart.is_some_and(|restart| restart < oldest)) {
            (slot.restart, slot.saved, slot.lost) = (None, None, true);
        }
    }

    fn happens(&mut self, event: &Event) {
        let needs_server = !matches!(event, Event::StartUp | Event::RemoveLabel | Event::Disconnect { .. });
        if needs_server && !self.up {
            return;
        }
        match event {
            Event::Start { session } => self.start(*session),
            Event::Stop(which) => self.stop(*which),
            Event::Abort(which) => {
                if *which < self.backups.len() {
                    self.backups.remove(*which);
                }
            }
            Event::StartExclusive => self.start_exclusive(),
            Event::StopExclusive => {
                let possible = !self.in_recovery && self.exclusive.is_some() && self.label.is_some();
                assert_eq!(self.cluster.stop_exclusive_backup().is_ok(), possible);
                if possible {
                    (self.exclusive, self.label) = (None, None);
                }
            }
            Event::RemoveLabel => {
                assert_eq!(self.cluster.remove_label_files(), self.label.take().is_some());
            }
            Event::Disconnect { session } => {
                self.backups.retain(|backup| backup.session != *session);
                self.slots.retain(|_, slot| slot.owner != Some(*session));
                self.cluster.end_session(*session);
            }
            Event::Crash => {
                self.cluster.crash();
                self.up = false;
                self.exclusive = None;
                self.slots.retain(|_, slot| slot.owner.is_none());
                self.slots.values_mut().for_each(|slot| slot.restart = slot.saved);
                self.backups.iter_mut().for_each(|backup| backup.runs = false);
            }
            Event::StartUp if self.up => {}
            Event::StartUp => {
                let lost = self.label.is_some_and(|start| self.size.segment_of(start) < self.oldest_segment);
                assert_eq!(self.cluster.start_up().is_err(), lost);
                if !lost {
                    (self.up, self.label) = (true, None);
                    if !self.in_recovery {
                        self.checkpointed();
                    }
                }
            }
            Event::Checkpoint => {
                self.cluster.checkpoint();
                self.slots.values_mut().for_each(|slot| slot.saved = slot.restart);
                self.checkpointed();
            }
            Event::Grow(kib) => self.cluster.grow_wal(kib << 10),
            Event::SwitchWal => drop(self.cluster.switch_wal()),
            Event::Promote => {
                assert_eq!(self.cluster.promote().is_ok(), self.in_recovery);
                self.in_recovery = false;
                self.redo = redo(&self.cluster);
            }
            Event::CreateSlot { name, temporary, reserve, session } => {
                let name = slot_name(*name);
                let created = self.cluster.create_slot(&name, *temporary, *reserve, *session);
                assert_eq!(created.is_ok(), !self.slots.contains_key(&name));
                let (restart, owner) = (reserve.then_some(self.redo), temporary.then_some(*session));
                self.slots.entry(name).or_insert(Slot { owner, restart, saved: restart, lost: false });
            }
            Event::Advance(name) => {
                let (name, position) = (slot_name(*name), self.cluster.flush_position());
                self.cluster.confirm_flush(&name, position);
                if let Some(slot) = self.slots.get_mut(&name).filter(|slot| !slot.lost) {
                    slot.restart = Some(position);
                }
            }
            Event::DropSlot { name, session } => {
                let name = slot_name(*name);
                let mine = self.slots.get(&name).is_some_and(|slot| slot.owner.is_none_or(|owner| owner == *session));
                assert_eq!(self.cluster.drop_idle_slot(&name, *session).is_ok(), mine);
                if mine {
                    self.slots.remove(&name);
                }
            }
            Event::Recycle { before } => {
                let current = self.size.segment_of(self.cluster.flush_position());
                let last = current.saturating_sub(*before);
                self.cluster.recycle_wal(WalFileName::new(self.cluster.timeline(), last, self.size));
                self.removed_before(last + 1);
            }
        }
    }

    fn start(&mut self, session: i32) {
        self.begun += 1;
        let name = format!("backup {}", self.begun);
        let handle = self.cluster.start_backup(&name, true).expect("any number may run");
        if !self.in_recovery {
            self.checkpointed();
        }
        assert_eq!(handle.start, self.redo);
        self.backups.push(Backup { handle, session, name, in_recovery: self.in_recovery, runs: true });
    }

    fn stop(&mut self, which: usize) {
        if which >= self.backups.len() {
            return;
        }
        let backup = self.backups.remove(which);
        let possible = backup.runs && backup.in_recovery == self.in_recovery;
        let start = backup.handle.start;
        let end = self.cluster.stop_backup(backup.handle);
        assert_eq!(end.is_ok(), possible);
        assert!(end.is_err() || end.is_ok_and(|end| end.end >= start));
    }

    fn start_exclusive(&mut self) {
        let begun = self.cluster.start_exclusive_backup("exclusive", true);
        if self.in_recovery || self.exclusive.is_some() {
            assert!(begun.is_err());
            return;
        }
        // A label that was left is found when the checkpoint has been written.
        self.checkpointed();
        assert_eq!(begun.is_ok(), self.label.is_none());
        if begun.is_ok() {
            (self.exclusive, self.label) = (Some(self.redo), Some(self.redo));
        }
    }

    /// What the cluster says is what the model says.
    fn agree(&self) {
        let running = self.backups.iter().filter(|backup| backup.runs).count() + usize::from(self.exclusive.is_some());
        assert_eq!(self.cluster.running_backups(), running, "running backups, and forced full-page writes");
        assert_eq!(self.cluster.exclusive_backup(), self.exclusive);
        assert_eq!(self.cluster.in_recovery(), self.in_recovery);
        let label = self.cluster.label_files().map(|files| files.label);
        assert_eq!(label.is_some(), self.label.is_some(), "backup_label in the data directory");
        if let (Some(label), Some(start)) = (label, self.label) {
            assert!(
                label.starts_with(&format!("START WAL LOCATION: {start} ")) && label.contains("LABEL: exclusive\n")
            );
        }
        for Backup { handle, name, .. } in &self.backups {
            assert!(handle.label_text.starts_with(&format!("START WAL LOCATION: {} ", handle.start)));
            assert!(handle.label_text.contains("BACKUP METHOD: streamed\n"));
            assert!(handle.label_text.contains(&format!("LABEL: {name}\n")));
        }
        assert_eq!(self.cluster.oldest_wal(), self.size.start_of(self.oldest_segment), "the oldest WAL");
        let kept: BTreeMap<_, _> = self.cluster.slots().into_iter().map(|slot| (slot.name.clone(), slot)).collect();
        assert_eq!(kept.keys().collect::<Vec<_>>(), self.slots.keys().collect::<Vec<_>>());
        for (name, slot) in &self.slots {
            let found = &kept[name];
            let state = (found.restart_lsn, found.invalidation_reason.is_some(), found.temporary);
            assert_eq!(state, (slot.restart, slot.lost, slot.owner.is_some()), "{name}");
        }
    }
}

impl StateMachineTest for Books {
    type SystemUnderTest = Self;
    type Reference = Stories;

    fn init_test(role: &Role) -> Self {
        Self::new(*role)
    }

    fn apply(mut books: Self, _: &Role, event: Event) -> Self {
        books.happens(&event);
        books.agree();
        books
    }

    fn teardown(mut books: Self, _: Role) {
        // When everybody has gone, only the exclusive backup can be left.
        for session in 1..4 {
            books.happens(&Event::Disconnect { session });
        }
        assert_eq!(books.cluster.running_backups(), usize::from(books.exclusive.is_some()));
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cluster_agrees_with_the_model(sequential 1..60 => Books);
}
