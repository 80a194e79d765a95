//! Cases that fail before anything could be judged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Job, KEPT_TRANSCRIPT, Shared, lock, reference, send};
use crate::event::{Event, Finished, around_the_fault};
use crate::record::Record;
use crate::scenario::locate;
use crate::verdict::{Check, Level, Verdict};

/// A sweep that would try nothing fails: it must not pass for one that tried everything.
pub(super) fn nothing_to_sweep(
    shared: &Shared,
    job: &Job,
    check: Check,
    record: &Record,
    seed: u64,
    elapsed: Duration,
) {
    send(&shared.events, Event::CaseStarted(reference(shared, job)));
    failed(shared, job, check, Some(record), seed, elapsed);
}

/// Tells of a case that was started and fails by one check, with what was said if it came to that.
fn failed(shared: &Shared, job: &Job, check: Check, record: Option<&Record>, seed: u64, elapsed: Duration) {
    let verdict = Verdict::Fail;
    lock(&shared.summary).count(verdict);
    let case = reference(shared, job);
    let clients = record.map(|record| record.clients.as_slice()).unwrap_or_default();
    let finished = Finished {
        case,
        verdict,
        known: None,
        line: Some(locate::line_of(&job.case.path, &check.check)),
        lines: BTreeMap::new(),
        checks: vec![check],
        elapsed,
        seed,
        transcript: record
            .map(|record| around_the_fault(&record.transcript, KEPT_TRANSCRIPT).to_vec())
            .unwrap_or_default(),
        said: clients.iter().map(|client| (client.name.clone(), client.said.clone())).collect(),
        kept: None,
    };
    send(&shared.events, Event::CaseFinished(Box::new(finished)));
}

/// A case whose server cannot be put up fails: that it says nothing of the client must not pass for a pass.
pub(super) fn not_put_up(shared: &Shared, job: &Job, problem: String, seed: u64, elapsed: Duration) {
    let check = Check {
        check: "the server is put up as the scenario says".to_owned(),
        expected: "a server".to_owned(),
        actual: problem,
        ok: false,
        level: Level::Law,
    };
    failed(shared, job, check, None, seed, elapsed);
}
