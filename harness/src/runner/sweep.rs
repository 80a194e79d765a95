//! Sweeps: one scenario, one case for each point at which its fault can strike.

use std::sync::Arc;

use tokio::sync::watch;

use super::{RunError, case_directory::CaseDirectory, execute};
use crate::scenario::Case;
use crate::scenario::sweep;
use crate::subject::Subject;

/// Whether this case stands for all steps of its sweep.
pub(super) fn stands_for_many(case: &Case) -> bool {
    case.step.is_none() && case.scenario.sweep.is_some()
}

/// The cases of a sweep: the story is run once without its sweeping fault, and its messages are counted.
pub(super) fn expand(
    case: &Case,
    subject: &Arc<Subject>,
    seed: u64,
    cancel: &watch::Receiver<bool>,
) -> Result<Vec<Case>, RunError> {
    let recording = sweep::recording(case);
    let directory = CaseDirectory::make(&recording, None)?;
    let record = execute(&recording, subject, &directory, seed, cancel)?;
    Ok(sweep::steps(case, &record.message_counts))
}
