//! `--help` in PostgreSQL's style, from what clap knows of the options.

use std::fmt::Write;

use clap::{Arg, Command};

use super::Invocation;

/// The heading of the options that every tool has, and of those that give none.
pub(crate) const OTHER: &str = "Other options";
/// No line is longer, in characters.
const WIDTH: usize = 95;
/// Where explanations begin.
const COLUMN: usize = 27;

/// All of it.
pub(super) fn render(invocation: &Invocation, command: &Command) -> String {
    let Invocation { program, tool, .. } = invocation;
    let mut text = format!("{program} {}.\n\nUsage:\n  {program} {}\n", tool.about, tool.operands);
    let shown = |arg: &&Arg| !arg.is_hide_set() && !arg.is_positional();
    let mut headings: Vec<&str> = Vec::new();
    for heading in command.get_arguments().filter(shown).map(heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let _ = write!(text, "\n{heading}:\n");
        for arg in command.get_arguments().filter(shown).filter(|arg| self::heading(arg) == heading) {
            text.push_str(&entry(arg));
        }
    }
    if let Some(more) = command.get_after_help() {
        let _ = write!(text, "\n{}\n", more.to_string().trim_end().replace("{program}", program));
    }
    text
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or(OTHER)
}

/// `  -D, --pgdata=DIRECTORY   receive base backup into directory`
fn entry(arg: &Arg) -> String {
    let mut spelled = match arg.get_short() {
        Some(short) => format!("  -{short}"),
        None => "     ".to_owned(),
    };
    if let Some(long) = arg.get_long() {
        spelled.push_str(if arg.get_short().is_some() { ", --" } else { " --" });
        spelled.push_str(long);
    }
    if arg.get_action().takes_values()
        && let Some(value) = arg.get_value_names().and_then(|names| names.first())
    {
        spelled.push('=');
        spelled.push_str(value);
    }
    let mut line =
        if spelled.len() < COLUMN { format!("{spelled:COLUMN$}") } else { format!("{spelled}\n{:COLUMN$}", "") };
    let mut width = COLUMN;
    for word in arg.get_help().map(ToString::to_string).unwrap_or_default().split_whitespace() {
        if width > COLUMN && width + 1 + word.len() > WIDTH {
            let _ = write!(line, "\n{:COLUMN$}", "");
            width = COLUMN;
        }
        if width > COLUMN {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += word.len();
    }
    line.push('\n');
    line
}
