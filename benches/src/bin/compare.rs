//! `compare`: our programs and PostgreSQL's in turn on the same data.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use backstop_benches::compare::{Bench, CompareError, GROUPS, Group, Outcome, Programs, discard, report};
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo build --release --workspace
  cargo run --release -p backstop-benches --bin compare
  cargo run --release -p backstop-benches --bin compare -- --only client-mock --mib 4096 --json figures.json";

/// Measures our programs beside PostgreSQL's, in turn, on the same data, in one run. Only the ratios are worth quoting
#[derive(Debug, Parser)]
#[command(name = "compare", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    end: Option<End>,
    /// Compare only this; may be repeated
    #[arg(long, value_name = "NAME", value_parser = GROUPS.iter().map(|group| group.name).collect::<Vec<_>>())]
    only: Vec<String>,
    /// List what can be compared
    #[arg(long)]
    list: bool,
    /// How much is copied, in MiB
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: u64,
    /// Rounds that count; one more comes before them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Where backups are put, preferably in memory [default: /dev/shm, else the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Write the figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with a picture here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 100 if a target is missed
    #[arg(long)]
    strict: bool,
}

/// One end of a limit, started by the program itself.
#[derive(Debug, Subcommand)]
enum End {
    /// Sends this many bytes in frames to everyone who comes
    #[command(hide = true)]
    SendFrames { bytes: u64 },
    /// Reads frames from a port and throws them away
    #[command(hide = true)]
    ReadFrames { port: u16 },
    /// Takes a backup from a port and throws it away
    #[command(hide = true)]
    DiscardBackup { port: u16 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match &arguments.end {
        Some(End::SendFrames { bytes }) => discard::send_frames(*bytes).map_err(|error| error.to_string()),
        Some(End::ReadFrames { port }) => discard::read_frames(*port).map_err(|error| error.to_string()),
        Some(End::DiscardBackup { port }) => discard::discard_backup(*port, "no").map_err(|error| error.to_string()),
        None if arguments.list => list().map_err(|error| error.to_string()),
        None => return compare(&arguments),
    };
    ended.map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn failed(message: impl Display) -> ExitCode {
    anstream::eprintln!("compare: error: {message}");
    ExitCode::from(96)
}

fn list() -> io::Result<()> {
    let mut out = anstream::stdout();
    for Group { name, what, .. } in GROUPS {
        writeln!(out, "{name:<16} {what}")?;
    }
    Ok(())
}

fn compare(arguments: &Arguments) -> ExitCode {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => return failed(error),
    };
    let memory = Path::new("/dev/shm");
    let scratch = arguments
        .scratch
        .clone()
        .unwrap_or_else(|| if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() });
    let mut outcomes = Vec::new();
    let mut skipped = Vec::new();
    let machine = machine();
    anstream::println!("{machine}, {} MiB, {} rounds\n", arguments.mib, arguments.rounds);
    let chosen = |group: &&Group| arguments.only.is_empty() || arguments.only.iter().any(|name| name == group.name);
    for group in GROUPS.iter().filter(chosen) {
        let mut done = |outcome: &Outcome| {
            anstream::println!("{}", report::text(outcome));
            outcomes.push(outcome.clone());
        };
        let bench = Bench::new(&programs, arguments.mib << 20, arguments.rounds.into(), &scratch, &mut done);
        match bench.and_then(|mut bench| group.run(&mut bench)) {
            Ok(()) => {}
            Err(CompareError::Missing(why)) => skipped.push(format!("skipped: {}: {why}", group.name)),
            Err(error) => return failed(format!("{}: {error}", group.name)),
        }
    }
    for line in &skipped {
        anstream::println!("{line}");
    }
    let json =
        serde_json::json!({ "machine": machine, "mib": arguments.mib, "outcomes": outcomes, "skipped": skipped });
    for (path, content) in
        [(&arguments.json, format!("{json:#}\n")), (&arguments.html, report::html(&outcomes, &machine))]
    {
        if let Some(path) = path
            && let Err(error) = fs::write(path, content)
        {
            return failed(format!("could not write {}: {error}", path.display()));
        }
    }
    if arguments.strict && !report::all_met(&outcomes) { ExitCode::from(100) } else { ExitCode::SUCCESS }
}

/// The cores and the kernel, which figures depend on.
fn machine() -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|line| line.split_once(": "));
    format!("{cores} cores ({}), Linux {}", model.map_or("unknown", |(_, model)| model), kernel.trim())
}
