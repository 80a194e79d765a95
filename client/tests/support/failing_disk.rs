//! A disk that fails.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backstop_client::Disk;

/// A disk that does not do one thing, or nothing from there on.
#[derive(Debug)]
pub struct Failing {
    left: AtomicUsize,
    dies: bool,
    pub failed: AtomicBool,
}

impl Failing {
    /// Fails at this step; `dies` if nothing is done from there on.
    pub fn at(step: usize, dies: bool) -> Self {
        Self { left: AtomicUsize::new(step), dies, failed: AtomicBool::new(false) }
    }

    fn fails(&self) -> bool {
        // Several files may be made at once: every step counts once, and one of them fails.
        let counted = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if counted.is_err() {
            return !self.failed.swap(true, Ordering::Relaxed) || self.dies;
        }
        false
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for Failing {
    fn change(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.fails() { Err(full()) } else { work() }
    }

    fn write(&self, _path: &Path, bytes: &[u8], work: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.fails() {
            // As a full disk does it: some of it is there.
            if !self.dies {
                work(&bytes[..bytes.len() / 2])?;
            }
            return Err(full());
        }
        work(bytes)
    }

    fn sync(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.fails() { Err(full()) } else { work() }
    }
}
