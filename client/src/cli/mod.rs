//! Command lines. One file for each tool.

mod basebackup;
mod password;
mod report;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// A tool: its name as a subcommand, PostgreSQL's name for it, one line about it, and what runs it with the name to show and
/// the arguments, its own name the first of them.
struct Tool {
    name: &'static str,
    alias: &'static str,
    about: &'static str,
    run: fn(&str, Vec<OsString>) -> ExitCode,
}

const TOOLS: [Tool; 1] = [Tool {
    name: "basebackup",
    alias: "pg_basebackup",
    about: "take a base backup of a running PostgreSQL server",
    run: basebackup::run,
}];

/// Runs the tool that `arguments` name: the first of them is how this program was called.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(tool) = TOOLS.iter().find(|tool| tool.alias == called) {
        arguments.insert(0, called.clone().into());
        return (tool.run)(&called, arguments);
    }
    match arguments.first().and_then(|first| first.to_str()) {
        Some("--help" | "-?" | "-h" | "help") => {
            print!("{}", usage());
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => {
            println!("backstop-client {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(name) => {
            if let Some(tool) = TOOLS.iter().find(|tool| tool.name == name || tool.alias == name) {
                return (tool.run)("backstop-client", arguments);
            }
            eprintln!("backstop-client: error: unknown tool {name:?}");
            eprintln!("backstop-client: hint: Try \"backstop-client --help\" for more information.");
            ExitCode::FAILURE
        }
        None => {
            eprint!("{}", usage());
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let line = |tool: &Tool| format!("  {:<12} {} (as {})\n", tool.name, tool.about, tool.alias);
    let tools: String = TOOLS.iter().map(line).collect();
    let example = "backstop-client basebackup -h localhost -U backup -D /var/backups/monday";
    format!("Usage: backstop-client TOOL [OPTION]...\n\nTools:\n{tools}\nExample:\n  {example}\n")
}
