//! The command line: `backstop run`, `judge`, `serve`, `proxy`, `list`, `explain`, `decode`, `parity`, `schema` and `mutants`.

mod cancel;
mod decode;
mod explain;
mod judge;
mod list;
mod mutants;
mod parity;
mod progress;
mod proxy;
mod run;
mod schema;
mod serve;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::scenario::Case;
use crate::scenario::load::LoadError;
use crate::scenario::select::Selection;

/// Everything as wanted, or a usage or scenario error, which clap reports with the same status.
const USAGE: u8 = 2;
/// No case was selected.
const NOTHING: u8 = 4;
/// The environment: no such client, no server, no space.
const ENVIRONMENT: u8 = 96;
/// Ended by Ctrl-C, as a shell reports it, or by SIGTERM.
const CANCELLED: u8 = 130;

/// Runs base backup scenarios against any client and judges what it left behind.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, about, after_help = TOP_EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const TOP_EXAMPLE: &str = "\
Examples:
  backstop run                                     every scenario, with the built-in client
  backstop run tar --client pg_basebackup          one area, with PostgreSQL's client
  backstop serve crash/mid-tablespace              a broken server to point any client at

Exit status: 0 if all is well; 2 for a usage or scenario error; 4 if nothing was selected; 96 if the environment is at \
fault; else the worst verdict: 100 failure, 101 silent corruption, 102 hang, 103 something outside the target changed, \
104 crash.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cases and judge them
    Run(run::RunArgs),
    /// Judge what a run kept once more, or a backup by itself
    Judge(judge::JudgeArgs),
    /// Serve one scenario to whoever connects
    Serve(serve::ServeArgs),
    /// Put the faults of one scenario before a real server
    Proxy(proxy::ProxyArgs),
    /// List scenarios and count cases by area
    List(list::ListArgs),
    /// Tell what one case is about, without running it
    Explain(explain::ExplainArgs),
    /// Say message by message what a capture holds
    Decode(decode::DecodeArgs),
    /// Compare what the mock says with what a real server says, message by message
    Parity(parity::ParityArgs),
    /// Print the JSON schema of scenario files
    Schema(schema::SchemaArgs),
    /// Run deliberately broken clients, each of which some case has to catch
    Mutants(mutants::MutantsArgs),
}

/// Where the scenario files are.
#[derive(Clone, Debug, Args)]
struct Root {
    /// The directory that case ids are relative to
    #[arg(long, value_name = "DIR", env = "BACKSTOP_SCENARIOS", default_value = "scenarios")]
    scenarios: PathBuf,
}

/// Runs the command line `arguments`, the program's name first, and returns the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with status 0, anything else to standard error with 2. Nothing is left to
            // do if that fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Judge(args) => judge::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::List(args) => list::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Parity(args) => parity::run(args),
        Command::Schema(args) => schema::run(&args),
        Command::Mutants(args) => mutants::run(args),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.status())
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Cases could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No case was selected.
    #[error("no case was selected{0}")]
    Nothing(String),
    /// Something that Backstop needs is not there.
    #[error("{0}")]
    Environment(String),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Load(LoadError::NoSuchCase { .. }) | Self::Nothing(_) => NOTHING,
            Self::Load(LoadError::Unreadable { .. }) | Self::Environment(_) => ENVIRONMENT,
            Self::Load(_) | Self::Usage(_) => USAGE,
        }
    }

    fn print(&self) {
        let text = match self {
            Self::Load(LoadError::Scenario(error)) => error
                .draw(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())),
            other => format!("error: {other}\n"),
        };
        // Nobody is left to tell if this fails.
        let _ = anstream::stderr().write_all(text.as_bytes());
    }
}

impl From<io::Error> for Failure {
    /// Standard output is all that commands write to without saying so.
    fn from(error: io::Error) -> Self {
        Self::Environment(format!("could not write to standard output: {error}"))
    }
}

/// The one case that `wanted` stands for, with its faults: not a sweep as a whole.
fn one_story(wanted: &str, root: &Root) -> Result<Case, Failure> {
    let case = one_case(wanted, root)?;
    if let Some(sweep) = case.scenario.sweep.as_ref().filter(|_| case.step.is_none()) {
        let first = sweep.every.first();
        return Err(Failure::Usage(format!("{} is a sweep: choose a step, such as '{}[{first}]'", case.id, case.id)));
    }
    Ok(case)
}

/// The one case that `wanted` stands for.
fn one_case(wanted: &str, root: &Root) -> Result<Case, Failure> {
    let selection = Selection { wanted: vec![wanted.to_owned()], root: root.scenarios.clone(), ..Selection::default() };
    let mut cases = selection.cases()?;
    match (cases.pop(), cases.last()) {
        (Some(only), None) => Ok(only),
        (Some(last), Some(_)) => {
            let count = cases.len() + 1;
            Err(Failure::Usage(format!("{wanted:?} stands for {count} cases: choose one, such as '{}'", last.id)))
        }
        (None, _) => Err(Failure::Nothing(String::new())),
    }
}
