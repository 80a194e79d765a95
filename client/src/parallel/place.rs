//! Where files go.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sink::Plain;
use crate::tree::Tree;

/// The trees that files go to.
pub(super) trait Place: Send + Sync {
    /// Does `work` with the tree of the tablespace with this index, or of the data directory.
    fn with<T>(&self, tablespace: Option<usize>, work: impl FnOnce(&mut Tree) -> T) -> T;
}

impl Place for Mutex<Tree> {
    fn with<T>(&self, _tablespace: Option<usize>, work: impl FnOnce(&mut Tree) -> T) -> T {
        work(&mut lock(self))
    }
}

impl Place for Mutex<Plain> {
    fn with<T>(&self, tablespace: Option<usize>, work: impl FnOnce(&mut Tree) -> T) -> T {
        work(lock(self).tree(tablespace))
    }
}

/// What everybody shares is worked on by one at a time, and never while anybody waits.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
