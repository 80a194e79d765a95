//! `--server docker`: PostgreSQL of an image, through the same scenarios, and nothing left behind.
//!
//! Where no engine answers or an image is missing, a test says so and is skipped; `BACKSTOP_REQUIRE_DOCKER` turns that into a failure.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::until;

/// The engine's command.
fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).stdin(Stdio::null()).output().expect("docker starts")
}

/// Whether the image of a release is there; the reason is told if not.
fn has_image(major: u16, what: &str) -> bool {
    let mut ask = Command::new("docker");
    ask.args(["image", "inspect", &format!("postgres:{major}")]).stdout(Stdio::null()).stderr(Stdio::null());
    if ask.status().is_ok_and(|status| status.success()) {
        return true;
    }
    let required = std::env::var("BACKSTOP_REQUIRE_DOCKER").unwrap_or_default();
    let required = required == "1" || required.split_ascii_whitespace().any(|word| word == major.to_string());
    assert!(!required, "{what}: no image postgres:{major}, and BACKSTOP_REQUIRE_DOCKER asks for it");
    println!("skipped: {what}: no container engine, or no image postgres:{major}");
    false
}

/// The containers of the process `pid` that are there, running or not.
fn containers(pid: u32) -> String {
    let output = docker(&["ps", "-a", "-q", "--filter", &format!("name=backstop-{pid}-")]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// `backstop run` with arguments, in `scratch`: how it ended, what it said, and its process id.
fn run(arguments: &[&str], scratch: &Path) -> (Option<i32>, String, u32) {
    let child = backstop(arguments, scratch).spawn().expect("backstop");
    let pid = child.id();
    let output = child.wait_with_output().expect("an end");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned(), pid)
}

fn backstop(arguments: &[&str], scratch: &Path) -> Command {
    let mut backstop = Command::new(env!("CARGO_BIN_EXE_backstop"));
    backstop.arg("run").args(arguments).arg("--scratch").arg(scratch).stdout(Stdio::piped()).stderr(Stdio::piped());
    backstop.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    backstop
}

/// A directory that servers' users can enter, with a short path.
fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = tempfile::Builder::new().prefix("bs-").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("a directory");
    scratch
}

/// What runs of `backstop` leave in a directory.
fn left(scratch: &Path) -> Vec<String> {
    let entries = fs::read_dir(scratch).expect("a directory").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("backstop-"))
        .collect()
}

#[test]
fn scenarios_are_played_in_containers() {
    let releases: Vec<u16> = [15, 18].into_iter().filter(|major| has_image(*major, "servers in containers")).collect();
    let scratch = scratch();
    for major in releases {
        let cases = [
            format!("sound/plain[server.version={major},client.wal=stream]"),
            format!("sound/tablespaces[server.version={major},client.format=plain]"),
        ];
        let arguments: Vec<&str> = cases.iter().map(String::as_str).chain(["--server", "docker"]).collect();
        let (status, said, pid) = run(&arguments, scratch.path());
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("2 passed"), "{said}");
        assert_eq!(containers(pid), "");
        assert_eq!(left(scratch.path()), Vec::<String>::new());
    }
}

#[test]
fn a_fault_strikes_before_a_container_and_one_image_serves_its_release() {
    if !has_image(15, "a fault before a container") {
        return;
    }
    let scratch = scratch();
    let path = scratch.path().join("case.toml");
    let text = "summary = \"s\"\nbecause = \"b\"\n[matrix]\nserver.version = [\"15\", \"18\"]\n\
                [[fault]]\nwhen.member = { path = \"PG_VERSION\" }\ndo.crash = {}\n\
                [expect.backup]\nmust.outcome = \"failure\"\nmust.leaves = \"nothing-restorable\"\n";
    fs::write(&path, text).expect("a file");
    let (status, said, pid) = run(&[path.to_str().expect("a path"), "--server", "docker=postgres:15"], scratch.path());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 passed") && said.contains("1 skipped"), "{said}");
    assert_eq!(containers(pid), "");
}

#[test]
fn an_image_that_there_is_not_is_one_error() {
    if !has_image(15, "an image that there is not") {
        return;
    }
    let scratch = scratch();
    for image in ["docker=localhost:9/no-such-image:1", "docker=localhost:9/no-such-image:{major}"] {
        let (status, said, pid) =
            run(&["sound/plain[server.version=15,client.wal=none]", "--server", image], scratch.path());
        assert_eq!(status, Some(96), "{said}");
        let error = said.lines().last().unwrap_or_default();
        assert!(error.starts_with("error: image localhost:9/no-such-image:1"), "{said}");
        assert_eq!(containers(pid), "");
        assert_eq!(left(scratch.path()), Vec::<String>::new());
    }
}

#[test]
fn no_engine_is_one_error() {
    let scratch = scratch();
    let mut backstop = backstop(&["sound/plain", "--server", "docker"], scratch.path());
    let output = backstop.env("BACKSTOP_CONTAINER_ENGINE", "/nowhere/docker").output().expect("backstop");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(96), "{said}");
    assert!(said.starts_with("error: could not run the container engine /nowhere/docker: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A run that goes on for long.
fn long(scratch: &Path) -> std::process::Child {
    let path = scratch.join("long.toml");
    let text = "summary = \"s\"\nbecause = \"b\"\n[server]\nversion = \"15\"\n[matrix]\nclient.format = [\"plain\", \"tar\"]\n\
                [[client]]\nname = \"backup\"\nwal = \"none\"\nmax-rate = \"1MiB/s\"\n";
    fs::write(&path, text).expect("a file");
    backstop(&[path.to_str().expect("a path"), "--server", "docker", "--jobs", "1"], scratch).spawn().expect("backstop")
}

#[test]
fn a_run_that_is_told_to_stop_leaves_no_container() {
    if !has_image(15, "a run in containers that is told to stop") {
        return;
    }
    let scratch = scratch();
    let run = long(scratch.path());
    until("a container", || !containers(run.id()).is_empty());
    let pid = i32::try_from(run.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("a signal");
    let number = run.id();
    let output = run.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(containers(number), "");
    assert_eq!(left(scratch.path()), Vec::<String>::new());
}

#[test]
fn a_killed_run_leaves_no_container() {
    if !has_image(15, "a killed run in containers") {
        return;
    }
    let scratch = scratch();
    let mut run = long(scratch.path());
    until("a container", || !containers(run.id()).is_empty());
    run.kill().expect("a signal");
    run.wait().expect("an end");
    until("the end of the container", || containers(run.id()).is_empty());
    until("the end of its directories", || left(scratch.path()).is_empty());
}

#[test]
fn a_container_that_dies_ends_the_run_with_one_error() {
    if !has_image(15, "a container that dies") {
        return;
    }
    let scratch = scratch();
    let run = long(scratch.path());
    let number = run.id();
    // The first backup takes long enough to be in the middle of it.
    until("a server", || {
        let top = docker(&["top", &format!("backstop-{number}-1")]);
        String::from_utf8_lossy(&top.stdout).contains("walsender")
    });
    docker(&["kill", &format!("backstop-{number}-1")]);
    let output = run.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(96), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(
        said.lines().last().is_some_and(|line| line.starts_with("error: the container of postgres:15 has ended")),
        "{said}"
    );
    assert_eq!(containers(number), "");
    assert_eq!(left(scratch.path()), Vec::<String>::new());
}
