//! A run or a server that is killed leaves nothing in memory or on disk.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use support::until;

#[test]
fn what_clients_have_written_goes_with_a_killed_run() {
    let place = tempfile::tempdir().expect("a directory");
    let (script, case, scratch) =
        (place.path().join("client"), place.path().join("case.toml"), place.path().join("scratch"));
    // Whoever cleans up has to get into what the client has closed behind it.
    fs::write(&script, "mkdir -p \"$1/closed\"\n: >\"$1/closed/file\"\nchmod 500 \"$1/closed\"\nexec sleep 20\n")
        .expect("a script");
    fs::write(&case, "summary = \"s\"\nbecause = \"b\"\n").expect("a file");
    fs::create_dir(&scratch).expect("a directory");
    let client = format!("exec=/bin/sh {} {{dir}}", script.display());
    let mut run = Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args([
            "run".as_ref(),
            case.as_os_str(),
            "--client".as_ref(),
            client.as_ref(),
            "--scratch".as_ref(),
            scratch.as_os_str(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("backstop");
    let closed = || {
        let cases = fs::read_dir(&scratch).into_iter().flatten().flatten();
        cases.into_iter().any(|case| case.path().join("backup/target/closed").exists())
    };
    until("the client's work", closed);
    run.kill().expect("a signal");
    run.wait().expect("an end");
    until("the removal of what it made", || fs::read_dir(&scratch).is_ok_and(|mut left| left.next().is_none()));
}

#[test]
fn the_directory_of_a_killed_server_goes() {
    let place = tempfile::tempdir().expect("a directory");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_backstop"));
    serve.args(["serve", "sound/plain[server.version=18,client.wal=none]", "--listen", "127.0.0.1:0"]);
    serve.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env("TMPDIR", place.path());
    let mut serve = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("backstop");
    let empty = || fs::read_dir(place.path()).is_ok_and(|mut left| left.next().is_none());
    until("the server's directory", || !empty());
    serve.kill().expect("a signal");
    serve.wait().expect("an end");
    until("its removal", empty);
}
