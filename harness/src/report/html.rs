//! The HTML report: one page that needs nothing but a browser.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use backstop_mock::transcript::Direction;
use serde::Serialize;

use super::{Report, again, place};
use crate::event::{CaseRef, Event, Finished, is_fault};
use crate::verdict::{Check, Level, Summary, Verdict};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// Writes one page at the end of the run: the matrix of cases and clients, and for each case that does not pass what was
/// required and seen, what the clients said, and a timeline with a lane for each connection, the position of WAL, and the
/// faults. Style, script and data stand in the page itself; it fetches nothing.
#[derive(Debug)]
pub struct Html<W> {
    out: W,
    run: Run,
}

/// What the page's script reads. The names are those that the script uses.
#[derive(Debug, Default, Serialize)]
struct Run {
    clients: Vec<String>,
    server: String,
    seconds: f64,
    cancelled: bool,
    counts: BTreeMap<&'static str, usize>,
    cases: Vec<Entry>,
}

#[derive(Debug, Default, Serialize)]
struct Entry {
    id: String,
    client: String,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

impl Entry {
    fn of(case: &CaseRef) -> Self {
        Self { id: case.id.clone(), client: case.client.clone(), ..Self::default() }
    }
}

/// What there is to say about a case that does not pass.
#[derive(Debug, Serialize)]
struct Details {
    place: String,
    seconds: f64,
    again: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    checks: Vec<Requirement>,
    said: Vec<(String, String)>,
    sessions: Vec<u32>,
    messages: Vec<Message>,
}

#[derive(Debug, Serialize)]
struct Requirement {
    check: String,
    expected: String,
    actual: String,
    ok: bool,
    law: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// A line of the transcript.
#[derive(Debug, Serialize)]
struct Message {
    /// Microseconds since the server's first connection.
    at: u64,
    session: u32,
    /// `sent`, `received`, `fault` or `note`.
    kind: &'static str,
    name: &'static str,
    detail: String,
    count: u64,
    bytes: u64,
}

impl Requirement {
    fn of(finished: &Finished, check: &Check) -> Self {
        Self {
            place: place(finished, check),
            check: check.check.clone(),
            expected: check.expected.clone(),
            actual: check.actual.clone(),
            ok: check.ok,
            law: check.level == Level::Law,
        }
    }
}

impl From<&Finished> for Details {
    fn from(finished: &Finished) -> Self {
        let messages = finished.transcript.iter().map(|event| Message {
            at: event.at,
            session: event.session,
            kind: match event.direction {
                Direction::Sent => "sent",
                Direction::Received => "received",
                Direction::Note if is_fault(event) => "fault",
                Direction::Note => "note",
            },
            name: event.message,
            detail: event.detail.clone(),
            count: event.count,
            bytes: event.bytes,
        });
        let sessions: BTreeSet<u32> = finished.transcript.iter().map(|event| event.session).collect();
        Self {
            place: format!("{}:{}", finished.case.path.display(), finished.line.unwrap_or(1)),
            seconds: finished.elapsed.as_secs_f64(),
            again: again(&finished.case, finished.seed),
            kept: finished.kept.as_ref().map(|kept| kept.display().to_string()),
            checks: finished.checks.iter().map(|check| Requirement::of(finished, check)).collect(),
            said: finished.said.clone(),
            sessions: sessions.into_iter().collect(),
            messages: messages.collect(),
        }
    }
}

impl<W: Write> Html<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, run: Run::default() }
    }

    fn write(&mut self, summary: Summary, elapsed: Duration, cancelled: bool) -> io::Result<()> {
        let run = &mut self.run;
        (run.seconds, run.cancelled) = (elapsed.as_secs_f64(), cancelled);
        run.counts = Verdict::ALL.into_iter().map(|verdict| (verdict.name(), summary.of(verdict))).collect();
        run.counts.insert("skipped", summary.skipped);
        run.cases.sort_by(|one, other| (&one.id, &one.client).cmp(&(&other.id, &other.client)));
        // Inside a script element, only `</script` and `<!--` mean anything to a browser; JSON can spell `<` otherwise.
        let data = serde_json::to_string(run)?.replace('<', "\\u003c");
        for part in PAGE.split('@') {
            let text = match part {
                "STYLE" => STYLE,
                "SCRIPT" => SCRIPT,
                "DATA" => &data,
                text => text,
            };
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }
}

impl<W: Write> Report for Html<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted { clients, server, .. } => {
                self.run.clients.clone_from(clients);
                self.run.server.clone_from(server);
                Ok(())
            }
            Event::CaseFinished(finished) => {
                let details = (finished.verdict != Verdict::Pass).then(|| Details::from(&**finished));
                let (verdict, known) = (finished.verdict.name(), finished.known.clone());
                self.run.cases.push(Entry { verdict, known, details, ..Entry::of(&finished.case) });
                Ok(())
            }
            Event::Skipped { case, reason } => {
                let reason = Some(reason.clone());
                self.run.cases.push(Entry { verdict: "skipped", reason, ..Entry::of(case) });
                Ok(())
            }
            Event::RunFinished { summary, elapsed, cancelled } => self.write(*summary, *elapsed, *cancelled),
            Event::CasesFound { .. } | Event::Blessed { .. } | Event::CaseStarted(_) | Event::Progress { .. } => Ok(()),
        }
    }
}
