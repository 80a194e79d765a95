//! What people read of a tool.
//!
//! Whoever read it may have gone, or keep it on a disk that is full. A line that nobody gets is no reason to fail, least of all
//! in the middle of a backup.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Writes a line on standard error, at once, so that lines of several processes stay whole.
pub(super) fn tell(line: impl Display) {
    put(format!("{line}\n"));
}

/// Writes text on standard error that does not end the line.
pub(super) fn put(text: impl Display) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Writes to standard output what was asked for, and nothing else was.
pub(super) fn answer(program: &str, text: impl Display) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(text.to_string().as_bytes()).and_then(|()| stdout.flush()) {
        // As `head` does it.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            tell(format_args!("{program}: error: could not write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Standard output for bytes: without the buffer of [`io::Stdout`], which looks for the ends of lines.
#[derive(Debug)]
pub(super) struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
