//! `backstop list`

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::{Failure, Root};
use crate::runner;
use crate::scenario::select::Selection;
use crate::scenario::{Case, is_edge_case};

const EXAMPLE: &str = "\
Examples:
  backstop list
  backstop list crash --filter wal
  backstop list sweeps --steps";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ListArgs {
    /// Ids of cases, beginnings of ids, or paths of files or directories [default: everything]
    #[arg(value_name = "CASE|PATH")]
    cases: Vec<String>,
    /// List only scenarios with this tag; may be repeated
    #[arg(long = "filter", value_name = "TAG")]
    tags: Vec<String>,
    /// List every case by its id
    #[arg(long)]
    cases_by_id: bool,
    /// Count the steps of sweeps: each is run once with the built-in client, which can run most of them
    #[arg(long)]
    steps: bool,
    #[command(flatten)]
    root: Root,
}

/// One line of the list.
#[derive(Default)]
struct Story<'a> {
    summary: &'a str,
    cases: usize,
    /// Whether there is one more case for each of an unknown number of steps.
    and_more: bool,
}

pub(super) fn run(args: &ListArgs) -> Result<u8, Failure> {
    let root = args.root.scenarios.clone();
    let cases = Selection { wanted: args.cases.clone(), tags: args.tags.clone(), partition: None, root }.cases()?;
    if cases.is_empty() {
        return Err(Failure::Nothing(String::new()));
    }
    let mut out = anstream::stdout().lock();
    let mut areas: BTreeMap<&str, BTreeMap<&str, Story<'_>>> = BTreeMap::new();
    for case in &cases {
        let steps = if args.steps { steps(case)? } else { None };
        if args.cases_by_id {
            match &steps {
                Some(steps) => steps.iter().try_for_each(|step| writeln!(out, "{}", step.id))?,
                None => writeln!(out, "{}", case.id)?,
            }
            continue;
        }
        let area = case.scenario_id().rsplit_once('/').map_or("", |(area, _)| area);
        let story = areas.entry(area).or_default().entry(case.scenario_id()).or_default();
        story.summary = &case.scenario.summary;
        story.cases += steps.as_ref().map_or(1, Vec::len);
        story.and_more |= steps.is_none() && case.is_unswept();
    }
    if args.cases_by_id {
        return Ok(0);
    }
    let width = cases.iter().map(|case| case.scenario_id().len()).max().unwrap_or(0);
    for (area, stories) in &areas {
        writeln!(out, "{area}: {}", totals(stories.iter()))?;
        for (id, Story { summary, cases, and_more }) in stories {
            let more = if *and_more { "+" } else { " " };
            writeln!(out, "  {id:<width$} {cases:>4}{more} {summary}")?;
        }
    }
    let sweeps = areas.values().flat_map(BTreeMap::values).any(|story| story.and_more);
    let note = match (sweeps, args.steps) {
        (false, _) => "",
        (true, false) => " (+: a sweep, one more case for each of its steps)",
        (true, true) => " (+: a sweep that the built-in client cannot run, one more case for each of its steps)",
    };
    let areas_counted = counted(areas.len(), "area");
    writeln!(out, "{} in {areas_counted}{note}", totals(areas.values().flatten()))?;
    Ok(0)
}

/// The steps of a sweep, if it is one that the built-in client can run.
fn steps(case: &Case) -> Result<Option<Vec<Case>>, Failure> {
    if !case.is_unswept() {
        return Ok(None);
    }
    runner::steps(case).map_err(|error| Failure::Environment(error.to_string()))
}

/// `27 scenarios, 1 of a known edge case, 60 cases`
fn totals<'a>(stories: impl Iterator<Item = (&'a &'a str, &'a Story<'a>)>) -> String {
    let (mut scenarios, mut known, mut cases) = (0, 0, 0);
    for (id, story) in stories {
        scenarios += 1;
        known += usize::from(is_edge_case(id));
        cases += story.cases;
    }
    let known = match known {
        0 => String::new(),
        1 => ", 1 known edge case".to_owned(),
        many => format!(", {many} known edge cases"),
    };
    format!("{}{known}, {}", counted(scenarios, "scenario"), counted(cases, "case"))
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
