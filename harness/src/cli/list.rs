//! `backstop list`

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::{Failure, Root};
use crate::scenario::Case;
use crate::scenario::select::Selection;
use crate::scenario::sweep;

const EXAMPLE: &str = "\
Examples:
  backstop list
  backstop list crash --filter wal";

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
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ListArgs) -> Result<u8, Failure> {
    let root = args.root.scenarios.clone();
    let cases = Selection { wanted: args.cases.clone(), tags: args.tags.clone(), partition: None, root }.cases()?;
    if cases.is_empty() {
        return Err(Failure::Nothing(String::new()));
    }
    let mut out = anstream::stdout().lock();
    if args.cases_by_id {
        for case in &cases {
            writeln!(out, "{}", case.id)?;
        }
        return Ok(0);
    }
    let mut areas: BTreeMap<&str, BTreeMap<&str, Vec<&Case>>> = BTreeMap::new();
    for case in &cases {
        let area = case.scenario_id().rsplit_once('/').map_or("", |(area, _)| area);
        areas.entry(area).or_default().entry(case.scenario_id()).or_default().push(case);
    }
    let width = cases.iter().map(|case| case.scenario_id().len()).max().unwrap_or(0);
    for (area, scenarios) in &areas {
        let count: usize = scenarios.values().map(Vec::len).sum();
        writeln!(out, "{area}: {}, {}", counted(scenarios.len(), "scenario"), counted(count, "case"))?;
        for (id, cases) in scenarios {
            let Some(first) = cases.first() else { continue };
            let more = if sweep::is_sweep(&first.scenario) { "+" } else { " " };
            writeln!(out, "  {id:<width$} {:>4}{more} {}", cases.len(), first.scenario.summary)?;
        }
    }
    let scenarios: usize = areas.values().map(BTreeMap::len).sum();
    let sweeps = cases.iter().any(|case| sweep::is_sweep(&case.scenario));
    let note = if sweeps { " (+: a sweep, one more case for each of its steps)" } else { "" };
    let (scenarios, count) = (counted(scenarios, "scenario"), counted(cases.len(), "case"));
    writeln!(out, "{scenarios}, {count} in {}{note}", counted(areas.len(), "area"))?;
    Ok(0)
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
