//! Command lines. One file for each tool.
//!
//! | every tool needs | see |
//! |---|---|
//! | its options, read as `getopt_long` reads them; `--help`, `--version` | [`getopt`] |
//! | a server | [`connection`] |
//! | somebody who reads | [`output`] |
//! | to end when it is told to | [`signals`] |
//!
//! A tool is a line in [`TOOLS`]. Its messages begin with [`Invocation::program`]: `pg_basebackup` for whoever called it by that
//! name, `backstop-client basebackup` for whoever named it as a subcommand.

// These end the program where nobody reads.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod basebackup;
mod combinebackup;
mod connection;
mod gauge;
mod getopt;
mod help;
mod numbers;
mod output;
mod parallelbackup;
mod password;
mod receivewal;
mod recover;
mod remains;
mod report;
mod signals;
mod verifybackup;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use self::output::tell;
use self::remains::Remains;

/// A tool of this program.
struct Tool {
    /// As a subcommand.
    name: &'static str,
    /// What PostgreSQL calls it, if it has such a tool.
    alias: Option<&'static str>,
    /// What it does: the rest of a sentence that begins with its name.
    about: &'static str,
    /// What its command line consists of: `[OPTION]...`.
    operands: &'static str,
    run: fn(&Invocation, Vec<OsString>) -> ExitCode,
}

const TOOLS: [Tool; 6] = [
    Tool {
        name: "basebackup",
        alias: Some("pg_basebackup"),
        about: "takes a base backup of a running PostgreSQL server",
        operands: "[OPTION]...",
        run: basebackup::run,
    },
    Tool {
        name: "receivewal",
        alias: Some("pg_receivewal"),
        about: "receives PostgreSQL streaming write-ahead logs",
        operands: "[OPTION]...",
        run: receivewal::run,
    },
    Tool {
        name: "verifybackup",
        alias: Some("pg_verifybackup"),
        about: "verifies a backup against the backup manifest",
        operands: "[OPTION]... BACKUPDIR",
        run: verifybackup::run,
    },
    Tool {
        name: "combinebackup",
        alias: Some("pg_combinebackup"),
        about: "reconstructs full backups from incrementals",
        operands: "[OPTION]... DIRECTORY...",
        run: combinebackup::run,
    },
    Tool {
        name: "parallelbackup",
        alias: None,
        about: "takes a base backup over several ordinary connections",
        operands: "[OPTION]... DSN DEST",
        run: parallelbackup::run,
    },
    Tool {
        name: "recover",
        alias: None,
        about: "reconstructs full backups from incrementals by LSN",
        operands: "[OPTION]... BASE INCREMENTAL... DESTINATION",
        run: recover::run,
    },
];

/// How a tool was called.
pub(crate) struct Invocation {
    /// What messages and hints call it.
    program: String,
    tool: &'static Tool,
    /// Whether it was called by PostgreSQL's name.
    alias: bool,
}

impl Invocation {
    /// Says why the tool cannot go on: `pg_basebackup: error: …`.
    pub(crate) fn error(&self, problem: impl std::fmt::Display) -> ExitCode {
        tell(format_args!("{}: error: {problem}", self.program));
        ExitCode::FAILURE
    }

    /// The same, and what happened to what the tool had made.
    fn failed(&self, problem: impl std::fmt::Display, remains: &[Remains]) -> ExitCode {
        let code = self.error(problem);
        for text in remains.iter().flat_map(Remains::lines) {
            tell(format_args!("{}: {text}", self.program));
        }
        code
    }

    /// As [`error`](Self::error) about the command line, with a hint where to look.
    pub(crate) fn usage_error(&self, problem: impl std::fmt::Display) -> ExitCode {
        self.error(problem);
        self.hint()
    }

    fn hint(&self) -> ExitCode {
        tell(format_args!("{0}: hint: Try \"{0} --help\" for more information.", self.program));
        ExitCode::FAILURE
    }

    /// What messages begin with.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// The program's name for itself: `pg_basebackup`.
    pub(crate) fn alias(&self) -> &'static str {
        self.tool.alias.unwrap_or(self.tool.name)
    }
}

/// Runs the tool that `arguments` name: the first of them is how this program was called.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    if let Some(tool) = TOOLS.iter().find(|tool| tool.alias == Some(called.as_str())) {
        return (tool.run)(&Invocation { program: called, tool, alias: true }, arguments.collect());
    }
    let Some(name) = arguments.next() else {
        output::put(usage());
        return ExitCode::FAILURE;
    };
    match name.to_string_lossy().as_ref() {
        "--help" | "-?" | "-h" | "help" => output::answer("backstop-client", usage()),
        "--version" | "-V" => {
            output::answer("backstop-client", concat!("backstop-client ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        name => {
            if let Some(tool) = TOOLS.iter().find(|tool| tool.name == name || tool.alias == Some(name)) {
                let program = format!("backstop-client {}", tool.name);
                return (tool.run)(&Invocation { program, tool, alias: false }, arguments.collect());
            }
            tell(format_args!("backstop-client: error: unknown tool {name:?}"));
            tell("backstop-client: hint: Try \"backstop-client --help\" for more information.");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let line = |tool: &Tool| {
        let alias = tool.alias.map(|alias| format!(" (as {alias})")).unwrap_or_default();
        format!("  {:<15} {}{alias}\n", tool.name, tool.about)
    };
    let tools: String = TOOLS.iter().map(line).collect();
    let example = "backstop-client basebackup -h localhost -U backup -D /var/backups/monday";
    let library = "Programs of your own use the library: `cargo doc -p backstop-client`, and the example \"blobs\",\n\
                   which keeps each content once (cargo run -p backstop-client --example blobs).";
    format!("Usage: backstop-client TOOL [OPTION]...\n\nTools:\n{tools}\nExample:\n  {example}\n\n{library}\n")
}
