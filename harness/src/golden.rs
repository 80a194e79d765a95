//! Golden transcripts: what is said in a case, word by word, beside its scenario file.
//!
//! A case that has one, `tar/tar-empty-archive[server.version=18].transcript`, is compared with it whenever the built-in client runs it
//! against the mock with the case's own seed. Such a run is a function of the case; the few numbers in it that mean nothing are
//! [`redacted`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use backstop_mock::transcript::Event;
use similar::TextDiff;

use crate::scenario::load::{self, LoadError};
use crate::scenario::{Case, select};
use crate::verdict::{Check, Level};

/// What the names of golden transcripts end in.
const EXTENSION: &str = "transcript";

/// No golden transcript is larger, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// Lines of a difference that a report shows.
const SHOWN: usize = 60;

/// Which golden transcripts a run writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bless {
    /// None: all are compared.
    #[default]
    Nothing,
    /// Those that are there, and those of these cases.
    Cases(BTreeSet<String>),
}

/// What came of a golden transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It was compared.
    Checked(Check),
    /// It was written, since it said otherwise or was not there.
    Written(PathBuf),
    /// It says what was said.
    Kept,
}

/// Where the golden transcript of a case is, if it has one or gets one. None for ids that are no names of files.
pub fn path_of(case: &Case) -> Option<PathBuf> {
    let rest = case.id.get(case.scenario_id().len()..)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "[].,=_-".contains(c);
    let stem = case.path.file_stem()?.to_str()?;
    rest.chars().all(plain).then(|| case.path.with_file_name(format!("{stem}{rest}.{EXTENSION}")))
}

/// Compares what was said with the golden transcript of `case`, or writes that. None if the case has none.
///
/// # Errors
/// A file that cannot be read or written.
pub fn settle(case: &Case, events: &[Event], bless: &Bless) -> io::Result<Option<Compared>> {
    let Some(path) = path_of(case) else { return Ok(None) };
    let wanted = matches!(bless, Bless::Cases(cases) if cases.contains(&case.id));
    let golden = match File::open(&path) {
        Ok(file) => Some(read(file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound && wanted => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let said = redacted(events);
    match golden {
        Some(golden) if *bless == Bless::Nothing => Ok(Some(Compared::Checked(check(&path, &golden, &said)))),
        Some(golden) if golden == said => Ok(Some(Compared::Kept)),
        _ => {
            fs::write(&path, said)?;
            Ok(Some(Compared::Written(path)))
        }
    }
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("larger than {MAX_SIZE} bytes")));
    }
    Ok(text)
}

fn check(path: &Path, golden: &str, said: &str) -> Check {
    let ok = golden == said;
    let actual = if ok { "the same".to_owned() } else { difference(golden, said) };
    Check {
        check: "transcript".to_owned(),
        expected: format!("as in {}", path.display()),
        actual,
        ok,
        level: Level::Must,
    }
}

/// What differs, as `diff -u` shows it: `-` is the golden transcript, `+` what was said.
fn difference(golden: &str, said: &str) -> String {
    let diff = TextDiff::from_lines(golden, said);
    let text = diff.unified_diff().context_radius(2).to_string();
    let lines: Vec<&str> = text.lines().collect();
    let more = lines.len().saturating_sub(SHOWN);
    let mut shown = lines.get(..SHOWN).unwrap_or(&lines).join("\n");
    if more > 0 {
        shown = format!("{shown}\n({more} more lines; --bless writes the new transcript)");
    }
    format!("another one\n{shown}")
}

/// A transcript without what differs between releases of Backstop and means nothing: process ids, system identifiers and times of day.
/// Times since the first connection stay, because the clock is the case's own.
pub fn redacted(events: &[Event]) -> String {
    let mut text = String::new();
    // The columns of the result set that a session is sent.
    let mut columns: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for event in events {
        let mut event = event.clone();
        match event.message {
            "RowDescription" => {
                columns.insert(event.session, event.detail.split(", ").map(ToOwned::to_owned).collect());
            }
            "DataRow" => {
                let names = columns.get(&event.session).map(Vec::as_slice).unwrap_or_default();
                if names.iter().any(|name| name == "systemid") {
                    event.detail = redacted_row(names, &event.detail);
                }
            }
            "BackendKeyData" | "CancelRequest" => event.detail = redacted_pid(&event.detail),
            _ => {}
        }
        text.push_str(&event.to_string());
        text.push('\n');
    }
    text
}

fn redacted_row(names: &[String], row: &str) -> String {
    let values = row.split(", ").enumerate();
    let shown = values.map(
        |(index, value)| if names.get(index).is_some_and(|name| name == "systemid") { "[systemid]" } else { value },
    );
    shown.collect::<Vec<_>>().join(", ")
}

/// `pid 4001, key of 4 bytes`
fn redacted_pid(detail: &str) -> String {
    match detail.strip_prefix("pid ").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit())) {
        Some(rest) => format!("pid [pid]{rest}"),
        None => detail.to_owned(),
    }
}

/// Refuses golden transcripts below `root` whose case is no more.
///
/// # Errors
/// The first of them; a scenario file beside one that cannot be read.
pub fn refuse_stale(root: &Path) -> Result<(), LoadError> {
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        // What cannot be read is found out when scenarios are loaded.
        let Ok(entry) = entry else { continue };
        if entry.path().extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let stale = || LoadError::StaleTranscript { path: entry.path().to_owned() };
        let name = entry.path().file_stem().and_then(|name| name.to_str()).ok_or_else(stale)?;
        let (scenario, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
        let file = entry.path().with_file_name(format!("{scenario}.toml"));
        if !file.is_file() {
            return Err(stale());
        }
        let found = load::file(&file, root)?;
        let id = format!("{}{rest}", found.id);
        let (whole, step) = select::split_step(&id);
        let is_case = |case: &Case| match step {
            Some(step) if case.id == whole => case.at_step(step).is_some(),
            // A sweep as a whole says nothing.
            _ => case.id == id && case.scenario.sweep.is_none(),
        };
        if !load::load(&found)?.iter().any(is_case) {
            return Err(stale());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use backstop_mock::transcript::Direction;

    use super::*;

    fn event(message: &'static str, detail: &str) -> Event {
        let (direction, detail) = (Direction::Sent, detail.to_owned());
        Event { at: 1500, session: 1, direction, message, detail, count: 1, bytes: 0 }
    }

    #[test]
    fn numbers_without_meaning_are_redacted_and_no_others() {
        let events = [
            event("BackendKeyData", "pid 4001, key of 4 bytes"),
            event("RowDescription", "systemid, timeline, xlogpos, dbname"),
            event("DataRow", "7650837982420673414, 1, 0/2000000, NULL"),
            event("RowDescription", "recptr, tli"),
            event("DataRow", "0/2000028, 1"),
        ];
        insta::assert_snapshot!(redacted(&events), @r"
        0.001 #1 > BackendKeyData pid [pid], key of 4 bytes
        0.001 #1 > RowDescription systemid, timeline, xlogpos, dbname
        0.001 #1 > DataRow [systemid], 1, 0/2000000, NULL
        0.001 #1 > RowDescription recptr, tli
        0.001 #1 > DataRow 0/2000028, 1
        ");
    }

    #[test]
    fn a_long_difference_is_cut() {
        let golden: String = (0..200).map(|line| format!("{line}\n")).collect();
        let shown = difference(&golden, "nothing\n");
        assert!(shown.starts_with("another one\n@@ -1,200 +1 @@\n-0\n"), "{shown}");
        assert!(shown.ends_with("more lines; --bless writes the new transcript)"), "{shown}");
        assert_eq!(shown.lines().count(), SHOWN + 2);
    }
}
