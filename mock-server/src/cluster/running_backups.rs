//! Which backups run, and what they keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstop_protocol::lsn::Lsn;

use super::Inner;

/// The running backups of a server: what `XLogCtl->Insert` counts, and the WAL that they need.
#[derive(Debug, Default)]
pub(super) struct RunningBackups {
    /// How many streamed and non-exclusive backups were ever begun: each has a number of its own, so that a backup that a
    /// crash has ended cannot be ended again.
    begun: u64,
    running: BTreeSet<u64>,
    /// Where the WAL begins that each of them needs, until it is let go.
    needed: BTreeMap<u64, Lsn>,
    /// Where the exclusive backup began.
    exclusive: Option<Lsn>,
}

impl RunningBackups {
    /// Counts a streamed or non-exclusive backup, and returns its number.
    pub(super) fn begin(&mut self, start: Lsn) -> u64 {
        self.begun += 1;
        self.running.insert(self.begun);
        self.needed.insert(self.begun, start);
        self.begun
    }

    /// Ends it, and says whether it ran.
    pub(super) fn end(&mut self, number: u64) -> bool {
        self.running.remove(&number)
    }

    fn let_go(&mut self, number: u64) {
        self.needed.remove(&number);
    }

    pub(super) fn exclusive(&self) -> Option<Lsn> {
        self.exclusive
    }

    pub(super) fn begin_exclusive(&mut self, start: Lsn) {
        self.exclusive = Some(start);
    }

    pub(super) fn end_exclusive(&mut self) -> Option<Lsn> {
        self.exclusive.take()
    }

    /// A crash: shared memory is gone, and with it every backup.
    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.needed.clear();
        self.exclusive = None;
    }

    /// `forcePageWrites`, as a count: the backups that want full pages in WAL.
    pub(super) fn count(&self) -> usize {
        self.running.len() + usize::from(self.exclusive.is_some())
    }

    /// Where the WAL begins that any backup needs.
    pub(super) fn oldest_needed(&self) -> Option<Lsn> {
        self.needed.values().copied().chain(self.exclusive).min()
    }
}

/// Keeps the WAL of a backup: no checkpoint removes it while any clone of this lives.
#[derive(Clone, Debug)]
pub struct KeptWal(#[expect(dead_code, reason = "held for its drop")] Arc<Hold>);

#[derive(Debug)]
struct Hold {
    number: u64,
    inner: Arc<Inner>,
}

impl KeptWal {
    pub(super) fn new(number: u64, inner: Arc<Inner>) -> Self {
        Self(Arc::new(Hold { number, inner }))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inner.lock().backups.let_go(self.number);
    }
}
