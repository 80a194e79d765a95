//! `parallelbackup`: a base backup with SQL.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_protocol::lsn::Lsn;
use clap::{ArgAction, Parser};

use super::basebackup::values::{self, Checkpoint, Waiting};
use super::connection::{ConnectionArguments, Server};
use super::gauge::Gauge;
use super::output::tell;
use super::report::Report;
use super::signals::Stop;
use super::{Invocation, getopt};
use crate::clock::SystemClock;
use crate::error::ClientError;
use crate::options::{Deadlines, SyncMethod, UnmappedTablespace, WalMethod};
use crate::parallel::{
    DEFAULT_DELAY, MAX_JOBS, ParallelOptions, ParallelSummary, fetch_files, follow_wal, ordinary, parallel_backup,
};
use crate::start_up::cancel_backup;

/// The longest that telling the server to stop may take.
const CANCELLATION: Duration = Duration::from_secs(3);

/// The longest list of files that is read, in bytes.
const MAX_LIST: u64 = 1 << 30;

/// What a person should know, below the options.
const MORE: &str = "\
DSN is a connection string, as \"host=localhost dbname=postgres\" or postgresql://localhost/postgres.
The role needs to be a superuser, or to be allowed to run the functions that start and stop backups,
pg_ls_dir, pg_stat_file and pg_read_binary_file. Without -x the WAL of the backup has to come from an
archive. WAL is not held back on the server while -x fetches it: the pause has to be shorter than it
takes to recycle a segment (wal_keep_size). Links outside of pg_tblspc are followed.

With -S nothing is started or stopped, and DEST may hold what others fetch meanwhile: -S --stdin
fetches the listed files and nothing else; -S -x follows the WAL from the last checkpoint on into
pg_wal of DEST until it is interrupted. Without -S, the files of --stdin are fetched first, and then
all others.

With -I every file is read, to know the LSNs of its pages. What is not the main part of a logged
relation is kept in any case. \"backstop-client recover\" puts the backup together with the one before.

Examples:
  {program} -x -j 4 -P \"host=localhost user=postgres\" /var/backups/monday
  {program} -S -x \"host=localhost user=postgres\" /var/backups/wal";

#[derive(Debug, Parser)]
#[command(next_help_heading = "Options controlling the output", after_help = MORE)]
struct Arguments {
    /// include required WAL files, fetched again and again as they change
    #[arg(short = 'x', long = "pg_xlog", alias = "pg_wal")]
    pg_xlog: bool,
    /// pause between two looks at the WAL, see -x (default: 2)
    #[arg(short = 'D', long, value_name = "SECONDS", value_parser = delay)]
    delay: Option<Duration>,
    /// remove what is in the destination, if it is a backup
    #[arg(short = 'f', long)]
    force: bool,
    /// take an incremental backup: leave out files whose pages are all older than LSN, the start of the backup before
    #[arg(short = 'I', long, value_name = "LSN", value_parser = lsn)]
    incremental_from_lsn: Option<Lsn>,
    /// relocate tablespace in OLDDIR to NEWDIR
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = values::tablespace_mapping)]
    tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// refuse tablespaces that no mapping names, instead of using the server's own location
    #[arg(long)]
    refuse_unmapped_tablespaces: bool,

    /// set fast or spread (default) checkpointing
    #[arg(short = 'c', long, help_heading = GENERAL, value_name = "fast|spread", default_value = "spread", hide_default_value = true, value_parser = values::checkpoint)]
    checkpoint: Checkpoint,
    /// show debug information, SQL included
    #[arg(short = 'd', long, help_heading = GENERAL)]
    debug: bool,
    /// use this many connections to fetch files (default: 1)
    #[arg(short = 'j', long, help_heading = GENERAL, value_name = "NUM", default_value = "1", hide_default_value = true, value_parser = jobs)]
    jobs: NonZero<usize>,
    /// set backup label
    #[arg(short = 'l', long, help_heading = GENERAL, value_name = "LABEL", default_value = "parallelbackup", hide_default_value = true)]
    label: String,
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long, help_heading = GENERAL)]
    no_sync: bool,
    /// show progress information: a bar on a terminal, lines elsewhere
    #[arg(short = 'P', long, help_heading = GENERAL)]
    progress: bool,
    /// run as a helper of a backup that somebody else starts and stops
    #[arg(short = 'S', long, help_heading = GENERAL)]
    slave: bool,
    /// read a list of files to fetch from standard input: paths below the data directory, one a line
    #[arg(long, help_heading = GENERAL)]
    stdin: bool,
    /// set method for syncing files to disk: fsync (default), syncfs
    #[arg(long, help_heading = GENERAL, value_name = "METHOD", value_parser = values::sync_method)]
    sync_method: Option<SyncMethod>,
    /// output verbose messages
    #[arg(short = 'v', long, help_heading = GENERAL, action = ArgAction::Count)]
    verbose: u8,
    /// fetch files as they are, even if a language of the server can compress them
    #[arg(long, help_heading = GENERAL)]
    no_compress: bool,
    /// do not verify checksums
    #[arg(long, help_heading = GENERAL)]
    no_verify_checksums: bool,
    /// fail if a phase does not go on for so long: connect, checkpoint, data, finish
    #[arg(long, help_heading = GENERAL, value_name = "PHASE=SECONDS", value_parser = values::deadline)]
    deadline: Vec<(Waiting, Duration)>,

    /// never prompt for password
    #[arg(short = 'w', long, help_heading = "Connection options", overrides_with = "password")]
    no_password: bool,
    /// force password prompt (should happen automatically)
    #[arg(short = 'W', long, help_heading = "Connection options", overrides_with = "no_password")]
    password: bool,

    #[arg(hide = true)]
    operands: Vec<String>,
}

const GENERAL: &str = "General options";

/// `-I`: a position.
fn lsn(text: &str) -> Result<Lsn, String> {
    let lsn: Option<Lsn> = text.trim().parse().ok();
    let problem = || format!("invalid write-ahead log location \"{text}\" for option -I/--incremental-from-lsn");
    lsn.filter(|lsn| !lsn.is_invalid()).ok_or_else(problem)
}

/// `-D`: seconds, perhaps with a fraction.
fn delay(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.trim().parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let problem = || format!("-D/--delay must be in range 0..86400: \"{text}\"");
    seconds.map(Duration::from_secs_f64).ok_or_else(problem)
}

fn jobs(text: &str) -> Result<NonZero<usize>, String> {
    let number: Option<NonZero<usize>> = text.trim().parse().ok();
    let problem = || format!("-j/--jobs must be in range 1..{MAX_JOBS}: \"{text}\"");
    number.filter(|number| number.get() <= MAX_JOBS).ok_or_else(problem)
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Backup,
    Fetch,
    Follow,
}

impl Arguments {
    /// What it is about, and with which server and which directory.
    fn check(&self) -> Result<(Task, &str, &str), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        let (dsn, destination) = match &*self.operands {
            [] => return refuse("no connection string and no destination specified"),
            [_] => return refuse("no destination specified"),
            [dsn, destination] => (dsn, destination),
            [_, _, third, ..] => {
                return Err(format!("too many command-line arguments (first is \"{third}\")"));
            }
        };
        if self.delay.is_some() && !self.pg_xlog {
            return refuse("-D/--delay needs -x/--pg_xlog");
        }
        let task = match (self.slave, self.pg_xlog, self.stdin) {
            (false, _, _) => Task::Backup,
            (true, true, false) => Task::Follow,
            (true, false, true) => Task::Fetch,
            (true, _, _) => return refuse("-S/--slave needs one of -x/--pg_xlog and --stdin"),
        };
        if self.slave && self.incremental_from_lsn.is_some() {
            return refuse("-S/--slave and -I/--incremental-from-lsn are incompatible options");
        }
        if self.slave && self.force {
            return refuse("-S/--slave and -f/--force are incompatible options");
        }
        Ok((task, dsn, destination))
    }

    fn options(&self, server: &Server, destination: &str, first: Vec<Vec<u8>>) -> ParallelOptions {
        let mut login = server.login.clone();
        // Not the name that stands in for one on a replication connection.
        if server.conninfo.get("dbname").is_none() {
            login.database.clone_from(&login.user);
        }
        let mut deadlines = Deadlines::default();
        for (phase, limit) in &self.deadline {
            *phase.place(&mut deadlines) = Some(*limit);
        }
        ParallelOptions {
            login: ordinary(login),
            force: self.force,
            label: self.label.clone(),
            fast_checkpoint: self.checkpoint.fast,
            wal: self.pg_xlog.then(|| self.delay.unwrap_or(DEFAULT_DELAY)),
            jobs: self.jobs,
            first,
            incremental_from: self.incremental_from_lsn,
            compress: !self.no_compress,
            verify_checksums: !self.no_verify_checksums,
            tablespace_mapping: self.tablespace_mapping.clone(),
            unmapped_tablespaces: if self.refuse_unmapped_tablespaces {
                UnmappedTablespace::Refuse
            } else {
                UnmappedTablespace::ServerLocation
            },
            sync: !self.no_sync,
            sync_method: self.sync_method.unwrap_or_default(),
            deadlines,
            clock: Arc::new(SystemClock),
            ..ParallelOptions::new(&server.login.user, destination)
        }
    }

    fn report(&self, invocation: &Invocation, destination: &str) -> Report {
        Report {
            program: invocation.program.clone(),
            verbose: self.verbose > 0 || self.debug,
            debug: self.debug,
            wal: if self.pg_xlog { WalMethod::Fetch } else { WalMethod::None },
            manifest: false,
            directory: Some(destination.into()),
            archives: None,
            gauge: Mutex::new(Gauge::new(self.progress)),
            remains: Mutex::default(),
        }
    }
}

/// Takes a backup, or helps with one.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.check() {
        Ok((task, dsn, destination)) => {
            work(invocation, &arguments, task, dsn, destination).unwrap_or_else(|problem| invocation.error(problem))
        }
        Err(problem) => invocation.usage_error(problem),
    }
}

fn work(
    invocation: &Invocation,
    arguments: &Arguments,
    task: Task,
    dsn: &str,
    destination: &str,
) -> Result<ExitCode, String> {
    let text = |error: io::Error| error.to_string();
    let connection = ConnectionArguments::of(dsn, arguments.no_password, arguments.password);
    let mut server = Server::new(invocation, &connection)?;
    let list = if arguments.stdin { names(io::stdin().lock())? } else { Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    loop {
        let report = Arc::new(arguments.report(invocation, destination));
        let options = arguments.options(&server, destination, list.clone());
        match runtime.block_on(attempt(task, &server, &options, Arc::clone(&report))) {
            Ok(summary) => {
                // How much was left out is what an incremental backup is judged by.
                if arguments.verbose > 0 || arguments.debug || arguments.incremental_from_lsn.is_some() {
                    tell(format_args!("{}: {summary}", invocation.program));
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) if server.ask_after(&error).map_err(text)? => {}
            Err(error) => {
                report.failed(&error.to_string());
                if error.lacks_privilege() {
                    tell(format_args!("{}: hint: {PRIVILEGES}", invocation.program));
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

const PRIVILEGES: &str = "The role needs to be a superuser, or to be granted EXECUTE on the functions that start and stop \
    backups, pg_ls_dir, pg_stat_file and pg_read_binary_file.";

/// The lines of a list of files.
fn names(mut input: impl BufRead) -> Result<Vec<Vec<u8>>, String> {
    let mut text = Vec::new();
    let read = input.by_ref().take(MAX_LIST + 1).read_to_end(&mut text);
    read.map_err(|error| format!("could not read the list of files from standard input: {error}"))?;
    if text.len() as u64 > MAX_LIST {
        return Err("the list of files on standard input is too long".to_owned());
    }
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.map(|line| line.strip_prefix(b"./").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// One try. What was done, for a person.
async fn attempt(
    task: Task,
    server: &Server,
    options: &ParallelOptions,
    report: Arc<Report>,
) -> Result<String, ClientError> {
    let handlers = |error| ClientError::Refused(format!("could not set up signal handlers: {error}"));
    let mut stop = Stop::listen().map_err(handlers)?;
    let mut stopped = Box::pin(async move { stop.heard().await });
    let connector = &*server.connector;
    match task {
        Task::Backup => {
            let signaled = AtomicBool::new(false);
            let canceled = async {
                let name = stopped.await;
                signaled.store(true, Ordering::Relaxed);
                name
            };
            let backup = parallel_backup(connector, options, report, canceled).await;
            if signaled.load(Ordering::Relaxed) {
                // A server that makes its checkpoint would not notice for long that nobody is there.
                let _ = tokio::time::timeout(CANCELLATION, cancel_backup(connector, &options.login)).await;
            }
            backup.map(|summary| describe(&summary, options.incremental_from))
        }
        Task::Fetch => {
            let fetched = tokio::select! {
                fetched = fetch_files(connector, options, &options.first, report) => fetched?,
                name = &mut stopped => return Err(ClientError::Refused(format!("canceled by {name} signal"))),
            };
            let (files, bytes, gone) = (fetched.files, fetched.bytes, fetched.gone);
            Ok(format!("fetched {files} files, {bytes} bytes; {gone} files are not there"))
        }
        Task::Follow => {
            let enough = async {
                stopped.await;
            };
            let followed = follow_wal(connector, options, report, enough).await?;
            let end = followed.end.map(|end| format!(", valid to {end}")).unwrap_or_default();
            Ok(format!("fetched {} bytes of write-ahead log, kept {} segments{end}", followed.bytes, followed.segments))
        }
    }
}

fn describe(summary: &ParallelSummary, since: Option<Lsn>) -> String {
    let ParallelSummary { files, bytes, gone, wal_segments, wal_bytes, .. } = summary;
    let wal = match wal_segments {
        0 => String::new(),
        _ => format!("; {wal_segments} WAL segments of {wal_bytes} bytes fetched"),
    };
    let gone = if *gone > 0 { format!("; {gone} files were gone before they were read") } else { String::new() };
    let left_out = since.map(|since| {
        let (files, bytes) = (summary.left_out, summary.left_out_bytes);
        format!("; left out {files} files, {bytes} bytes, that have not changed since {since}")
    });
    format!("fetched {files} files, {bytes} bytes{}{wal}{gone}", left_out.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str) -> Result<Task, String> {
        let arguments: Arguments = getopt::read(words)?;
        arguments.check().map(|(task, _, _)| task)
    }

    #[test]
    fn options_have_all_their_spellings() {
        for words in [
            "dsn dest",
            "-x -D 0.5 -j4 -f -v -d dsn dest",
            "--pg_xlog --delay=2 --jobs 8 --force --verbose --debug dsn dest",
            "dsn dest --stdin -T /a=/b -c fast -l label -N -P --no-compress",
            "-w --deadline data=5 --sync-method=syncfs dsn dest",
        ] {
            assert_eq!(check(words), Ok(Task::Backup), "{words}");
        }
        assert_eq!(check("-S -x dsn dest"), Ok(Task::Follow));
        assert_eq!(check("--slave --stdin dsn dest"), Ok(Task::Fetch));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = [
            "",
            "dsn",
            "dsn dest more",
            "-D 3 dsn dest",
            "-S dsn dest",
            "-S -x --stdin dsn dest",
            "-S --stdin -f dsn dest",
            "-I 0/zz dsn dest",
            "-S -x -I 0/1 dsn dest",
            "-x -D -1 dsn dest",
            "-x -D soon dsn dest",
            "-j 0 dsn dest",
            "-j 1000 dsn dest",
        ];
        insta::assert_snapshot!(refused.map(|words| check(words).expect_err(words)).join("\n"));
    }

    #[test]
    fn lists_are_lines() {
        let list = names(&b"base/1/1259\r\n\n./PG_VERSION\nlast"[..]).expect("a list");
        assert_eq!(list, [&b"base/1/1259"[..], b"PG_VERSION", b"last"]);
    }
}
