//! The report for people.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::{Report, again, place, shown};
use crate::event::{Event, Finished};
use crate::oracle::postgres::NOT_ASKED;
use crate::verdict::{Level, Summary, Verdict};

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// How many cases that are skipped for the same reason are named. Other reports name them all.
const SKIPS_SHOWN: usize = 3;

/// Writes a line for each case, more for one that does not pass, and a summary. Passing steps of a sweep are only counted, and so are
/// most cases of many that are skipped for one reason.
///
/// Colours are always written: `out` is to remove them where they are not wanted.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    clients: Vec<String>,
    /// Whether a failed `should` fails the run.
    strict: bool,
    /// Verdicts by case without its step, then by client. `None` stands for skipped.
    matrix: BTreeMap<String, BTreeMap<String, Option<Verdict>>>,
    /// Passing steps by case and client.
    steps: BTreeMap<(String, String), usize>,
    /// How many cases run at a time.
    jobs: usize,
    /// How many cases ran in process, and how long they took together.
    in_memory: (u32, Duration),
    /// How many cases were skipped, by the reason.
    skipped: BTreeMap<String, usize>,
    /// How often PostgreSQL could not be asked, by the reason.
    not_asked: BTreeMap<String, usize>,
}

impl<W: Write> Terminal<W> {
    /// A report that is written to `out` as the run goes.
    pub fn new(out: W, strict: bool) -> Self {
        Self {
            out,
            clients: Vec::new(),
            strict,
            matrix: BTreeMap::new(),
            steps: BTreeMap::new(),
            jobs: 1,
            in_memory: (0, Duration::ZERO),
            skipped: BTreeMap::new(),
            not_asked: BTreeMap::new(),
        }
    }

    /// The client's name where there are several.
    fn client(&self, client: &str) -> String {
        if self.clients.len() > 1 { format!(" ({client})") } else { String::new() }
    }

    fn finished(&mut self, finished: &Finished) -> io::Result<()> {
        let Finished { case, verdict, elapsed, .. } = finished;
        if case.client == "builtin" {
            let (count, together) = &mut self.in_memory;
            (*count, *together) = (*count + 1, *together + *elapsed);
        }
        for reason in finished.checks.iter().filter_map(|check| check.actual.strip_prefix(NOT_ASKED)) {
            *self.not_asked.entry(reason.to_owned()).or_default() += 1;
        }
        let (whole, step) = without_step(&case.id);
        let cell = self.matrix.entry(whole.to_owned()).or_default().entry(case.client.clone()).or_default();
        *cell = (*cell).max(Some(*verdict));
        if let Some(because) = &finished.known {
            let (client, style) = (self.client(&case.client), style(Some(Verdict::Weak), false));
            let time = elapsed.as_secs_f64();
            return writeln!(
                self.out,
                "{style}{:>8}{style:#} {DIM}{time:>7.3}s{DIM:#} {}{client}: {verdict}, {because}",
                "known", case.id
            );
        }
        if *verdict == Verdict::Pass && step {
            *self.steps.entry((whole.to_owned(), case.client.clone())).or_default() += 1;
            return Ok(());
        }
        let client = self.client(&case.client);
        let style = style(Some(*verdict), self.strict);
        let label = label(Some(*verdict));
        let time = elapsed.as_secs_f64();
        writeln!(self.out, "{style}{label:>8}{style:#} {DIM}{time:>7.3}s{DIM:#} {}{client}", case.id)?;
        if *verdict == Verdict::Pass { Ok(()) } else { self.details(finished, style) }
    }

    fn details(&mut self, finished: &Finished, style: Style) -> io::Result<()> {
        for check in finished.checks.iter().filter(|check| !check.ok) {
            let level = if check.level == Level::Law { "law: " } else { "" };
            let place = place(finished, check).map(|place| format!(" {DIM}{place}{DIM:#}")).unwrap_or_default();
            writeln!(self.out, "         {style}{level}{}{style:#}{place}", check.check)?;
            writeln!(self.out, "           expected {}", indented(&check.expected))?;
            writeln!(self.out, "           seen     {}", indented(&check.actual))?;
        }
        for (client, said) in finished.said.iter().filter(|(_, said)| !said.trim().is_empty()) {
            self.block(&format!("{client} said:"), said.trim_end().lines())?;
        }
        if !finished.transcript.is_empty() {
            self.block("transcript:", shown(finished).iter().map(String::as_str))?;
        }
        if let Some(kept) = &finished.kept {
            writeln!(self.out, "         kept in {}", kept.display())?;
        }
        writeln!(self.out, "         again: {}", again(&finished.case, finished.seed))
    }

    fn block<'a>(&mut self, title: &str, lines: impl Iterator<Item = &'a str>) -> io::Result<()> {
        writeln!(self.out, "         {title}")?;
        for line in lines {
            writeln!(self.out, "           {DIM}{}{DIM:#}", visible(line))?;
        }
        Ok(())
    }

    fn summary(&mut self, summary: Summary, elapsed: Duration, cancelled: bool) -> io::Result<()> {
        for ((case, client), steps) in std::mem::take(&mut self.steps) {
            let client = self.client(&client);
            let style = style(Some(Verdict::Pass), self.strict);
            let label = label(Some(Verdict::Pass));
            let noun = if steps == 1 { "step" } else { "steps" };
            writeln!(self.out, "{style}{label:>8}{style:#} {case}{client}: {steps} {noun}")?;
        }
        for (reason, count) in std::mem::take(&mut self.skipped) {
            if let Some(more @ 1..) = count.checked_sub(SKIPS_SHOWN) {
                let noun = if more == 1 { "case" } else { "cases" };
                writeln!(self.out, "{DIM}{:>8}{DIM:#} {more} more {noun}: {reason}", label(None))?;
            }
        }
        for (reason, count) in std::mem::take(&mut self.not_asked) {
            let noun = if count == 1 { "backup" } else { "backups" };
            writeln!(self.out, "PostgreSQL was not asked about {count} {noun}: {reason}")?;
        }
        if self.clients.len() > 1 {
            self.matrix()?;
        }
        if cancelled {
            writeln!(self.out, "{BOLD}cancelled{BOLD:#}: the other cases did not run")?;
        }
        let counts: Vec<String> = Verdict::ALL
            .into_iter()
            .filter(|verdict| summary.of(*verdict) > 0)
            .map(|verdict| {
                let style = style(Some(verdict), self.strict);
                format!("{style}{} {}{style:#}", summary.of(verdict), counted(verdict))
            })
            .chain((summary.skipped > 0).then(|| format!("{} skipped", summary.skipped)))
            .chain((summary.known > 0).then(|| format!("{} of them known", summary.known)))
            .collect();
        let counts = if counts.is_empty() { "nothing ran".to_owned() } else { counts.join(", ") };
        let noun = if summary.total == 1 { "case" } else { "cases" };
        let time = elapsed.as_secs_f64();
        let ran = u32::try_from(summary.total - summary.skipped).unwrap_or(u32::MAX);
        let rate = rate(ran, elapsed, 1);
        let in_memory = self.in_memory();
        writeln!(
            self.out,
            "{BOLD}{} {noun}{BOLD:#}: {counts} in {time:.2} s ({rate:.1} cases/s{in_memory})",
            summary.total
        )
    }

    /// How fast cases ran in process, of which several run at a time: nothing for a run in which there were others only.
    fn in_memory(&self) -> String {
        let (count, together) = self.in_memory;
        // The last cases run alone, but one case cannot have run beside itself.
        let jobs = self.jobs.min(usize::try_from(count).unwrap_or(usize::MAX));
        if count == 0 { String::new() } else { format!("; in memory {:.1}", rate(count, together, jobs)) }
    }

    /// Cases by clients.
    fn matrix(&mut self) -> io::Result<()> {
        let width = self.matrix.keys().map(|id| id.chars().count()).max().unwrap_or(0);
        write!(self.out, "\n{:width$}", "")?;
        for client in &self.clients {
            write!(self.out, "  {BOLD}{client}{BOLD:#}{:1$}", "", column(client) - client.chars().count())?;
        }
        writeln!(self.out)?;
        for (id, verdicts) in &self.matrix {
            let mut gap = width - id.chars().count();
            write!(self.out, "{id}")?;
            for client in &self.clients {
                let verdict = verdicts.get(client);
                let word = verdict.map_or("-", |verdict| label(*verdict));
                let style = verdict.map_or(Style::new(), |verdict| style(*verdict, self.strict));
                write!(self.out, "{:gap$}  {style}{word}{style:#}", "")?;
                gap = column(client) - word.len();
            }
            writeln!(self.out)?;
        }
        writeln!(self.out)
    }
}

/// Cases a second, if `jobs` of them ran at a time and `count` took `together`.
fn rate(count: u32, together: Duration, jobs: usize) -> f64 {
    let time = together.as_secs_f64() / f64::from(u32::try_from(jobs).unwrap_or(u32::MAX));
    if time > 0.0 { f64::from(count) / time } else { 0.0 }
}

/// The width of a client's column: its name or the longest verdict.
fn column(client: &str) -> usize {
    client.chars().count().max("CORRUPT".len())
}

impl<W: Write> Report for Terminal<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted { cases, clients, server, jobs } => {
                self.clients.clone_from(clients);
                self.jobs = *jobs;
                let noun = if *cases == 1 { "case" } else { "cases" };
                // Without clients nothing runs: what others left is judged.
                if clients.is_empty() {
                    return writeln!(self.out, "{cases} {noun} to judge");
                }
                writeln!(self.out, "{cases} {noun}, {} against {server}", clients.join(", "))
            }
            Event::CaseFinished(finished) => self.finished(finished),
            Event::Skipped { case, reason } => {
                let row = self.matrix.entry(without_step(&case.id).0.to_owned()).or_default();
                row.entry(case.client.clone()).or_insert(None);
                let count = self.skipped.entry(reason.clone()).or_default();
                *count += 1;
                if *count > SKIPS_SHOWN {
                    return Ok(());
                }
                let client = self.client(&case.client);
                writeln!(self.out, "{DIM}{:>8}{DIM:#} {}{client}: {reason}", label(None), case.id)
            }
            Event::Blessed { path, .. } => writeln!(self.out, "{BOLD}{:>8}{BOLD:#} {}", "blessed", path.display()),
            Event::RunFinished { summary, elapsed, cancelled } => {
                self.summary(*summary, *elapsed, *cancelled)?;
                self.out.flush()
            }
            Event::CasesFound { .. } | Event::CaseStarted(_) | Event::Progress { .. } => Ok(()),
        }
    }
}

/// The id without the step of a sweep, and whether there was one.
fn without_step(id: &str) -> (&str, bool) {
    let step = id.strip_suffix(']').and_then(|id| id.rsplit_once('['));
    match step {
        Some((whole, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => (whole, true),
        _ => (id, false),
    }
}

fn label(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        None => "skip",
        Some(Verdict::Pass) => "pass",
        Some(Verdict::Weak) => "weak",
        Some(Verdict::Fail) => "FAIL",
        Some(Verdict::SilentCorruption) => "CORRUPT",
        Some(Verdict::Hang) => "HANG",
        Some(Verdict::Escape) => "ESCAPE",
        Some(Verdict::Crash) => "CRASH",
    }
}

fn counted(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passed",
        Verdict::Weak => "weak",
        Verdict::Fail => "failed",
        Verdict::SilentCorruption => "silent corruption",
        Verdict::Hang => "hung",
        Verdict::Escape => "escaped",
        Verdict::Crash => "crashed",
    }
}

fn style(verdict: Option<Verdict>, strict: bool) -> Style {
    match verdict {
        None => DIM,
        Some(Verdict::Pass) => AnsiColor::Green.on_default(),
        Some(verdict) if !verdict.is_failure(strict) => AnsiColor::Yellow.on_default(),
        Some(_) => AnsiColor::Red.on_default().bold(),
    }
}

/// Later lines of a value below its first.
fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(visible).collect();
    lines.join("\n                    ")
}

/// What a client printed must not steer the terminal of whoever reads about it.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c }).collect()
}
