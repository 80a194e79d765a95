//! What the runner says while it runs. Every report is a reader of these events and of nothing else.
//!
//! The order: one [`Event::RunStarted`]; for every case either [`Event::Skipped`], or [`Event::CaseStarted`], any number of
//! [`Event::Progress`] and one [`Event::CaseFinished`], cases interleaved as jobs allow; at the end, also of a cancelled
//! run, one [`Event::RunFinished`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use backstop_mock::transcript;

use crate::verdict::{Check, Summary, Verdict};

/// Which case, against what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseRef {
    /// The case: `crash/mid-tablespace[server.version=15]`.
    pub id: String,
    /// The client as on the command line: `builtin`, `pg_basebackup`, `exec=…`.
    pub client: String,
    /// The server as on the command line: `mock`.
    pub server: String,
    /// The scenario file, as it was found.
    pub path: PathBuf,
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Which case.
    pub case: CaseRef,
    /// What it amounts to.
    pub verdict: Verdict,
    /// Why this verdict is known and does not count, if a file of known faults lists it.
    pub known: Option<String>,
    /// Every requirement, those that hold included.
    pub checks: Vec<Check>,
    /// Real time that the case took.
    pub elapsed: Duration,
    /// The seed that the case ran with.
    pub seed: u64,
    /// The transcript around the first fault that fired, or its end if none did. Empty for a pass.
    pub transcript: Vec<transcript::Event>,
    /// The line of the scenario file, from 1, that says what the first failed requirement asks for. Requirements of the
    /// built-in law stand in no file: they have the first line. Nothing for a pass.
    pub line: Option<usize>,
    /// The lines of the scenario file that say what failed requirements ask for, by requirement; the law stands in no file.
    pub lines: BTreeMap<String, usize>,
    /// What the clients printed, by client name. Empty for a pass.
    pub said: Vec<(String, String)>,
    /// Where the files of the case were kept, if they were.
    pub kept: Option<PathBuf>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Cases times clients, as far as is known: a sweep finds its cases while it runs.
        cases: usize,
        /// The clients, in the order of the command line.
        clients: Vec<String>,
        /// The server.
        server: String,
        /// How many cases run at a time.
        jobs: usize,
    },
    /// A recording run of a sweep found this many cases in place of the one that stood for them.
    CasesFound {
        /// The case that stood for the sweep.
        case: CaseRef,
        /// How many cases it becomes.
        cases: usize,
    },
    /// A case begins.
    CaseStarted(CaseRef),
    /// A case goes on.
    Progress {
        /// Which case.
        case: CaseRef,
        /// What it does now: `recording`, `judging`.
        phase: String,
    },
    /// A case ended.
    CaseFinished(Box<Finished>),
    /// The golden transcript of a case was written.
    Blessed {
        /// Which case.
        case: CaseRef,
        /// The transcript.
        path: PathBuf,
    },
    /// A case that this client or this server cannot run.
    Skipped {
        /// Which case.
        case: CaseRef,
        /// Why, for people: `pg_basebackup has no incremental backups before 17`.
        reason: String,
    },
    /// The run is over.
    RunFinished {
        /// How many cases came out how.
        summary: Summary,
        /// Real time that the run took.
        elapsed: Duration,
        /// Whether the run was cancelled, so that the cases without an event did not run.
        cancelled: bool,
    },
}

/// The part of a transcript around the first fault that fired, or its end if none did: at most `limit` events.
pub fn around_the_fault(events: &[transcript::Event], limit: usize) -> &[transcript::Event] {
    events.get(range_around_the_fault(events, limit)).unwrap_or_default()
}

/// Where in a transcript that part stands.
pub fn range_around_the_fault(events: &[transcript::Event], limit: usize) -> Range<usize> {
    let fault = events.iter().position(is_fault).unwrap_or(events.len());
    let from = fault.saturating_sub(limit / 2).min(events.len().saturating_sub(limit));
    from..from.saturating_add(limit).min(events.len())
}

/// Whether this is a fault that fired.
pub fn is_fault(event: &transcript::Event) -> bool {
    event.direction == transcript::Direction::Note && event.message == "fault"
}
