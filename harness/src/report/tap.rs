//! The TAP report.

use std::io::{self, Write};

use super::{Report, again, failures, shown};
use crate::event::{CaseRef, Event, Finished};
use crate::verdict::Verdict;

/// Writes the Test Anything Protocol, version 14, as the run goes: a test point for each case, with a diagnostic in YAML if
/// it does not pass, and the plan at the end, since sweeps find their cases while they run.
#[derive(Debug)]
pub struct Tap<W> {
    out: W,
    points: usize,
}

impl<W: Write> Tap<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, points: 0 }
    }

    fn point(&mut self, ok: bool, case: &CaseRef, directive: &str) -> io::Result<()> {
        self.points += 1;
        let status = if ok { "ok" } else { "not ok" };
        let (id, client) = (escaped(&case.id), escaped(&case.client));
        writeln!(self.out, "{status} {} - {id} ({client}){directive}", self.points)
    }

    fn finished(&mut self, finished: &Finished) -> io::Result<()> {
        let ok = matches!(finished.verdict, Verdict::Pass | Verdict::Weak);
        if let Some(because) = &finished.known {
            return self.point(ok, &finished.case, &format!(" # TODO {}", escaped(because)));
        }
        self.point(ok, &finished.case, "")?;
        if finished.verdict == Verdict::Pass {
            return Ok(());
        }
        let out = &mut self.out;
        writeln!(out, "  ---")?;
        writeln!(out, "  verdict: {}", finished.verdict.name())?;
        if let Some(line) = finished.line {
            writeln!(out, "  at: {}", quoted(&format!("{}:{line}", finished.case.path.display())))?;
        }
        list(out, "failed", &failures(finished))?;
        for (client, said) in &finished.said {
            let lines: Vec<String> = said.lines().map(|line| format!("{client}: {line}")).collect();
            list(out, "said", &lines)?;
        }
        list(out, "transcript", &shown(finished))?;
        writeln!(out, "  again: {}", quoted(&again(&finished.case, finished.seed)))?;
        writeln!(out, "  ...")
    }
}

/// A list in YAML, if there is anything in it.
fn list(out: &mut impl Write, key: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {key}:")?;
    lines.iter().try_for_each(|line| writeln!(out, "    - {}", quoted(line)))
}

/// A description: `#` begins a directive, a line feed the next point.
fn escaped(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    text.replace('\\', r"\\").replace('#', r"\#")
}

/// A scalar of YAML in double quotes, which knows the escapes of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<W: Write> Report for Tap<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted { .. } => writeln!(self.out, "TAP version 14"),
            Event::CaseFinished(finished) => self.finished(finished),
            Event::Skipped { case, reason } => self.point(true, case, &format!(" # SKIP {}", escaped(reason))),
            Event::RunFinished { cancelled, .. } => {
                if *cancelled {
                    writeln!(self.out, "Bail out! cancelled")?;
                }
                writeln!(self.out, "1..{}", self.points)?;
                self.out.flush()
            }
            Event::CasesFound { .. } | Event::Blessed { .. } | Event::CaseStarted(_) | Event::Progress { .. } => Ok(()),
        }
    }
}
