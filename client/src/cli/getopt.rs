//! Options as `getopt_long` reads them, and its words about those that it cannot read.
//!
//! clap does the reading: glued and separate values, bundles, unambiguous beginnings of long options, operands anywhere, `--`.
//! The last value of an option counts, and a value may begin with a hyphen.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, Parser};

use super::{Invocation, help, output};

/// Whose options are understood.
const RELEASE: &str = "18.0";

/// The options in `arguments`, which are those behind the tool's name. An error, `--help` and `--version` have been answered; the
/// tool then ends with the code.
pub(crate) fn parse<T: Parser>(invocation: &Invocation, arguments: Vec<OsString>) -> Result<T, ExitCode> {
    let command = understood(T::command());
    let last = arguments.last().cloned().unwrap_or_default();
    let matches = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Err(explain(invocation, &command, &error, &last.to_string_lossy())),
    };
    if matches.get_flag("help") {
        return Err(output::answer(invocation.program(), help::render(invocation, &command)));
    }
    if matches.get_flag("version") {
        return Err(output::answer(invocation.program(), format_args!("{}\n", version(invocation))));
    }
    T::from_arg_matches(&matches).map_err(|error| invocation.error(error))
}

/// As PostgreSQL's tools say it where this one stands in for them: scripts read the number.
fn version(invocation: &Invocation) -> String {
    let ours = env!("CARGO_PKG_VERSION");
    if invocation.alias {
        format!("{} (PostgreSQL) {RELEASE} (Backstop {ours})", invocation.program)
    } else {
        format!("{} {ours}", invocation.program)
    }
}

fn understood(command: Command) -> Command {
    let flag = |name: &'static str, short, about: &'static str| {
        Arg::new(name).short(short).long(name).action(ArgAction::SetTrue).help(about).help_heading(help::OTHER)
    };
    command
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .mut_args(|arg| {
            let value = !arg.is_positional() && arg.get_action().takes_values();
            arg.allow_hyphen_values(value)
        })
        .arg(flag("version", 'V', "output version information, then exit"))
        .arg(flag("help", '?', "show this help, then exit"))
}

/// Says what is wrong: with an option in getopt's words, with a value in the tool's.
fn explain(invocation: &Invocation, command: &Command, error: &clap::Error, last: &str) -> ExitCode {
    if let (ErrorKind::ValueValidation, Some(problem)) = (error.kind(), error.source()) {
        return invocation.error(problem);
    }
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        Some(ContextValue::Strings(arguments)) => arguments.first().map_or("", String::as_str),
        _ => "",
    };
    // `--pgdata <DIRECTORY>`, `--nosuch=1`
    let option = argument.split([' ', '=']).next().unwrap_or_default().trim_end_matches('.');
    let problem = match error.kind() {
        ErrorKind::UnknownArgument => unknown(command, option),
        ErrorKind::InvalidValue if last.starts_with("--") => format!("option '{option}' requires an argument"),
        ErrorKind::InvalidValue => {
            let short = command.get_arguments().find(|arg| option.strip_prefix("--") == arg.get_long());
            let short = short.and_then(Arg::get_short).unwrap_or_else(|| option.chars().last().unwrap_or('-'));
            format!("option requires an argument -- '{short}'")
        }
        ErrorKind::TooManyValues => format!("option '{option}' doesn't allow an argument"),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return invocation.usage_error(first.strip_prefix("error: ").unwrap_or(first));
        }
    };
    output::tell(format_args!("{}: {problem}", invocation.program));
    invocation.hint()
}

fn unknown(command: &Command, option: &str) -> String {
    let Some(long) = option.strip_prefix("--") else {
        return format!("invalid option -- '{}'", option.trim_start_matches('-'));
    };
    let longs = command.get_arguments().filter_map(Arg::get_long).filter(|known| known.starts_with(long));
    let possible: String = longs.map(|known| format!(" '--{known}'")).collect();
    if possible.is_empty() {
        format!("unrecognized option '{option}'")
    } else {
        format!("option '{option}' is ambiguous; possibilities:{possible}")
    }
}

/// The options in a line of words without the tool's name, for tests.
#[cfg(test)]
pub(crate) fn read<T: Parser>(words: &str) -> Result<T, String> {
    let matches = understood(T::command()).try_get_matches_from(words.split_whitespace());
    matches.and_then(|matches| T::from_arg_matches(&matches)).map_err(|error| error.to_string())
}
