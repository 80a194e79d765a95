//! The JSON report.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::Report;
use crate::event::{CaseRef, Event};
use crate::verdict::{Check, Summary};

/// Writes one JSON document at the end of the run:
///
/// ```text
/// {"schema": 1,
///  "summary": {"total", "passed", "weak", "failed", "silent_corruption", "hung", "escaped", "crashed", "skipped", "seconds"},
///  "cases": [{"id", "client", "server", "verdict", "checks": [{"check", "expected", "actual", "ok"}], "seconds"}]}
/// ```
///
/// Verdicts are those of [`Verdict::name`](crate::verdict::Verdict::name), or `skipped`; then the only check says why. Cases
/// stand in the order of their ids and clients, however they ran.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    cases: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    summary: SummaryEntry,
    cases: &'a [Entry],
}

#[derive(Debug, Serialize)]
struct SummaryEntry {
    total: usize,
    passed: usize,
    weak: usize,
    failed: usize,
    silent_corruption: usize,
    hung: usize,
    escaped: usize,
    crashed: usize,
    skipped: usize,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Entry {
    id: String,
    client: String,
    server: String,
    verdict: &'static str,
    checks: Vec<CheckEntry>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct CheckEntry {
    check: String,
    expected: String,
    actual: String,
    ok: bool,
}

impl From<&Check> for CheckEntry {
    fn from(check: &Check) -> Self {
        Self {
            check: check.check.clone(),
            expected: check.expected.clone(),
            actual: check.actual.clone(),
            ok: check.ok,
        }
    }
}

/// Seconds, to the microsecond.
fn seconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e6
}

impl<W: Write> Json<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, cases: Vec::new() }
    }

    fn push(&mut self, case: &CaseRef, verdict: &'static str, checks: Vec<CheckEntry>, elapsed: Duration) {
        self.cases.push(Entry {
            id: case.id.clone(),
            client: case.client.clone(),
            server: case.server.clone(),
            verdict,
            checks,
            seconds: seconds(elapsed),
        });
    }

    fn write(&mut self, summary: Summary, elapsed: Duration) -> io::Result<()> {
        let Summary { total, passed, weak, failed, silent_corruption, hung, escaped, crashed, skipped, .. } = summary;
        let seconds = seconds(elapsed);
        let summary =
            SummaryEntry { total, passed, weak, failed, silent_corruption, hung, escaped, crashed, skipped, seconds };
        self.cases.sort_by(|one, other| (&one.id, &one.client).cmp(&(&other.id, &other.client)));
        let document = Document { schema: 1, summary, cases: &self.cases };
        serde_json::to_writer_pretty(&mut self.out, &document)?;
        writeln!(self.out)?;
        self.out.flush()
    }
}

impl<W: Write> Report for Json<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::CaseFinished(finished) => {
                let checks = finished.checks.iter().map(CheckEntry::from).collect();
                self.push(&finished.case, finished.verdict.name(), checks, finished.elapsed);
                Ok(())
            }
            Event::Skipped { case, reason } => {
                let actual = reason.clone();
                let check = CheckEntry { check: "skipped".to_owned(), expected: String::new(), actual, ok: true };
                self.push(case, "skipped", vec![check], Duration::ZERO);
                Ok(())
            }
            Event::RunFinished { summary, elapsed, .. } => self.write(*summary, *elapsed),
            _ => Ok(()),
        }
    }
}
