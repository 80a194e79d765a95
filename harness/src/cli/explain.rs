//! `backstop explain`

use std::io::Write;

use clap::Args;

use super::{Failure, Root, one_case};
use crate::{arena, explain};

const EXAMPLE: &str = "\
Examples:
  backstop explain tar/tar-empty-archive
  backstop explain 'sound/plain[server.version=15,client.wal=fetch]' --toml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ExplainArgs {
    /// The id of a case, or the path of a scenario file with one case
    #[arg(value_name = "CASE|PATH")]
    case: String,
    /// Print the case as a scenario file with every default spelt out
    #[arg(long)]
    toml: bool,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ExplainArgs) -> Result<u8, Failure> {
    let case = one_case(&args.case, &args.root)?;
    let mut out = anstream::stdout().lock();
    if !args.toml {
        // Which release was recorded stands on the cassette.
        let recorded = case.scenario.server.replay.is_some();
        let case = if recorded { arena::settle(case).map_err(Failure::Environment)? } else { case };
        write!(out, "{}", explain::story(&case))?;
        return Ok(0);
    }
    let text = toml::to_string_pretty(&*case.scenario)
        .map_err(|error| Failure::Environment(format!("could not print case {}: {error}", case.id)))?;
    writeln!(out, "# {}", case.id)?;
    writeln!(out, "# {}", case.path.display())?;
    if let Some(sweep) = case.scenario.sweep.as_ref().filter(|_| case.step.is_none()) {
        let fault = sweep.fault + 1;
        writeln!(out, "# a sweep: fault {fault} stands for one case at {}, the first is shown", sweep.every)?;
    }
    write!(out, "\n{text}")?;
    Ok(0)
}
