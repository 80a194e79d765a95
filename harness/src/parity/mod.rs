//! How true the mock is: the same case on it and on a real server, and what was said compared message by message.
//!
//! Both servers are reached the same way, with the same [witness](crate::witness) before them. [`lines`] takes out what is a
//! server's own; [`compare`] lays the sessions side by side; [`explained`] knows the differences that have a reason.

mod compare;
pub mod explained;
mod lines;
pub mod report;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_protocol::wal_file::WalSegmentSize;
use tokio::sync::watch;

pub(crate) use self::compare::differences;
pub use self::compare::{Difference, Side};
use self::explained::Explanations;
use crate::arena::Arena;
use crate::runner::{RunError, Scratch, played};
use crate::scenario::Case;

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The real server cannot play it, and why.
    Skipped(String),
    /// Both were played; the differences with their reasons, if they have any.
    Played(Vec<(Difference, Option<String>)>),
}

impl Outcome {
    /// Differences without a reason.
    pub fn unexplained(&self) -> usize {
        match self {
            Self::Skipped(_) => 0,
            Self::Played(differences) => differences.iter().filter(|(_, because)| because.is_none()).count(),
        }
    }
}

/// A case, and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The case's id.
    pub id: String,
    /// What it came to.
    pub outcome: Outcome,
}

/// Plays every case on the mock and on the servers of `arena`, `jobs` at a time, tells of each as it comes, and returns all in the
/// order of the cases. A cancelled run returns what it has.
///
/// # Errors
/// The environment: a server that does not come up.
pub fn run(
    cases: &[Case],
    arena: &Arena,
    jobs: usize,
    explanations: &Explanations,
    cancel: &watch::Receiver<bool>,
    tell: &(dyn Fn(&Compared) + Sync),
) -> Result<Vec<Compared>, RunError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Compared)>> = Mutex::default();
    let failure: Mutex<Option<RunError>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                    let Some(case) = cases.get(index).filter(|_| !failed && !*cancel.borrow()) else { return };
                    match compare_case(case, arena, explanations, cancel) {
                        Ok(None) => return,
                        Ok(Some(compared)) => {
                            tell(&compared);
                            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, compared));
                        }
                        Err(error) => {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, compared)| compared).collect())
}

/// Nothing if the run was cancelled meanwhile.
fn compare_case(
    case: &Case,
    arena: &Arena,
    explanations: &Explanations,
    cancel: &watch::Receiver<bool>,
) -> Result<Option<Compared>, RunError> {
    // What a fault makes of an answer is no server's word: the tests of the proxy compare it with what the mock makes of it.
    let struck =
        case.scenario.faults.first().map(|fault| format!("do.{} is the harness's: run plays it", fault.r#do.name()));
    if let Some(reason) = arena.cannot_play(case).or(struck) {
        return Ok(Some(Compared { id: case.id.clone(), outcome: Outcome::Skipped(reason) }));
    }
    let scratch = Scratch::default();
    let adapted = arena.adapted(case);
    let mock = played(&adapted, &Arena::MockBehindProxy, &scratch, cancel)?;
    let real = match played(&adapted, arena, &scratch, cancel) {
        Ok(real) => real,
        Err(RunError::Cancelled) => return Ok(None),
        Err(RunError::Setup { problem, .. }) => {
            let difference = Difference { session: "the server".to_owned(), side: Side::Real, line: problem };
            let because = explanations.about(&case.id, &difference).map(str::to_owned);
            return Ok(Some(Compared { id: case.id.clone(), outcome: Outcome::Played(vec![(difference, because)]) }));
        }
        Err(error) => return Err(error),
    };
    if *cancel.borrow() {
        return Ok(None);
    }
    let size = WalSegmentSize::new(adapted.scenario.server.wal_segment_size.0).unwrap_or(WalSegmentSize::DEFAULT);
    let differences = compare::differences(&mock.said, &real.said, size);
    let explained = differences.into_iter().map(|difference| {
        let because = explanations.about(&case.id, &difference).map(str::to_owned);
        (difference, because)
    });
    Ok(Some(Compared { id: case.id.clone(), outcome: Outcome::Played(explained.collect()) }))
}
