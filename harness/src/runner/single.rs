//! Cases by themselves, outside a run.

use std::sync::Arc;

use tokio::sync::watch;

use super::{RunError, Scratch, case_directory, execute, settle, sweep};
use crate::arena::{self, Arena};
#[cfg(feature = "mutants")]
use crate::oracle;
use crate::plan::SubjectSpec;
use crate::record::Record;
use crate::scenario::Case;
use crate::subject::Subject;
#[cfg(feature = "mutants")]
use crate::verdict::Verdict;

/// Runs one case once and returns what it left, without judging it. Nothing of it stays on disk.
///
/// # Errors
/// As [`run`](super::run).
pub fn record(case: &Case, client: &SubjectSpec, seed: Option<u64>) -> Result<Record, RunError> {
    let case = settle(case.clone())?;
    let subject = Subject::prepare(client).map_err(RunError::NoClient)?;
    let directory = case_directory::CaseDirectory::make(&case, &Scratch::default(), None)?;
    let (_, cancel) = watch::channel(false);
    execute(&case, &subject, &Arena::Mock, &directory, seed.unwrap_or_else(|| arena::seed(&case)), &cancel)
}

/// Runs one case of the built-in client on the servers of `arena`, without judging it. Nothing of it stays on disk.
///
/// # Errors
/// As [`run`](super::run).
pub fn played(
    case: &Case,
    arena: &Arena,
    scratch: &Scratch,
    cancel: &watch::Receiver<bool>,
) -> Result<Record, RunError> {
    let subject = Subject::Builtin(backstop_client::Weakness::NONE);
    let directory = case_directory::CaseDirectory::make(case, scratch, None)?;
    execute(case, &subject, arena, &directory, arena::seed(case), cancel)
}

/// The cases of a sweep, counted in a run of the built-in client. Nothing, if that cannot run it; none, if there are none.
///
/// # Errors
/// As [`run`](super::run).
pub fn steps(case: &Case) -> Result<Option<Vec<Case>>, RunError> {
    let case = settle(case.clone())?;
    let subject = Arc::new(Subject::Builtin(backstop_client::Weakness::NONE));
    if subject.cannot_run(&case).is_some() {
        return Ok(None);
    }
    let (_, cancel) = watch::channel(false);
    Ok(Some(match sweep::expand(&case, &subject, arena::seed(&case), &Scratch::default(), &cancel)? {
        sweep::Found::Steps(steps) => steps,
        sweep::Found::Nothing(..) => Vec::new(),
    }))
}

/// Runs one case, or every step of a sweep, against the built-in client with `weakness` and judges it, until `heard` has heard
/// enough. Cases that this client cannot run are passed over.
///
/// # Errors
/// As [`run`](super::run).
#[cfg(feature = "mutants")]
pub fn judge_builtin(
    case: &Case,
    weakness: backstop_client::Weakness,
    heard: &mut dyn FnMut(&Case, Verdict, &[crate::verdict::Check]) -> bool,
) -> Result<(), RunError> {
    let case = settle(case.clone())?;
    let subject = Arc::new(Subject::Builtin(weakness));
    if subject.cannot_run(&case).is_some() {
        return Ok(());
    }
    let (_, cancel) = watch::channel(false);
    let seed = arena::seed(&case);
    let cases = if case.is_unswept() {
        match sweep::expand(&case, &subject, seed, &Scratch::default(), &cancel)? {
            sweep::Found::Steps(steps) => steps,
            sweep::Found::Nothing(check, _) => {
                heard(&case, Verdict::Fail, &[check]);
                return Ok(());
            }
        }
    } else {
        vec![case]
    };
    for case in cases {
        let directory = case_directory::CaseDirectory::make(&case, &Scratch::default(), None)?;
        let record = execute(&case, &subject, &Arena::Mock, &directory, seed, &cancel)?;
        let (verdict, checks) = oracle::judge(&case, &record);
        if !heard(&case, verdict, &checks) {
            break;
        }
    }
    Ok(())
}
