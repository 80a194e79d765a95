//! `backstop run` says how far it is, to people only.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const SWEEP: &str = "summary = \"A sweep\"\nbecause = \"It takes a while\"\n[server]\nwal-segment-size = \"1MiB\"\n\
    [cluster]\nsize = \"64KiB\"\n[[client]]\nname = \"backup\"\nwal = \"none\"\n\
    [[fault]]\nwhen.every = { unit = \"message\", step = 9 }\ndo.close = {}\n[expect.backup]\nmust.outcome = \"failure\"\n";

fn run(scenarios: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command
        .args(["run", "--scenarios"])
        .arg(scenarios)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR")
        .env("TERM", "xterm");
    command
}

fn scenarios() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("sweep.toml"), SWEEP).expect("a file");
    directory
}

#[test]
fn a_terminal_shows_how_far_the_run_is() {
    let scenarios = scenarios();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
    let name = ptsname(&ours, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let theirs = File::options().read(true).write(true).open(name).expect("its other end");
    let mut command = run(scenarios.path());
    command.stdout(Stdio::piped()).stderr(OwnedFd::from(theirs));
    let child = command.spawn().expect("it runs");
    // Until this is gone the terminal has another end.
    drop(command);
    let mut shown = Vec::new();
    // When the last other end is closed, reading fails: everything has come by then.
    let _ = File::from(ours).read_to_end(&mut shown);
    let output = child.wait_with_output().expect("it ends");
    let (shown, said) = (String::from_utf8_lossy(&shown), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}{shown}");
    assert!(shown.contains(" cases, "), "{shown:?}");
    assert!(said.contains(" cases/s; in memory "), "{said}");
    assert!(!said.contains('\u{1b}'), "what goes to a pipe is plain: {said}");
}

#[test]
fn a_pipe_gets_nothing_of_it() {
    let scenarios = scenarios();
    let output = run(scenarios.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!said.contains('\r') && !said.contains('\u{1b}'), "{said:?}");
}
