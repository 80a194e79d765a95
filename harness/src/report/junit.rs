//! The JUnit report.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::{Report, again, failures, shown};
use crate::event::{CaseRef, Event, Finished};
use crate::verdict::Verdict;

/// Writes one JUnit document at the end of the run: a test suite for each client, a test case for each case. A verdict
/// that is neither a pass nor weak is a failure, a crash of the client an error, and what is known is skipped.
#[derive(Debug)]
pub struct Junit<W> {
    out: W,
    /// By client, then by id.
    cases: BTreeMap<String, BTreeMap<String, (TestCase, Duration)>>,
}

impl<W: Write> Junit<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, cases: BTreeMap::new() }
    }

    fn push(&mut self, case: &CaseRef, status: TestCaseStatus, elapsed: Duration) {
        let mut test = TestCase::new(case.id.as_str(), status);
        let area = case.id.split('[').next().and_then(|id| id.rsplit_once('/')).map_or("", |(area, _)| area);
        test.set_classname(area).set_time(elapsed);
        self.cases.entry(case.client.clone()).or_default().insert(case.id.clone(), (test, elapsed));
    }

    fn write(&mut self, elapsed: Duration) -> io::Result<()> {
        let mut document = Document::new("backstop");
        document.set_time(elapsed);
        for (client, tests) in std::mem::take(&mut self.cases) {
            let mut suite = TestSuite::new(client.as_str());
            suite.set_time(tests.values().map(|(_, elapsed)| *elapsed).sum());
            suite.add_test_cases(tests.into_values().map(|(test, _)| test));
            document.add_test_suite(suite);
        }
        document.serialize(&mut self.out).map_err(io::Error::other)?;
        self.out.flush()
    }
}

fn status(finished: &Finished) -> TestCaseStatus {
    if let Some(because) = &finished.known {
        let mut status = TestCaseStatus::skipped();
        status.set_type(finished.verdict.name()).set_message(format!("known {}: {because}", finished.verdict));
        return status;
    }
    let kind = match finished.verdict {
        Verdict::Pass | Verdict::Weak => return TestCaseStatus::success(),
        Verdict::Crash => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    };
    let failed = failures(finished);
    let mut parts = vec![failed.join("\n")];
    parts.extend(finished.said.iter().map(|(client, said)| format!("{client} said:\n{}", said.trim_end())));
    if !finished.transcript.is_empty() {
        parts.push(format!("transcript:\n{}", shown(finished).join("\n")));
    }
    parts.push(format!("again: {}", again(&finished.case, finished.seed)));
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(finished.verdict.name());
    status.set_message(failed.first().cloned().unwrap_or_else(|| finished.verdict.to_string()));
    status.set_description(parts.join("\n\n"));
    status
}

impl<W: Write> Report for Junit<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::CaseFinished(finished) => {
                self.push(&finished.case, status(finished), finished.elapsed);
                Ok(())
            }
            Event::Skipped { case, reason } => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(reason.as_str());
                self.push(case, status, Duration::ZERO);
                Ok(())
            }
            Event::RunFinished { elapsed, .. } => self.write(*elapsed),
            _ => Ok(()),
        }
    }
}
