//! How far long work is: a bar on a terminal, PostgreSQL's own lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::tell;

/// Lines come no faster than this.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Nor does a bar move faster: whoever watches sees it move, and a slow terminal does not slow the work.
const BETWEEN_MOVES: Duration = Duration::from_millis(100);

/// Shows progress on standard error.
pub(super) struct Gauge {
    form: Form,
    /// When it was shown last.
    shown: Option<Instant>,
}

enum Form {
    /// Nobody asked for it.
    Off,
    /// For files and pipes, and whoever reads them.
    Lines,
    /// For people.
    Bar(ProgressBar),
}

impl Gauge {
    pub(super) fn new(wanted: bool) -> Self {
        let form = match (wanted, std::io::stderr().is_terminal()) {
            (false, _) => Form::Off,
            (true, false) => Form::Lines,
            (true, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("[{wide_bar}] {msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
                Form::Bar(bar)
            }
        };
        Self { form, shown: None }
    }

    /// Whether there is a bar, beside which there is little room.
    pub(super) fn is_bar(&self) -> bool {
        matches!(self.form, Form::Bar(_))
    }

    /// Says what is being waited for, before there is anything to count.
    pub(super) fn wait(&self, text: &str) {
        match &self.form {
            Form::Off => {}
            Form::Lines => tell(text),
            Form::Bar(bar) => bar.set_message(text.to_owned()),
        }
    }

    /// Shows that so many bytes of so many are done, if it is time to; `line` says so in PostgreSQL's words. At the end it is
    /// always time.
    pub(super) fn show(&mut self, done: u64, total: u64, finished: bool, line: impl FnOnce() -> String) {
        let pause = match &self.form {
            Form::Off => return,
            Form::Lines => BETWEEN_LINES,
            Form::Bar(_) => BETWEEN_MOVES,
        };
        let now = Instant::now();
        if !finished && self.shown.is_some_and(|shown| now.duration_since(shown) < pause) {
            return;
        }
        self.shown = Some(now);
        match &self.form {
            Form::Off => {}
            Form::Lines => tell(line()),
            Form::Bar(bar) if finished => {
                bar.finish_and_clear();
                tell(line().trim_end());
                self.form = Form::Off;
            }
            Form::Bar(bar) => {
                bar.update(|state| {
                    state.set_len(total.max(done));
                    state.set_pos(done);
                });
                bar.set_message(line());
            }
        }
    }

    /// Prints a line of something else beside it.
    pub(super) fn say(&self, text: &str) {
        match &self.form {
            Form::Off | Form::Lines => tell(text),
            Form::Bar(bar) => bar.suspend(|| tell(text)),
        }
    }

    /// Leaves it as it is: the work failed.
    pub(super) fn abandon(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.abandon();
        }
    }
}
