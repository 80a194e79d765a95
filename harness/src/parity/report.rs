//! The parity of the mock with a server, for people and for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;

use super::{Compared, Outcome, Side};

/// How many cases of one kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cases that both servers played.
    pub played: usize,
    /// Those in which both said the same.
    pub equal: usize,
    /// Those that differ in nothing without a reason.
    pub explained: usize,
    /// The others.
    pub unexplained: usize,
    /// Cases that the real server cannot play.
    pub skipped: usize,
}

impl Counts {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Skipped(_) => self.skipped += 1,
            Outcome::Played(differences) => {
                self.played += 1;
                match (differences.len(), outcome.unexplained()) {
                    (0, _) => self.equal += 1,
                    (_, 0) => self.explained += 1,
                    _ => self.unexplained += 1,
                }
            }
        }
    }
}

/// The counts of all cases.
pub fn total(all: &[Compared]) -> Counts {
    let mut counts = Counts::default();
    for compared in all {
        counts.count(&compared.outcome);
    }
    counts
}

/// Writes a table by areas, the reasons of what is explained, and what is not.
///
/// # Errors
/// What `out` says.
pub fn table(out: &mut impl Write, server: &str, all: &[Compared]) -> io::Result<()> {
    let mut areas: BTreeMap<&str, Counts> = BTreeMap::new();
    for compared in all {
        areas.entry(compared.id.split('/').next().unwrap_or_default()).or_default().count(&compared.outcome);
    }
    writeln!(out, "the mock beside {server}")?;
    writeln!(out, "{:<14} {:>7} {:>7} {:>10} {:>12}", "area", "played", "equal", "explained", "unexplained")?;
    let mut row = |name: &str, counts: &Counts| {
        let Counts { played, equal, explained, unexplained, .. } = counts;
        writeln!(out, "{name:<14} {played:>7} {equal:>7} {explained:>10} {unexplained:>12}")
    };
    for (area, counts) in areas.iter().filter(|(_, counts)| counts.played > 0) {
        row(area, counts)?;
    }
    row("all", &total(all))?;
    let played = all.iter().filter_map(|compared| match &compared.outcome {
        Outcome::Played(differences) => Some((&compared.id, differences)),
        Outcome::Skipped(_) => None,
    });
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (id, differences) in played.clone() {
        for because in differences.iter().filter_map(|(_, because)| because.as_deref()) {
            reasons.entry(because).or_default().insert(id);
        }
    }
    if !reasons.is_empty() {
        writeln!(out, "\nexplained:")?;
    }
    for (because, cases) in reasons {
        writeln!(out, "  {because} ({} cases)", cases.len())?;
    }
    for (id, differences) in played.filter(|(_, all)| all.iter().any(|(_, because)| because.is_none())) {
        writeln!(out, "\n{id}")?;
        let mut session = "";
        for (difference, _) in differences.iter().filter(|(_, because)| because.is_none()) {
            if session != difference.session {
                session = &difference.session;
                writeln!(out, "  {session}")?;
            }
            let (sign, line) = (sign(difference.side), &difference.line);
            writeln!(out, "    {sign} {line}")?;
        }
    }
    Ok(())
}

/// As in a `diff` from the mock to the real server.
fn sign(side: Side) -> char {
    match side {
        Side::Mock => '-',
        Side::Real => '+',
        Side::Both => '!',
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    server: &'a str,
    summary: Counts,
    cases: Vec<Case<'a>>,
}

#[derive(Serialize)]
struct Case<'a> {
    id: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    session: &'a str,
    side: &'static str,
    line: &'a str,
    because: Option<&'a str>,
}

/// Writes everything as JSON.
///
/// # Errors
/// What `out` says.
pub fn json(out: &mut impl Write, server: &str, all: &[Compared]) -> io::Result<()> {
    let cases = all.iter().map(|Compared { id, outcome }| match outcome {
        Outcome::Skipped(reason) => Case { id, result: "skipped", reason: Some(reason), differences: Vec::new() },
        Outcome::Played(differences) => {
            let result = match (differences.len(), outcome.unexplained()) {
                (0, _) => "equal",
                (_, 0) => "explained",
                _ => "unexplained",
            };
            let differences = differences.iter().map(|(difference, because)| Entry {
                session: &difference.session,
                side: match difference.side {
                    Side::Mock => "mock",
                    Side::Real => "real",
                    Side::Both => "both",
                },
                line: &difference.line,
                because: because.as_deref(),
            });
            Case { id, result, reason: None, differences: differences.collect() }
        }
    });
    let document = Document { schema: 1, server, summary: total(all), cases: cases.collect() };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::super::Difference;
    use super::*;

    #[test]
    fn every_case_has_its_place() {
        let difference = |side, line: &str, because: Option<&str>| {
            let difference = Difference { session: "backup #1".to_owned(), side, line: line.to_owned() };
            (difference, because.map(str::to_owned))
        };
        let case = |id: &str, outcome| Compared { id: id.to_owned(), outcome };
        let all = [
            case("sound/a", Outcome::Played(Vec::new())),
            case("sound/b", Outcome::Played(vec![difference(Side::Real, "> x", Some("so it is"))])),
            case(
                "wal/c",
                Outcome::Played(vec![difference(Side::Mock, "> y", None), difference(Side::Real, "> z", None)]),
            ),
            case("wal/d", Outcome::Skipped("it cannot".to_owned())),
        ];
        let mut out = Vec::new();
        table(&mut out, "pg=/bin", &all).expect("memory");
        insta::assert_snapshot!(String::from_utf8(out).expect("UTF-8"), @r"
        the mock beside pg=/bin
        area            played   equal  explained  unexplained
        sound                2       1          1            0
        wal                  1       0          0            1
        all                  3       1          1            1

        explained:
          so it is (1 cases)

        wal/c
          backup #1
            - > y
            + > z
        ");
        let mut out = Vec::new();
        json(&mut out, "pg=/bin", &all).expect("memory");
        let document: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(document["summary"]["unexplained"], 1);
        assert_eq!(document["cases"][1]["differences"][0]["because"], "so it is");
        assert_eq!(document["cases"][3]["reason"], "it cannot");
    }
}
