//! Running cases: several at a time, each in a world of its own, and every one judged from what it left.
//!
//! The built-in client runs in process, over memory, on a paused clock: such a run is a function of the case and its seed,
//! and waits cost nothing. A command runs as a process and speaks TCP; its waits are real.

mod case_directory;
mod cast;
mod command;
mod conformance;
mod failed;
mod in_process;
mod queue;
mod real;
mod replayed;
mod scratch;
mod single;
mod sweep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc::UnboundedSender, watch};

use self::failed::{not_put_up, nothing_to_sweep};
use self::queue::Queue;
pub use self::scratch::Scratch;
#[cfg(feature = "mutants")]
pub use self::single::judge_builtin;
pub use self::single::{played, record, steps};
use crate::arena::{self, Arena, ArenaOptions};
use crate::event::around_the_fault;
use crate::event::{CaseRef, Event, Finished};
use crate::golden::{self, Bless, Compared};
use crate::known::KnownFaults;
use crate::oracle;
use crate::plan::{RunPlan, ServerSpec, SubjectSpec};
use crate::record::{ClientRecord, Ending, Record};
use crate::scenario::{Case, locate};
use crate::subject::Subject;
use crate::verdict::{Check, Summary, Verdict};

/// How long a server may take to notice that its clients have gone.
const SETTLING: Duration = Duration::from_secs(2);

/// How many events of a transcript go to the reports.
const KEPT_TRANSCRIPT: usize = 1000;

/// Why nothing, or nothing more, could run: the environment's fault, not a client's.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client under test does not exist or does not start.
    #[error("{0}")]
    NoClient(String),
    /// The server does not exist.
    #[error("{0}")]
    NoServer(String),
    /// A worker died: a mistake in the harness itself.
    #[error("a worker ended early: {0}")]
    Worker(String),
    /// A directory for the cases cannot be made.
    #[error("could not prepare a directory for case {case}: {source}")]
    Directory {
        /// The case.
        case: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A golden transcript cannot be read or written.
    #[error("the golden transcript of case {case}: {source}")]
    Golden {
        /// The case.
        case: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// What was to be kept of a case cannot be written.
    #[error("could not keep the record of case {case}: {source}")]
    Record {
        /// The case.
        case: String,
        /// What is wrong.
        source: crate::record::saved::SavedError,
    },
    /// The server cannot be set up as the scenario says.
    #[error("case {case}: {problem}")]
    Setup {
        /// The case.
        case: String,
        /// What is wrong.
        problem: String,
    },
    /// The run was cancelled while a server was put up.
    #[error("cancelled")]
    Cancelled,
}

/// One case against one client.
#[derive(Clone, Debug)]
struct Job {
    case: Case,
    subject: Arc<Subject>,
}

/// What the workers share.
struct Shared {
    known: KnownFaults,
    queue: Queue<Job>,
    summary: Mutex<Summary>,
    failure: Mutex<Option<RunError>>,
    events: UnboundedSender<Event>,
    cancel: watch::Receiver<bool>,
    seed: Option<u64>,
    keep: Option<PathBuf>,
    transcripts: Option<PathBuf>,
    scratch: Scratch,
    capture: bool,
    bless: Bless,
    ask_postgres: bool,
    arena: Arena,
    server: ServerSpec,
}

/// Runs every case of `plan` against every client, telling `events` what happens, until all ended or `cancel` says so.
///
/// # Errors
/// The environment: a client that is not there, a directory that cannot be made. What clients do is never an error.
pub async fn run(plan: RunPlan, events: UnboundedSender<Event>, cancel: watch::Receiver<bool>) -> Result<(), RunError> {
    let began = Instant::now();
    let subjects = plan.clients.iter().map(|spec| Subject::prepare(spec).map(Arc::new));
    let subjects = subjects.collect::<Result<Vec<_>, _>>().map_err(RunError::NoClient)?;
    let options = ArenaOptions { scratch: plan.scratch.as_deref(), allow_writes: plan.allow_writes };
    let arena = Arena::prepare(&plan.server, options).await.map_err(RunError::NoServer)?;
    let cases = plan.cases.into_iter().map(settle).collect::<Result<Vec<_>, _>>()?;
    let clients = plan.clients.iter().map(SubjectSpec::to_string).collect();
    let jobs = plan.jobs.max(1);
    send(
        &events,
        Event::RunStarted { cases: cases.len() * subjects.len(), clients, server: plan.server.to_string(), jobs },
    );
    let queue = cases
        .iter()
        .flat_map(|case| subjects.iter().map(|subject| Job { case: case.clone(), subject: Arc::clone(subject) }));
    let scratch = Scratch::new(plan.scratch, jobs);
    // Without a shell only what a killed run leaves stays.
    let _survivor = scratch.survivor().ok();
    let shared = Arc::new(Shared {
        known: plan.known,
        queue: Queue::new(queue),
        summary: Mutex::new(Summary::default()),
        failure: Mutex::new(None),
        events,
        cancel,
        seed: plan.seed,
        keep: plan.keep,
        transcripts: plan.transcripts,
        scratch,
        capture: plan.capture,
        bless: plan.bless,
        ask_postgres: plan.ask_postgres,
        arena,
        server: plan.server,
    });
    let workers = (0..jobs).map(|_| {
        let shared = Arc::clone(&shared);
        tokio::task::spawn_blocking(move || work(&shared))
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.map_err(|error| RunError::Worker(error.to_string()))?;
    }
    let summary = *lock(&shared.summary);
    let cancelled = *shared.cancel.borrow();
    send(&shared.events, Event::RunFinished { summary, elapsed: began.elapsed(), cancelled });
    match lock(&shared.failure).take() {
        Some(failure) => Err(failure),
        None => match shared.arena.nothing() {
            Some(problem) => Err(RunError::NoServer(problem)),
            None => Ok(()),
        },
    }
}

fn settle(case: Case) -> Result<Case, RunError> {
    let id = case.id.clone();
    arena::settle(case).map_err(|problem| RunError::Setup { case: id, problem })
}

fn work(shared: &Shared) {
    while let Some(taken) = shared.queue.take() {
        match run_job(shared, &taken.job) {
            Ok(()) | Err(RunError::Cancelled) => {}
            Err(error) => {
                lock(&shared.failure).get_or_insert(error);
                shared.queue.close();
            }
        }
        if *shared.cancel.borrow() {
            shared.queue.close();
        }
    }
}

fn run_job(shared: &Shared, job: &Job) -> Result<(), RunError> {
    let case_ref = reference(shared, job);
    if let Some(reason) = job.subject.cannot_run(&job.case).or_else(|| shared.arena.cannot_play(&job.case)) {
        lock(&shared.summary).count_skipped();
        send(&shared.events, Event::Skipped { case: case_ref, reason });
        return Ok(());
    }
    let seed = shared.seed.unwrap_or_else(|| arena::seed(&job.case));
    if job.case.is_unswept() {
        send(&shared.events, Event::Progress { case: case_ref.clone(), phase: "recording".to_owned() });
        let began = Instant::now();
        let steps = match sweep::expand(&job.case, &job.subject, seed, &shared.scratch, &shared.cancel)? {
            sweep::Found::Steps(steps) => steps,
            // What a cancelled client did says nothing about it.
            sweep::Found::Nothing(..) if *shared.cancel.borrow() => return Ok(()),
            sweep::Found::Nothing(check, record) => {
                nothing_to_sweep(shared, job, check, &record, seed, began.elapsed());
                return Ok(());
            }
        };
        send(&shared.events, Event::CasesFound { case: case_ref, cases: steps.len() });
        let subject = &job.subject;
        let found = steps.into_iter().map(|case| Job { case, subject: Arc::clone(subject) });
        shared.queue.extend(found);
        return Ok(());
    }
    send(&shared.events, Event::CaseStarted(case_ref.clone()));
    let began = Instant::now();
    let mut directory = case_directory::CaseDirectory::make(&job.case, &shared.scratch, shared.keep.as_deref())?;
    if shared.capture {
        directory.take_down()?;
    }
    let reference = match conformance::reference(shared, job, seed)? {
        conformance::Reference::NotNeeded => None,
        conformance::Reference::Plays(record) => Some(record),
        conformance::Reference::Fails(reason) => {
            lock(&shared.summary).count_skipped();
            send(&shared.events, Event::Skipped { case: case_ref, reason });
            return Ok(());
        }
    };
    let played = shared.arena.adapted(&job.case);
    let record = match execute(&played, &job.subject, &shared.arena, &directory, seed, &shared.cancel) {
        Err(RunError::Setup { problem, .. }) if shared.arena.is_real() => {
            if let Some(gone) = shared.arena.gone() {
                return Err(RunError::NoServer(gone));
            }
            not_put_up(shared, job, problem, seed, began.elapsed());
            return Ok(());
        }
        record => record?,
    };
    if *shared.cancel.borrow() {
        // What a cancelled client did says nothing about it.
        return Ok(());
    }
    let (mut verdict, mut checks) = oracle::judge(&job.case, &record);
    verdict = verdict.max(oracle::postgres::ask(&job.case, &record, shared.ask_postgres, &mut checks));
    if let Some(reference) = reference {
        let conforms = conformance::check(&played, &reference, &record);
        verdict = verdict.max(if conforms.ok { Verdict::Pass } else { Verdict::Fail });
        checks.push(conforms);
    }
    if let Some(compared) = compare(shared, job, verdict, &record)? {
        verdict = verdict.max(if compared.ok { Verdict::Pass } else { Verdict::Fail });
        checks.push(compared);
    }
    let mut known = None;
    if let Some(entry) = shared.known.about(&case_ref) {
        checks.push(entry.check(verdict));
        if entry.verdict == verdict {
            known = Some(entry.because.clone());
        } else if verdict <= Verdict::Weak {
            verdict = Verdict::Fail;
        }
    }
    match known {
        Some(_) => lock(&shared.summary).count_known(verdict),
        None => lock(&shared.summary).count(verdict),
    }
    let passed = verdict == Verdict::Pass;
    let said = record.clients.iter().map(|client| (client.name.clone(), client.said.clone()));
    let log = (!record.log.is_empty()).then(|| ("server".to_owned(), record.log.clone()));
    let said = said.chain(log);
    let failed = checks.iter().find(|check| !check.ok);
    let line = failed.map(|check| locate::line_of(&job.case.path, &check.check));
    let lines = lines(&job.case, &checks);
    let finished = Finished {
        case: case_ref,
        verdict,
        known,
        checks,
        elapsed: began.elapsed(),
        seed,
        transcript: if passed { Vec::new() } else { around_the_fault(&record.transcript, KEPT_TRANSCRIPT).to_vec() },
        line,
        lines,
        said: if passed { Vec::new() } else { said.collect() },
        kept: directory.kept(),
    };
    if shared.keep.is_some() {
        directory.write_transcript(&record.transcript)?;
        directory.write_record(&job.case, &job.subject.to_string(), seed, &record)?;
    }
    if let Some(transcripts) = &shared.transcripts {
        case_directory::write_transcript(&transcripts.join(&job.case.id), &job.case.id, &record.transcript)?;
    }
    send(&shared.events, Event::CaseFinished(Box::new(finished)));
    Ok(())
}

/// Compares what was said with the case's golden transcript, or writes that: a case that fails otherwise is not taken for an example.
fn compare(shared: &Shared, job: &Job, verdict: Verdict, record: &Record) -> Result<Option<Check>, RunError> {
    let mock = matches!(shared.arena, Arena::Mock);
    if !mock
        || !job.subject.is_sound()
        || shared.seed.is_some()
        || (shared.bless != Bless::Nothing && verdict > Verdict::Weak)
    {
        return Ok(None);
    }
    let settled = golden::settle(&job.case, &record.transcript, &shared.bless);
    match settled.map_err(|source| RunError::Golden { case: job.case.id.clone(), source })? {
        Some(Compared::Checked(check)) => Ok(Some(check)),
        Some(Compared::Written(path)) => {
            send(&shared.events, Event::Blessed { case: reference(shared, job), path });
            Ok(None)
        }
        Some(Compared::Kept) | None => Ok(None),
    }
}

/// Where the scenario file says what failed.
fn lines(case: &Case, checks: &[Check]) -> BTreeMap<String, usize> {
    let failed = checks.iter().filter(|check| !check.ok && check.check.starts_with("expect."));
    failed.map(|check| (check.check.clone(), locate::line_of(&case.path, &check.check))).collect()
}

/// Runs one case against one client.
fn execute(
    case: &Case,
    subject: &Subject,
    arena: &Arena,
    directory: &case_directory::CaseDirectory,
    seed: u64,
    cancel: &watch::Receiver<bool>,
) -> Result<Record, RunError> {
    let config = || {
        let config = arena::config(case, seed, &directory.forbidden());
        config.map_err(|problem| RunError::Setup { case: case.id.clone(), problem })
    };
    let before = directory.outside(case)?;
    let clients = |ended: Vec<Ended>| {
        let changes_outside = before.changes(&directory.outside(case)?);
        let clients = ended.into_iter().map(|ended| ClientRecord {
            target: directory.target(&ended.client),
            name: ended.client,
            ending: ended.ending,
            said: ended.said,
            elapsed: ended.elapsed,
            changes_outside: changes_outside.clone(),
        });
        Ok(clients.collect())
    };
    let mut record = match (arena, subject) {
        _ if case.scenario.server.replay.is_some() => replayed::run(case, subject, directory, cancel, clients)?,
        (Arena::Mock, Subject::Builtin(weakness)) => {
            let (server, ended) = in_process::run(case, config()?, *weakness, directory)?;
            arena::record(case, server, clients(ended)?)
        }
        (Arena::Mock, Subject::Command(tool)) => {
            let (server, ended) = command::run(case, tool, config()?, directory, cancel)?;
            arena::record(case, server, clients(ended)?)
        }
        _ => real::run(case, subject, arena, directory, cancel, clients)?,
    };
    // Where `{outside}` lies differs from run to run; the transcript is a function of the case and its seed.
    let forbidden = directory.forbidden().display().to_string();
    for event in record.transcript.iter_mut().filter(|event| event.detail.contains(&forbidden)) {
        event.detail = event.detail.replace(&forbidden, "{outside}");
    }
    Ok(record)
}

/// How a client's part of a run ended, before anybody looks at what it left.
struct Ended {
    /// Its name in the scenario.
    client: String,
    ending: Ending,
    said: String,
    elapsed: Duration,
}

fn reference(shared: &Shared, job: &Job) -> CaseRef {
    CaseRef {
        id: job.case.id.clone(),
        client: job.subject.to_string(),
        server: shared.server.to_string(),
        path: job.case.path.clone(),
    }
}

/// Nobody may be listening any more; that is not the runner's business.
fn send(events: &UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

/// Every value behind these locks is whole after every statement, so that a panic elsewhere cannot have broken it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
