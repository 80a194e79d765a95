//! `recover`: a full backup out of one and the incremental ones by LSN that build on it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use super::basebackup::values;
use super::remains::Remains;
use super::{Invocation, getopt, output, signals};
use crate::options::SyncMethod;
use crate::recover::{RecoverObserver, RecoverOptions, Recovered, recover};

const MORE: &str = "\
BASE is a full backup, each INCREMENTAL one that was taken with --incremental-from-lsn from the
start of the backup before it, all in plain format. DESTINATION must not exist. It becomes a full
backup: a server starts on it, and further incremental backups can build on it.

A file that was left out must have, where it is found, the very LSN that the profile says. Nothing
is left after an error.

Example:
  {program} sunday monday tuesday restored";

#[derive(Debug, Parser)]
#[command(next_help_heading = "Options", after_help = MORE)]
struct Arguments {
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long)]
    no_sync: bool,
    /// show progress information: a bar on a terminal, lines elsewhere
    #[arg(short = 'P', long)]
    progress: bool,
    /// set method for syncing files to disk: fsync (default), syncfs
    #[arg(long, value_name = "METHOD", value_parser = values::sync_method)]
    sync_method: Option<SyncMethod>,
    /// relocate tablespace in OLDDIR, where it is in the last backup, to NEWDIR
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = values::tablespace_mapping)]
    tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// tell what was taken from where
    #[arg(short = 'v', long)]
    verbose: bool,
    #[arg(hide = true)]
    operands: Vec<PathBuf>,
}

/// Puts a backup together.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let (inputs, output) = match &arguments.operands[..] {
        [] => return invocation.usage_error("no base backup specified"),
        [_] => return invocation.usage_error("no incremental backup specified"),
        [_, _] => return invocation.usage_error("no destination specified"),
        [inputs @ .., output] => (inputs, output),
    };
    let options = RecoverOptions {
        tablespace_mapping: arguments.tablespace_mapping.clone(),
        sync: (!arguments.no_sync).then(|| arguments.sync_method.unwrap_or_default()),
        ..RecoverOptions::new(inputs, output)
    };
    let mut report =
        Report { program: invocation.program(), progress: arguments.progress, shown: None, remains: Vec::new() };
    match signals::until_signal(&options.cancel, || recover(&options, &mut report)) {
        Ok(Recovered { sent, found, bytes }) => {
            if arguments.verbose {
                let kilobytes = bytes / 1024;
                let text = format!("{sent} files of the last backup, {found} of backups before, {kilobytes} kB");
                report.say(&text);
            }
            ExitCode::SUCCESS
        }
        Err(error) => invocation.failed(error, &report.remains),
    }
}

/// Prints what happens.
struct Report<'a> {
    program: &'a str,
    progress: bool,
    /// When progress was shown last.
    shown: Option<Instant>,
    /// Told after the error.
    remains: Vec<Remains>,
}

impl Report<'_> {
    fn say(&self, text: &str) {
        output::tell(format_args!("{}: {text}", self.program));
    }
}

impl RecoverObserver for Report<'_> {
    fn warning(&mut self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    fn progress(&mut self, done: u64, total: u64) {
        let finished = done == total;
        let recent = self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_secs(1));
        if !self.progress || (recent && !finished) {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
        let end = if finished || !std::io::stderr().is_terminal() { '\n' } else { '\r' };
        output::put(format_args!("{}/{} kB ({percent}%){end}", done / 1024, total / 1024));
    }

    fn removing(&mut self, directory: &Path, contents_only: bool) {
        self.remains.push(Remains::removed("output directory", directory, contents_only));
    }
}
