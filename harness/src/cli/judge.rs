//! `backstop judge`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::Failure;
use super::run::Readers;
use crate::event::{CaseRef, Event, Finished};
use crate::oracle::{self, alone, postgres};
use crate::record::saved::{self, SavedError};
use crate::report::ReportSpec;
use crate::scenario::locate;
use crate::verdict::{Check, Summary, Verdict};

const EXAMPLE: &str = "\
Examples:
  backstop judge kept                              every case that `run --keep kept` left there
  backstop judge kept/tar/tar-empty-archive        one of them
  backstop judge /srv/backups/monday               a backup, plain or in tar format, by itself
  backstop judge --start /srv/backups/monday       the same, and whether PostgreSQL starts on a copy of it

A backup by itself has to agree with itself: manifest and files, backup_label, the control file and WAL up to the backup's \
end. Exit status: as of `run`; 100 for a backup that is refused.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct JudgeArgs {
    /// What `run --keep` left, as a whole or in part, or directories that hold a backup each
    #[arg(value_name = "RECORD|DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Start PostgreSQL on a copy of each backup, if its release is installed
    #[arg(long)]
    start: bool,
    /// Let a failed `should` fail the run
    #[arg(long)]
    strict: bool,
    /// Write a report: junit=PATH, json=PATH, tap=PATH or html=PATH, where - is standard output; may be repeated
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    reports: Vec<ReportSpec>,
}

/// What is to be judged.
enum Task {
    /// A record, by its file.
    Record(PathBuf),
    /// A directory without one.
    Backup(PathBuf),
}

pub(super) fn run(args: &JudgeArgs) -> Result<u8, Failure> {
    let mut tasks = Vec::new();
    for path in &args.paths {
        find(path, &mut tasks)?;
    }
    let began = Instant::now();
    let to_standard_output = args.reports.iter().filter(|report| report.path.is_none()).count();
    if to_standard_output > 1 {
        return Err(Failure::Usage("only one report can go to standard output".to_owned()));
    }
    let mut readers = Readers::open(&args.reports, args.strict, to_standard_output > 0)?;
    let mut summary = Summary::default();
    readers.event(&Event::RunStarted { cases: tasks.len(), clients: Vec::new(), server: String::new(), jobs: 1 });
    for task in tasks {
        let finished = match task {
            Task::Record(path) => record(&path, args.start)?,
            Task::Backup(path) => backup(&path, args.start),
        };
        summary.count(finished.verdict);
        readers.event(&Event::CaseStarted(finished.case.clone()));
        readers.event(&Event::CaseFinished(Box::new(finished)));
    }
    readers.event(&Event::RunFinished { summary, elapsed: began.elapsed(), cancelled: false });
    readers.finish()?;
    Ok(summary.worst().exit_code(args.strict))
}

/// A record, all records below a directory, or a directory without any.
fn find(path: &Path, tasks: &mut Vec<Task>) -> Result<(), Failure> {
    let environment = |error: std::io::Error| Failure::Environment(format!("{}: {error}", path.display()));
    if path.metadata().map_err(environment)?.is_file() {
        tasks.push(Task::Record(path.to_path_buf()));
        return Ok(());
    }
    let before = tasks.len();
    let mut walk = walkdir::WalkDir::new(path).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| Failure::Environment(error.to_string()))?;
        let file = entry.path().join(saved::FILE_NAME);
        if entry.file_type().is_dir() && file.is_file() {
            tasks.push(Task::Record(file));
            walk.skip_current_dir();
        }
    }
    if tasks.len() == before {
        tasks.push(Task::Backup(path.to_path_buf()));
    }
    Ok(())
}

fn record(path: &Path, start: bool) -> Result<Finished, Failure> {
    let began = Instant::now();
    let loaded = saved::load(path).map_err(|error| match error {
        SavedError::File { .. } => Failure::Environment(error.to_string()),
        SavedError::Content { .. } => Failure::Usage(error.to_string()),
    })?;
    let saved::Loaded { case, client, seed, record } = loaded;
    let (mut verdict, mut checks) = oracle::judge(&case, &record);
    if start {
        verdict = verdict.max(postgres::ask(&case, &record, true, &mut checks));
    }
    let failed = checks.iter().find(|check| !check.ok);
    let line = failed.map(|check| locate::line_of(&case.path, &check.check));
    let said = record.clients.iter().map(|client| (client.name.clone(), client.said.clone()));
    Ok(Finished {
        case: CaseRef { id: case.id, client, server: "mock".to_owned(), path: case.path },
        verdict,
        known: None,
        checks,
        elapsed: began.elapsed(),
        seed,
        transcript: Vec::new(),
        line,
        lines: BTreeMap::new(),
        said: if verdict == Verdict::Pass { Vec::new() } else { said.collect() },
        kept: path.parent().map(Path::to_path_buf),
    })
}

fn backup(path: &Path, start: bool) -> Finished {
    let began = Instant::now();
    let (version, mut verdict, mut checks) = alone::judge(path);
    if let Some(version) = version.filter(|_| start) {
        let answer = postgres::start_copy(version, path);
        let check: Check = answer.check("PostgreSQL starts on it".to_owned(), "consistent recovery state reached");
        if !check.ok {
            verdict = verdict.max(Verdict::Fail);
        }
        checks.push(check);
    }
    let id = path.display().to_string();
    Finished {
        case: CaseRef { id, client: String::new(), server: String::new(), path: path.to_path_buf() },
        verdict,
        known: None,
        checks,
        elapsed: began.elapsed(),
        seed: 0,
        transcript: Vec::new(),
        line: None,
        lines: BTreeMap::new(),
        said: Vec::new(),
        kept: None,
    }
}
