//! `instructions`: how many instructions the hot paths take, beside a baseline.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use backstop_benches::instructions::{Baseline, BaselineError, Counter, Environment, PATHS};
use clap::Parser;

/// A path takes more instructions than it may.
const REGRESSION: u8 = 100;
/// The environment: what valgrind runs fails, a file cannot be read.
const ENVIRONMENT: u8 = 96;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p backstop-benches --bin instructions                 compare with benches/instructions.json
  cargo run --release -p backstop-benches --bin instructions -- --bless      write it anew
  git stash; cargo run --release -p backstop-benches --bin instructions -- --bless --baseline before.json; git stash pop
  cargo run --release -p backstop-benches --bin instructions -- --baseline before.json

The baseline in the repository is compared with where architecture, what the processor can do, compiler and valgrind are those that it \
was made with. Elsewhere the counts are printed, and nothing is judged: make a baseline of the state before, as in the last example.

Exit status: 0 if no path takes more than 5 % more than it did, 100 if one does, 96 if that could not be found out.";

/// Counts the instructions of the hot paths with valgrind and compares them with a baseline
#[derive(Debug, Parser)]
#[command(name = "instructions", after_help = EXAMPLES)]
struct Arguments {
    /// The baseline
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    baseline: PathBuf,
    /// Write the baseline in place of comparing with it
    #[arg(long)]
    bless: bool,
    /// Count only this; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "bless", value_parser = PATHS.iter().map(|path| path.name).collect::<Vec<_>>())]
    only: Vec<String>,
    /// Run a path instead of counting it
    #[arg(long, hide = true, requires = "times")]
    path: Option<String>,
    /// How often
    #[arg(long, hide = true)]
    times: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(name), Some(times)) = (&arguments.path, arguments.times) {
        let Some(path) = PATHS.iter().find(|path| path.name == name) else { return ExitCode::from(2) };
        (path.run)(times);
        return ExitCode::SUCCESS;
    }
    match compare(&arguments) {
        Ok(status) => status,
        Err(problem) => {
            anstream::eprintln!("error: {problem}");
            ExitCode::from(ENVIRONMENT)
        }
    }
}

fn compare(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut out = anstream::stdout();
    let environment = match Environment::here() {
        Ok(environment) => environment,
        Err(BaselineError::Missing(program)) => {
            return say(&mut out, &format!("skipped: instruction counts: there is no {program}"))
                .map(|()| ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.to_string()),
    };
    // Before minutes are spent on counting.
    let baseline = match &arguments.baseline {
        _ if arguments.bless => None,
        path if !path.exists() => {
            let text = format!("skipped: instruction counts: there is no {}; --bless makes one", path.display());
            return say(&mut out, &text).map(|()| ExitCode::SUCCESS);
        }
        path => Some(Baseline::read(path).map_err(|error| error.to_string())?),
    };
    let counter = Counter::new(std::env::current_exe().map_err(|error| error.to_string())?);
    let wanted =
        PATHS.iter().filter(|path| arguments.only.is_empty() || arguments.only.iter().any(|name| name == path.name));
    let mut instructions = BTreeMap::new();
    for path in wanted {
        let count = counter.count(path.name, path.times).map_err(|error| error.to_string())?;
        instructions.insert(path.name.to_owned(), count);
    }
    let Some(baseline) = baseline else {
        let baseline = Baseline { environment, instructions };
        baseline.write(&arguments.baseline).map_err(|error| error.to_string())?;
        return say(&mut out, &format!("wrote {}", arguments.baseline.display())).map(|()| ExitCode::SUCCESS);
    };
    if let Some(obstacle) = baseline.obstacle(&environment) {
        for (name, count) in &instructions {
            say(&mut out, &format!("{name:<24} {count:>14}"))?;
        }
        let text = format!(
            "skipped: comparison of instruction counts: {} was made elsewhere ({obstacle})",
            arguments.baseline.display()
        );
        return say(&mut out, &text).map(|()| ExitCode::SUCCESS);
    }
    let compared = baseline.compare(&instructions);
    for line in &compared {
        say(&mut out, &line.to_string())?;
    }
    let regressed = compared.iter().any(backstop_benches::instructions::Compared::is_regression);
    Ok(if regressed { ExitCode::from(REGRESSION) } else { ExitCode::SUCCESS })
}

fn say(out: &mut impl io::Write, line: &str) -> Result<(), String> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}
