//! A line at the bottom of a terminal that says how far a run is. Nobody sees it in a pipe or a file.

use std::io::{self, LineWriter, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;

const LINE: &str = "{bar:24} {pos}/{len} cases, {elapsed}{msg}";

/// How far a run is: on standard error, if that is a terminal.
#[derive(Clone, Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar of nothing, not drawn before the run begins.
    pub(super) fn new() -> Self {
        // Draws nothing unless standard error is a terminal.
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        // The template is a constant; a bar in another style is a bar, too.
        Self(bar.with_style(ProgressStyle::with_template(LINE).unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Follows the run.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::RunStarted { cases, .. } => self.0.set_length(*cases as u64),
            // In place of the one that stood for them.
            Event::CasesFound { cases, .. } => self.0.inc_length((*cases as u64).saturating_sub(1)),
            Event::CaseFinished(finished) => {
                if finished.verdict.is_failure(false) && finished.known.is_none() {
                    self.0.set_message(", not all of them well");
                }
                self.0.inc(1);
            }
            Event::Skipped { .. } => self.0.inc(1),
            Event::RunFinished { .. } => self.0.finish_and_clear(),
            Event::CaseStarted(_) | Event::Progress { .. } | Event::Blessed { .. } => {}
        }
    }
}

/// Writes whole lines above a bar.
#[derive(Debug)]
pub(super) struct Beside<W: Write>(LineWriter<Above<W>>);

#[derive(Debug)]
struct Above<W> {
    out: W,
    bar: Bar,
}

impl<W: Write> Beside<W> {
    /// `out`, which may be the terminal that `bar` is drawn on.
    pub(super) fn new(out: W, bar: &Bar) -> Self {
        Self(LineWriter::new(Above { out, bar: bar.clone() }))
    }
}

impl<W: Write> Write for Above<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { out, bar } = self;
        bar.0.suspend(|| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Write for Beside<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_as_they_end_and_the_rest_when_there_is_no_more() {
        let bar = Bar::on(ProgressDrawTarget::hidden());
        let mut beside = Beside::new(Vec::new(), &bar);
        write!(beside, "{}: {}\nand more", 1, 2).expect("it can be written");
        assert_eq!(beside.0.get_ref().out, b"1: 2\n");
        beside.flush().expect("it can be written");
        assert_eq!(beside.0.get_ref().out, b"1: 2\nand more");
    }
}
