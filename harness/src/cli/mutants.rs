//! `backstop mutants`

use std::num::NonZeroUsize;

use clap::Args;

use super::Root;

const EXAMPLE: &str = "\
Examples:
  backstop mutants
  backstop mutants --all
  backstop mutants --mutant trusts-names --all
  backstop mutants tar hostile

Only a backstop that was built with the feature `mutants` has them. Exit status: 0 if every mutant is caught and the sound \
client passes everything, else 100.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
// Without the feature nobody reads what was asked for.
#[cfg_attr(not(feature = "mutants"), allow(dead_code))]
pub(super) struct MutantsArgs {
    /// Ids of cases, beginnings of ids, or paths of files or directories [default: everything but sweeps]
    #[arg(value_name = "CASE|PATH")]
    cases: Vec<String>,
    /// Only this mutant; may be repeated
    #[arg(long = "mutant", value_name = "NAME")]
    mutants: Vec<String>,
    /// Run the sweeps, too; go on after the first case that catches a mutant, and show all that do
    #[arg(long)]
    all: bool,
    /// How many mutants run at a time [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    root: Root,
}

#[cfg(not(feature = "mutants"))]
pub(super) fn run(_: MutantsArgs) -> Result<u8, super::Failure> {
    let text = "this backstop was built without mutants: cargo run -p backstop --features mutants -- mutants";
    Err(super::Failure::Usage(text.to_owned()))
}

#[cfg(feature = "mutants")]
pub(super) use with_mutants::run;

#[cfg(feature = "mutants")]
mod with_mutants {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::num::NonZeroUsize;

    use backstop_client::Mutation;

    use super::super::Failure;
    use super::MutantsArgs;
    use crate::mutants::{self, Fate};
    use crate::scenario::Case;
    use crate::scenario::select::Selection;
    use crate::verdict::Verdict;

    pub(in super::super) fn run(args: MutantsArgs) -> Result<u8, Failure> {
        let mutations = args.mutants.iter().map(|name| by_name(name)).collect::<Result<Vec<_>, _>>()?;
        let mutations = if mutations.is_empty() { Mutation::ALL } else { &mutations };
        let chosen = !args.cases.is_empty();
        let selection = Selection { wanted: args.cases, root: args.root.scenarios, ..Selection::default() };
        let mut cases = selection.cases()?;
        // A sweep is thousands of cases that tell no more of a mutant than its neighbours do, and frames of one byte take long.
        let sweeps = |case: &Case| case.scenario.sweep.is_some() || case.id.starts_with("sweeps/");
        cases.retain(|case| args.all || chosen || !sweeps(case));
        if cases.is_empty() {
            return Err(Failure::Nothing(String::new()));
        }
        let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let (mut caught, mut undeserved) = (0, 0);
        let mut written = Ok(());
        let ran = mutants::run(cases, mutations, args.all, jobs, |fate| {
            caught += usize::from(fate.mutation.is_some() && fate.is_deserved());
            undeserved += usize::from(!fate.is_deserved());
            let text = if args.all { all(fate) } else { line(fate) };
            if written.is_ok() {
                written = anstream::stdout().write_all(text.as_bytes());
            }
        });
        ran.map_err(|error| Failure::Environment(error.to_string()))?;
        written?;
        writeln!(anstream::stdout(), "{caught} of {} mutants caught", mutations.len())?;
        Ok(if undeserved == 0 { 0 } else { Verdict::Fail.exit_code(false) })
    }

    fn by_name(name: &str) -> Result<Mutation, Failure> {
        let found = Mutation::ALL.iter().find(|mutation| mutation.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
            Failure::Usage(format!("unknown mutant {name:?}: expected one of {}", names.join(", ")))
        })
    }

    /// Who it is, and what it came to.
    fn line(fate: &Fate) -> String {
        let name = fate.mutation.map_or("(sound)", Mutation::name);
        match fate.kills.first() {
            Some(kill) => format!("{name:<26} {:<17} {}\n{:27}{}\n", kill.verdict, kill.case, "", kill.because),
            None if fate.mutation.is_some() => format!("{name:<26} NOT CAUGHT by any of {} cases\n", fate.ran),
            None => format!("{name:<26} passes all of {} cases\n", fate.ran),
        }
    }

    /// Every scenario that fails it, with its worst verdict and the number of its cases that do.
    fn all(fate: &Fate) -> String {
        if fate.kills.is_empty() {
            return line(fate);
        }
        let name = fate.mutation.map_or("(sound)", Mutation::name);
        let mut text = format!("{name}: fails {} of {} cases\n", fate.kills.len(), fate.ran);
        let mut scenarios: BTreeMap<&str, (Verdict, usize)> = BTreeMap::new();
        for kill in &fate.kills {
            let scenario = kill.case.split('[').next().unwrap_or_default();
            let (worst, count) = scenarios.entry(scenario).or_default();
            *worst = kill.verdict.max(*worst);
            *count += 1;
        }
        for (scenario, (worst, count)) in scenarios {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {worst:<17} {count:>4} {scenario}");
        }
        text
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::mutants::Kill;

        fn fate(mutation: Option<Mutation>, cases: &[&str]) -> Fate {
            let kill = |case: &&str| Kill {
                case: (*case).to_owned(),
                verdict: Verdict::Escape,
                because: "law: a directory changed".to_owned(),
            };
            Fate { mutation, ran: 3, kills: cases.iter().map(kill).collect() }
        }

        #[test]
        fn says_what_became_of_whom() {
            let mutant = fate(Some(Mutation::TrustsNames), &["hostile/a[x=1]", "hostile/a[x=2]"]);
            let first =
                format!("{:<26} {:<17} hostile/a[x=1]\n{:27}law: a directory changed\n", "trusts-names", "escape", "");
            assert_eq!(line(&mutant), first);
            assert_eq!(all(&mutant), format!("trusts-names: fails 2 of 3 cases\n  {:<17}    2 hostile/a\n", "escape"));
            assert!(mutant.is_deserved());
            let survivor = fate(Some(Mutation::TrustsNames), &[]);
            assert_eq!(all(&survivor), format!("{:<26} NOT CAUGHT by any of 3 cases\n", "trusts-names"));
            assert!(!survivor.is_deserved());
            assert!(fate(None, &[]).is_deserved());
            assert!(!fate(None, &["sound/plain"]).is_deserved());
        }
    }
}
