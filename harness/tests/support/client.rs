//! The client's own binary.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

/// `backstop-client`, as the whole workspace's tests build it. It belongs to another package, which does not tell where it is.
pub fn client_program() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("the target directory");
    let program = target.join("backstop-client");
    assert!(program.is_file(), "{} was not built: cargo build --workspace --bins", program.display());
    program
}

/// The client with these arguments, and without anything of the environment.
pub fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(client_program());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A tool of the client, at work on a server.
pub fn tool(name: &str, port: u16, arguments: &[&str]) -> Command {
    let mut command = bare(&[name, "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "backstop", "-w"]);
    command.args(arguments);
    command
}

/// What a command has told a person.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
