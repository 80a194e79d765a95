//! Sweeps: one scenario, one case for each point at which its fault can strike.

use std::sync::Arc;

use tokio::sync::watch;

use super::{RunError, Scratch, case_directory::CaseDirectory, execute};
use crate::arena::Arena;
use crate::record::Record;
use crate::scenario::Case;
use crate::scenario::sweep;
use crate::subject::Subject;
use crate::verdict::{Check, Level};

/// What a recording run came to.
pub(super) enum Found {
    /// The cases of the sweep.
    Steps(Vec<Case>),
    /// None: what was required, and the run that did not have it.
    Nothing(Check, Box<Record>),
}

/// The cases of a sweep: the story is run once without its sweeping fault, and what its sessions are sent is counted.
pub(super) fn expand(
    case: &Case,
    subject: &Arc<Subject>,
    seed: u64,
    scratch: &Scratch,
    cancel: &watch::Receiver<bool>,
) -> Result<Found, RunError> {
    let recording = sweep::recording(case);
    let directory = CaseDirectory::make(&recording, scratch, None)?;
    let record = execute(&recording, subject, &Arena::Mock, &directory, seed, cancel)?;
    Ok(match sweep::steps(case, &record.session_counts) {
        Ok(steps) => Found::Steps(steps),
        Err(problem) => {
            let check = Check {
                check: "a sweep has steps".to_owned(),
                expected: format!("1 to {}", sweep::MAX_STEPS),
                actual: problem.to_string(),
                ok: false,
                level: Level::Law,
            };
            Found::Nothing(check, Box::new(record))
        }
    })
}
