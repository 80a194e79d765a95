//! Reports: readers of the runner's events, and of nothing else.

mod github;
mod html;
mod json;
mod junit;
mod tap;
mod terminal;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

pub use self::github::Github;
pub use self::html::Html;
pub use self::json::Json;
pub use self::junit::Junit;
pub use self::tap::Tap;
pub use self::terminal::Terminal;
use crate::event::{CaseRef, Event, Finished, range_around_the_fault};
use crate::verdict::Check;

/// How many lines of a transcript a text shows: around the fault, and at the end.
const SHOWN_AROUND: usize = 20;
const SHOWN_END: usize = 6;

/// A reader of the events of one run.
pub trait Report {
    /// Takes the next event. What is written, and when, is up to the report.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

/// The formats of reports that go to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As JUnit writes it.
    Junit,
    /// Of our own.
    Json,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// One page for a browser.
    Html,
    /// Annotations for GitHub Actions, on the lines of the scenario files.
    Github,
}

impl Format {
    const ALL: [Self; 5] = [Self::Junit, Self::Json, Self::Tap, Self::Html, Self::Github];

    fn name(self) -> &'static str {
        match self {
            Self::Junit => "junit",
            Self::Json => "json",
            Self::Tap => "tap",
            Self::Html => "html",
            Self::Github => "github",
        }
    }
}

/// A report and where it goes: `junit=PATH`, `json=-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSpec {
    /// The format.
    pub format: Format,
    /// The file; nothing stands for standard output.
    pub path: Option<PathBuf>,
}

/// A text that names no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid report {0:?}: expected junit=PATH, json=PATH, tap=PATH, html=PATH or github=PATH, with - for standard output"
)]
pub struct InvalidReport(String);

impl FromStr for ReportSpec {
    type Err = InvalidReport;

    fn from_str(text: &str) -> Result<Self, InvalidReport> {
        let refuse = || InvalidReport(text.to_owned());
        let (format, path) = text.split_once('=').ok_or_else(refuse)?;
        let format = Format::ALL.into_iter().find(|known| known.name() == format).ok_or_else(refuse)?;
        match path {
            "" => Err(refuse()),
            "-" => Ok(Self { format, path: None }),
            path => Ok(Self { format, path: Some(path.into()) }),
        }
    }
}

impl fmt::Display for ReportSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.name();
        match &self.path {
            Some(path) => write!(f, "{format}={}", path.display()),
            None => write!(f, "{format}=-"),
        }
    }
}

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write report {report}: {source}")]
pub struct ReportError {
    report: ReportSpec,
    source: io::Error,
}

impl ReportSpec {
    /// The report, its file created so that a wrong path is known before the run.
    pub fn open(&self) -> Result<Box<dyn Report>, ReportError> {
        let out: Box<dyn Write> = match &self.path {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(File::create(path).map_err(|source| self.error(source))?),
        };
        Ok(match self.format {
            Format::Junit => Box::new(Junit::new(out)),
            Format::Json => Box::new(Json::new(out)),
            Format::Tap => Box::new(Tap::new(out)),
            Format::Html => Box::new(Html::new(out)),
            Format::Github => Box::new(Github::new(out)),
        })
    }

    /// Why the report could not be written.
    pub fn error(&self, source: io::Error) -> ReportError {
        ReportError { report: self.clone(), source }
    }
}

/// The lines of a transcript around the fault and at the end, few enough to be read in a text.
fn shown(finished: &Finished) -> Vec<String> {
    let events = finished.transcript.as_slice();
    let around = range_around_the_fault(events, SHOWN_AROUND);
    let end = events.len().saturating_sub(SHOWN_END).max(around.end);
    let left_out = |count: usize| (count > 0).then(|| format!("          … {count} more …"));
    let lines = |range: Range<usize>| events.get(range).unwrap_or_default().iter().map(ToString::to_string);
    left_out(around.start)
        .into_iter()
        .chain(lines(around.clone()))
        .chain(left_out(end - around.end))
        .chain(lines(end..events.len()))
        .collect()
}

/// Where the scenario file asks for what a check is about: `scenarios/x.toml:9`. Nothing for the law.
fn place(finished: &Finished, check: &Check) -> Option<String> {
    finished.lines.get(&check.check).map(|line| format!("{}:{line}", finished.case.path.display()))
}

/// The requirements that do not hold, a line each.
fn failures(finished: &Finished) -> Vec<String> {
    let failed = finished.checks.iter().filter(|check| !check.ok);
    let told = |check: &Check| {
        let place = place(finished, check).map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}: expected {}, was {}", check.check, check.expected, check.actual)
    };
    failed.map(told).collect()
}

/// The command that runs one case again, for a shell.
pub fn again(case: &CaseRef, seed: u64) -> String {
    // Without a client: a backup by itself.
    if case.client.is_empty() {
        return format!("backstop judge {}", quoted(&case.id));
    }
    let client = format!("--client {}", quoted(&case.client));
    let server = if case.server == "mock" { String::new() } else { format!(" --server {}", quoted(&case.server)) };
    format!("backstop run {} {client}{server} --seed {seed}", quoted(&case.id))
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '=' | ',' | ':');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
