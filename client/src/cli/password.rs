//! Asking a person for a password.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Asks on the terminal, without showing what is typed.
pub(super) fn ask() -> io::Result<String> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let read = terminal.write_all(b"Password: ").and_then(|()| {
        let mut line = String::new();
        BufReader::new(&terminal).read_line(&mut line).map(|_| line)
    });
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    read.map(|line| line.trim_end_matches(['\r', '\n']).to_owned())
}
