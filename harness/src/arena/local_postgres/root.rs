//! The directory in which everything of one run lies: templates, data directories, sockets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::oracle::postgres::{Installation, place_for_servers};
use crate::survivor::Survivor;

/// How the names of these directories begin.
const PREFIX: &str = "backstop-servers-";

/// The file that a living harness holds locked.
const LOCK: &str = "lock";

/// The path of a socket has 107 bytes at most, `/case-12345/s/.s.PGSQL.65535` among them.
const LONGEST: usize = 75;

/// The directory, which goes with the value.
#[derive(Debug)]
pub(super) struct Root {
    directory: TempDir,
    _survivor: Survivor,
    _lock: File,
    next: AtomicU32,
}

impl Root {
    /// Makes the directory in `chosen`, or wherever there is room, after removing what killed runs have left there.
    pub(super) fn make(user: Option<(u32, u32)>, chosen: Option<&Path>) -> io::Result<Self> {
        let parent = chosen.map_or_else(place_for_servers, Path::to_owned);
        remove_orphans(&parent);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent)?;
        let length = directory.path().as_os_str().len();
        if length > LONGEST {
            let problem = format!("{} has {length} bytes, too many for sockets below it", directory.path().display());
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, problem));
        }
        let lock = File::create(directory.path().join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        if let Some((user, group)) = user {
            lchown(directory.path(), Some(user), Some(group))?;
        }
        let survivor = Survivor::removing(directory.path())?;
        Ok(Self { directory, _survivor: survivor, _lock: lock, next: AtomicU32::new(1) })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A new directory in it, which the server may use.
    pub(super) fn directory(&self, installation: &Installation, name: &str) -> io::Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let path = self.path().join(format!("{name}-{number}"));
        fs::create_dir(&path)?;
        installation.give(&path)?;
        Ok(path)
    }
}

/// Stops servers and removes directories of runs that were killed before they could: those whose lock nobody holds.
fn remove_orphans(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        // Without a lock it is being made, or removed. Somebody else's is somebody else's.
        let ours = fs::metadata(path.join(LOCK)).is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
        let free = File::open(path.join(LOCK))
            .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
        if ours && free {
            stop_servers(&path);
            // What cannot be removed now is tried again by the next run.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Kills the postmasters whose data directories lie in `root`; their children notice.
fn stop_servers(root: &Path) {
    for case in fs::read_dir(root).into_iter().flatten().flatten() {
        for data in fs::read_dir(case.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(data.path().join("postmaster.pid")).unwrap_or_default();
            let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) else { continue };
            // The number may be somebody else's by now: a server works in its data directory.
            let works_there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data.path());
            if let Some(pid) = Pid::from_raw(pid).filter(|_| works_there) {
                let _ = kill_process(pid, Signal::QUIT);
            }
        }
    }
}
