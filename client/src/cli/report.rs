//! What a person sees on standard error, in `pg_basebackup`'s words.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::backend::Diagnostic;

use super::gauge::Gauge;
use super::remains::Remains;
use crate::observer::{Observer, Phase, Progress};
use crate::options::WalMethod;

/// The width of the file name in the progress line.
const FILE_NAME_WIDTH: usize = 35;

/// Prints what happens.
pub(super) struct Report {
    pub(super) program: String,
    pub(super) verbose: bool,
    /// Whether SQL is shown.
    pub(super) debug: bool,
    pub(super) wal: WalMethod,
    pub(super) manifest: bool,
    /// Where plain files go; none in tar format.
    pub(super) directory: Option<PathBuf>,
    /// Where archives go; none in plain format, and if they go elsewhere.
    pub(super) archives: Option<PathBuf>,
    pub(super) gauge: Mutex<Gauge>,
    /// Told after the error.
    pub(super) remains: Mutex<Vec<Remains>>,
}

impl Report {
    fn gauge(&self) -> MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        self.gauge().say(&format!("{}: {text}", self.program));
    }

    fn tell(&self, text: &str) {
        if self.verbose {
            self.say(text);
        }
    }

    fn remember(&self, remains: Remains) {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner).push(remains);
    }

    fn settle(&self, text: String) {
        self.remember(Remains::Settled(text));
    }

    /// Tells why the backup failed, and what happened to its remains.
    pub(super) fn failed(&self, problem: &str) {
        self.gauge().abandon();
        self.say(&format!("error: {problem}"));
        let remains = std::mem::take(&mut *self.remains.lock().unwrap_or_else(PoisonError::into_inner));
        for text in remains.iter().flat_map(Remains::lines) {
            self.say(&text);
        }
    }
}

/// The progress line, without its end.
fn progress_line(progress: &Progress, file: Option<&str>, verbose: bool) -> String {
    let done = progress.done / 1024;
    let estimate = progress.total.unwrap_or(0) / 1024;
    let percent = if estimate == 0 { 0 } else { (u128::from(done) * 100 / u128::from(estimate)).min(100) };
    let total = estimate.max(done).to_string();
    let count = progress.tablespaces;
    let current = if progress.finished { count } else { (progress.tablespaces_done + 1).min(count) };
    let plural = if count == 1 { "" } else { "s" };
    let width = total.len();
    match (verbose, file) {
        (false, _) => format!("{done:>width$}/{total} kB ({percent}%), {current}/{count} tablespace{plural}"),
        (true, None) => {
            let blank = FILE_NAME_WIDTH + 5;
            format!("{done:>width$}/{total} kB (100%), {current}/{count} tablespace{plural} {:blank$}", "")
        }
        (true, Some(file)) => {
            let length = file.chars().count();
            let shown = if length > FILE_NAME_WIDTH {
                let end: String = file.chars().skip(length - FILE_NAME_WIDTH + 3).collect();
                format!("...{end}")
            } else {
                format!("{file:FILE_NAME_WIDTH$}")
            };
            format!("{done:>width$}/{total} kB ({percent}%), {current}/{count} tablespace{plural} ({shown})")
        }
    }
}

impl Observer for Report {
    fn notice(&self, notice: &Diagnostic) {
        self.gauge().say(&notice.to_string());
    }

    fn warning(&self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    fn detail(&self, text: &str) {
        self.tell(text);
    }

    fn statement(&self, session: &str, sql: &str) {
        if self.debug {
            self.say(&format!("{session}: {sql}"));
        }
    }

    fn progress(&self, progress: &Progress) {
        let mut gauge = self.gauge();
        let verbose = self.verbose && !gauge.is_bar();
        gauge.show(progress.done, progress.total.unwrap_or(0), progress.finished, || {
            let file = match (&self.directory, &progress.member, &self.archives) {
                _ if progress.finished => None,
                (Some(directory), Some(member), _) => Some(directory.join(member).display().to_string()),
                (_, _, Some(archives)) => Some(archives.join(&progress.archive).display().to_string()),
                _ => Some(progress.archive.clone()),
            };
            progress_line(progress, file.as_deref(), verbose)
        });
    }

    fn phase(&self, phase: &Phase) {
        match phase {
            Phase::WaitingForCheckpoint => {
                self.tell("initiating base backup, waiting for checkpoint to complete");
                if !self.verbose {
                    self.gauge().wait("waiting for checkpoint");
                }
            }
            Phase::CheckpointCompleted { start, timeline } => {
                self.tell("checkpoint completed");
                if self.wal != WalMethod::None {
                    self.tell(&format!("write-ahead log start point: {start} on timeline {timeline}"));
                }
            }
            Phase::StartingWalReceiver => self.tell("starting background WAL receiver"),
            Phase::CreatedSlot { name, temporary: true } => {
                self.tell(&format!("created temporary replication slot \"{name}\""));
            }
            Phase::CreatedSlot { name, temporary: false } => {
                self.tell(&format!("created replication slot \"{name}\""));
            }
            Phase::EndPosition { end } if self.wal != WalMethod::None => {
                self.tell(&format!("write-ahead log end point: {end}"));
            }
            Phase::LeftOut { files, bytes, since } => {
                let kilobytes = bytes / 1024;
                self.tell(&format!("left out {files} files ({kilobytes} kB) that have not changed since {since}"));
            }
            Phase::WaitingForWal => self.tell("waiting for background process to finish streaming ..."),
            Phase::WalReceiverFailed => self.say("error: background process terminated unexpectedly"),
            Phase::Syncing => self.tell("syncing data to disk ..."),
            Phase::Publishing if self.manifest => self.tell("renaming backup_manifest.tmp to backup_manifest"),
            Phase::Completed => self.tell("base backup completed"),
            Phase::Removing { directory, contents_only } => {
                self.remember(Remains::removed("data directory", directory, *contents_only));
            }
            Phase::NotRemoving { directory } => {
                self.settle(format!("data directory \"{}\" not removed at user's request", directory.display()));
            }
            Phase::DroppedSlot { name } => self.settle(format!("dropped replication slot \"{name}\"")),
            Phase::SlotRemains { name, problem } => self.settle(format!(
                "replication slot \"{name}\" was created and could not be dropped, so that the server keeps WAL for it: {problem}"
            )),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, total: Option<u64>) -> Progress {
        Progress {
            done: done * 1024,
            total: total.map(|kilobytes| kilobytes * 1024),
            tablespaces_done: 0,
            tablespaces: 1,
            archive: "base.tar".into(),
            member: Some("base/1/1259".into()),
            finished: false,
        }
    }

    #[test]
    fn counts_as_pg_basebackup_does() {
        insta::assert_snapshot!(progress_line(&progress(123, Some(22938)), None, false), @"  123/22938 kB (0%), 1/1 tablespace");
        insta::assert_snapshot!(progress_line(&progress(30000, Some(22938)), None, false), @"30000/30000 kB (100%), 1/1 tablespace");
        insta::assert_snapshot!(progress_line(&progress(5, None), None, false), @"5/5 kB (0%), 1/1 tablespace");
    }

    #[test]
    fn shows_the_end_of_long_names() {
        let name = "a/rather/long/directory/name/base/16384/1259";
        let line = progress_line(&progress(1, Some(2)), Some(name), true);
        insta::assert_snapshot!(line, @"1/2 kB (50%), 1/1 tablespace (...g/directory/name/base/16384/1259)");
        let line = progress_line(&progress(1, Some(2)), Some("base.tar"), true);
        insta::assert_snapshot!(line, @"1/2 kB (50%), 1/1 tablespace (base.tar                           )");
    }
}
