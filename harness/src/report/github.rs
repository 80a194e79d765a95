//! Annotations for GitHub Actions.

use std::io::{self, Write};

use super::{Report, again, failures};
use crate::event::{Event, Finished};
use crate::verdict::Verdict;

/// Writes a workflow command for each case that does not pass and is not known to, on the line of its scenario file that asks for what did not
/// hold: an error, or a warning if it is only weak. Where a job prints them, they stand beside the file's text.
#[derive(Debug)]
pub struct Github<W> {
    out: W,
}

impl<W: Write> Github<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    fn finished(&mut self, finished: &Finished) -> io::Result<()> {
        let command = match finished.verdict {
            Verdict::Pass => return Ok(()),
            _ if finished.known.is_some() => return Ok(()),
            Verdict::Weak => "warning",
            _ => "error",
        };
        let case = &finished.case;
        let title = format!("{} ({}): {}", case.id, case.client, finished.verdict);
        let mut message = failures(finished);
        message.push(format!("again: {}", again(case, finished.seed)));
        writeln!(
            self.out,
            "::{command} file={},line={},title={}::{}",
            property(&case.path.display().to_string()),
            finished.line.unwrap_or(1),
            property(&title),
            data(&message.join("\n")),
        )
    }
}

/// A command's text, with the escapes of `@actions/core`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a command's property, which commas and colons would end.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

impl<W: Write> Report for Github<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::CaseFinished(finished) => self.finished(finished),
            Event::RunFinished { .. } => self.out.flush(),
            _ => Ok(()),
        }
    }
}
