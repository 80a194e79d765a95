//! Asking a person for a password.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Asks on the terminal, without showing what is typed; without a terminal, on standard error and input. None if nobody answers.
///
/// # Errors
/// A signal ends the question, and the terminal is as it was before. Signals may have handlers by now, which would only note them.
pub(super) fn ask() -> io::Result<Option<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // Before the terminal falls silent: nobody else would make it speak again.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let terminal = File::options().read(true).write(true).open("/dev/tty").ok();
        let silence = terminal.as_ref().map(Silence::new).transpose()?;
        say(terminal.as_ref(), "Password: ")?;
        let (tell, told) = oneshot::channel();
        let from = terminal.as_ref().map(File::try_clone).transpose()?;
        // It reads until the process ends, if nobody answers.
        std::thread::spawn(move || {
            let _ = tell.send(match from {
                Some(terminal) => read_answer(&mut BufReader::new(terminal)),
                None => read_answer(&mut io::stdin().lock()),
            });
        });
        let canceled = |name| Err(io::Error::other(format!("canceled by {name} signal")));
        let answer = tokio::select! {
            answer = told => answer.unwrap_or(Ok(None)),
            _ = interrupt.recv() => canceled("interrupt"),
            _ = terminate.recv() => canceled("terminate"),
        };
        drop(silence);
        say(terminal.as_ref(), "\n")?;
        answer
    })
}

fn say(terminal: Option<&File>, text: &str) -> io::Result<()> {
    match terminal {
        Some(mut terminal) => terminal.write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    }
}

fn read_answer(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = from.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A terminal that does not show what is typed, as long as this lives.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
