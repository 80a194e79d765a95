//! `backstop parity`

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{CANCELLED, Failure, Root, cancel};
use crate::arena::{Arena, ArenaOptions};
use crate::parity::explained::Explanations;
use crate::parity::{self, Compared, Outcome, report};
use crate::plan::ServerSpec;
use crate::scenario::select::{Partition, Selection};
use crate::verdict::Verdict;

const EXAMPLE: &str = "\
Examples:
  backstop parity --server pg=/usr/lib/postgresql/15/bin --explained scenarios/known/parity.toml
  backstop parity sound/plain commands --server pg=/opt/pg18/bin --report parity.json
  backstop parity commands --server 'url=host=db.example.com user=backup'

In a difference, - is what the mock alone says, + what the server alone says, ! what does not fit about both. The exit status is 100 if \
a difference has no reason.";

/// `backstop parity`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ParityArgs {
    /// Ids of cases, beginnings of ids, or paths of files or directories [default: everything]
    #[arg(value_name = "CASE|PATH")]
    cases: Vec<String>,
    /// What the mock is compared with, as in `run`; cases that it cannot play are left out
    #[arg(long, value_name = "SERVER")]
    server: ServerSpec,
    /// A file of differences that have a reason; may be repeated
    #[arg(long = "explained", value_name = "FILE")]
    explained: Vec<PathBuf>,
    /// Write everything as JSON to this file, - for standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How many cases run at a time [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Compare one of N parts of the cases
    #[arg(long, value_name = "M/N")]
    partition: Option<Partition>,
    /// Let servers keep their files in this directory [default: in memory where there is room, else /tmp]
    #[arg(long, value_name = "DIR", env = "BACKSTOP_SCRATCH")]
    scratch: Option<PathBuf>,
    /// With url=CONNINFO: compare what leaves something on the server, too, slots for instance
    #[arg(long)]
    allow_writes: bool,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: ParityArgs) -> Result<u8, Failure> {
    if args.server == ServerSpec::Mock {
        return Err(Failure::Usage(
            "the mock is compared with a real server: --server pg=BINDIR or url=CONNINFO".to_owned(),
        ));
    }
    let selection =
        Selection { wanted: args.cases, tags: Vec::new(), partition: args.partition, root: args.root.scenarios };
    let cases = selection.cases()?;
    let explanations = Explanations::load(&args.explained)?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(environment)?;
    let options = ArenaOptions { scratch: args.scratch.as_deref(), allow_writes: args.allow_writes };
    let arena = runtime.block_on(Arena::prepare(&args.server, options)).map_err(Failure::Environment)?;
    let cancelled = {
        let _entered = runtime.enter();
        cancel::on_request()
    };
    let tell = |compared: &Compared| {
        if let Outcome::Played(differences) = &compared.outcome {
            let result = match (differences.len(), compared.outcome.unexplained()) {
                (0, _) => "equal".to_owned(),
                (_, 0) => "explained".to_owned(),
                (_, count) => format!("{count} differences"),
            };
            // Nobody may be looking.
            let _ = writeln!(io::stderr(), "{}: {result}", compared.id);
        }
    };
    let compared = parity::run(&cases, &arena, jobs, &explanations, &cancelled, &tell);
    let compared = compared.map_err(|error| Failure::Environment(error.to_string()))?;
    drop(arena);
    let server = args.server.to_string();
    let to_standard_output = args.report.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if let Some(path) = &args.report {
        let failed = |error: io::Error| Failure::Environment(format!("could not write {}: {error}", path.display()));
        if to_standard_output {
            report::json(&mut io::stdout().lock(), &server, &compared)?;
        } else {
            let mut out = BufWriter::new(File::create(path).map_err(failed)?);
            report::json(&mut out, &server, &compared).and_then(|()| out.flush()).map_err(failed)?;
        }
    }
    if to_standard_output {
        report::table(&mut io::stderr().lock(), &server, &compared)?;
    } else {
        report::table(&mut io::stdout().lock(), &server, &compared)?;
    }
    let counts = report::total(&compared);
    Ok(if *cancelled.borrow() {
        CANCELLED
    } else if counts.played == 0 {
        return Err(Failure::Nothing(": the server can play none of the cases".to_owned()));
    } else if counts.unexplained > 0 {
        Verdict::Fail.exit_code(false)
    } else {
        0
    })
}
