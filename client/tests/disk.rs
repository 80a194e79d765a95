//! Backups on disks that do not do what they are told. Whatever fails, a backup that did not become one leaves nothing that
//! passes for one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_client::{
    BackupOptions, BackupSummary, ClientError, Disk, Silent, SlotOption, Target, WalMethod, base_backup,
};
use backstop_protocol::version::ServerVersion;
use support::story::{LABEL, LOCATION, Peer, Plot, Story};

/// Fails at one operation, or from it on.
#[derive(Debug)]
struct Failing {
    at: usize,
    for_good: bool,
    done: AtomicUsize,
}

impl Failing {
    fn next(&self) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let fails = if self.for_good { number >= self.at } else { number == self.at };
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

impl Disk for Failing {
    fn change(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.next()?;
        work()
    }

    fn write(&self, _path: &Path, bytes: &[u8], work: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.next()?;
        work(bytes)
    }

    fn sync(&self, _path: &Path, _work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.next()
    }
}

async fn backup(root: &Path, tar: bool, disk: Arc<Failing>) -> Result<BackupSummary, ClientError> {
    let directory = root.join("data");
    let target = if tar { Target::Tar { directory } } else { Target::Plain { directory, waldir: None } };
    let mut options = BackupOptions::new("me", target);
    options.label = LABEL.into();
    options.wal = WalMethod::Stream;
    options.slot = SlotOption::None;
    if !tar {
        options.tablespace_mapping = vec![(LOCATION.into(), root.join("ts"))];
    }
    options.disk = disk;
    let story = Story::new(Plot { map: tar, ..Plot::plain(ServerVersion::V18) });
    base_backup(Arc::new(Peer::new(story)), options, Arc::new(Silent)).await
}

/// Makes one backup for each operation that a sound one needs, and lets that operation fail.
async fn fail_everywhere(tar: bool, for_good: bool, check: impl Fn(&Path, usize)) {
    for at in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let disk = Arc::new(Failing { at, for_good, done: AtomicUsize::new(0) });
        let result = backup(scratch.path(), tar, Arc::clone(&disk)).await;
        if disk.done.load(Ordering::SeqCst) <= at {
            assert!(result.is_ok() && at > 50, "{at}: {result:?}");
            return;
        }
        let error = result.expect_err("an operation failed").to_string();
        assert!(error.starts_with("could not ") && error.ends_with(": Input/output error"), "{at}: {error}");
        check(scratch.path(), at);
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_ends_the_backup_and_everything_is_removed() {
    for tar in [false, true] {
        let nothing = |root: &Path, at: usize| {
            let left: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{at}: {left:?}");
        };
        fail_everywhere(tar, false, nothing).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_disk_holds_nothing_that_passes_for_a_backup() {
    for tar in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let sound = Arc::new(Failing { at: usize::MAX, for_good: true, done: AtomicUsize::new(0) });
        backup(scratch.path(), tar, Arc::clone(&sound)).await.unwrap();
        // The very last operation forces the manifest's name to disk: then the backup is whole, though nobody can be sure.
        let last = sound.done.load(Ordering::SeqCst) - 1;
        fail_everywhere(tar, true, |root, at| {
            assert_eq!(root.join("data/backup_manifest").exists(), at == last, "{at}");
        })
        .await;
    }
}
