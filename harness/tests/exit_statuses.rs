//! The exit status of `backstop run`: each of them, from the command line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const PLAIN: &str = "summary = \"A plain backup\"\nbecause = \"It must work\"\n";

/// A directory with scenarios, the scripts that play clients, and room for what cases leave.
struct World {
    directory: TempDir,
}

impl World {
    fn new(scenarios: &[(&str, &str)]) -> Self {
        let world = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::create_dir(world.scratch()).expect("a directory");
        for (id, text) in scenarios {
            let path = world.scenarios().join(id).with_extension("toml");
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        world
    }

    fn scenarios(&self) -> PathBuf {
        self.directory.path().join("scenarios")
    }

    /// Where cases happen: `TMPDIR`.
    fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    /// A client that does what a shell does with `text`; `$1` is its target.
    fn client(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        // Read by a shell, not run: a file that is being written when another thread starts a program cannot be run.
        fs::write(&path, format!("{text}\n")).expect("a script");
        format!("exec=/bin/sh {} {{dir}}", path.display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
        command.arg("run").args(arguments).arg("--scenarios").arg(self.scenarios());
        command.env("TMPDIR", self.scratch()).env("BACKSTOP_SCRATCH", self.scratch()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("it runs");
        let left = fs::read_dir(self.scratch()).expect("a directory").count();
        assert_eq!(left, 0, "something was left in the scratch directory");
        output
    }

    /// Checks the end of a run that was cancelled.
    fn assert_cancelled(&self, output: &Output) {
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("cancelled: the other cases did not run"), "{said}");
        assert!(!said.contains("HANG"), "what a cancelled client did says nothing about it: {said}");
        let left: Vec<_> = fs::read_dir(self.scratch()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The exit status, and the verdict of every case.
    fn verdicts(&self, arguments: &[&str]) -> (i32, BTreeMap<String, String>) {
        let output = self.run(&[arguments, &["--report", "json=-"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {said}"));
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let cases = report["cases"].as_array().expect("cases").iter();
        let verdicts = cases.map(|case| (text(&case["id"]), text(&case["verdict"])));
        (output.status.code().expect("no signal"), verdicts.collect())
    }

    /// The exit status when `client` runs a plain backup, and its verdict.
    fn verdict_on(&self, client: &str) -> (i32, String) {
        let (status, mut verdicts) = self.verdicts(&["plain", "--client", client]);
        (status, verdicts.remove("plain").expect("one case"))
    }
}

fn plain() -> World {
    World::new(&[("plain", PLAIN)])
}

#[test]
fn status_0_if_every_verdict_is_a_pass() {
    assert_eq!(plain().verdict_on("builtin"), (0, "pass".to_owned()));
}

#[test]
fn a_weak_verdict_is_status_0_and_100_when_strict() {
    let world = World::new(&[("weak", &format!("{PLAIN}[expect.backup]\nshould.outcome = \"failure\"\n"))]);
    let weak = BTreeMap::from([("weak".to_owned(), "weak".to_owned())]);
    assert_eq!(world.verdicts(&[]), (0, weak.clone()));
    assert_eq!(world.verdicts(&["--strict"]), (100, weak));
}

#[test]
fn status_100_if_a_must_fails() {
    let world = World::new(&[("wrong", &format!("{PLAIN}[expect.backup]\nmust.outcome = \"failure\"\n"))]);
    assert_eq!(world.verdicts(&[]), (100, BTreeMap::from([("wrong".to_owned(), "fail".to_owned())])));
}

#[test]
fn status_101_if_a_success_left_no_backup() {
    let world = plain();
    let client = world.client("liar", "mkdir -p \"$1\"");
    assert_eq!(world.verdict_on(&client), (101, "silent_corruption".to_owned()));
}

#[test]
fn status_102_if_a_client_does_not_end() {
    let story = format!("{PLAIN}[[client]]\nname = \"backup\"\ntimeout = \"100ms\"\n");
    let world = World::new(&[("plain", &story)]);
    let client = world.client("sleeper", "exec sleep 1000");
    assert_eq!(world.verdict_on(&client), (102, "hang".to_owned()));
}

#[test]
fn status_103_if_something_outside_the_target_changed() {
    let world = plain();
    let client = world.client("stray", "mkdir -p \"$1\"; echo mine > \"$1/../../outside/file\"; exit 1");
    assert_eq!(world.verdict_on(&client), (103, "escape".to_owned()));
}

#[test]
fn status_104_if_a_client_dies_by_a_signal() {
    let world = plain();
    let client = world.client("suicide", "kill -SEGV $$");
    assert_eq!(world.verdict_on(&client), (104, "crash".to_owned()));
}

#[test]
fn the_worst_verdict_decides() {
    let world = plain();
    let (liar, stray) = (
        world.client("liar", "mkdir -p \"$1\""),
        world.client("stray", "mkdir -p \"$1\"; touch \"$1/../../outside/x\""),
    );
    let output = world.run(&["--client", &liar, "--client", &stray, "--client", "builtin"]);
    assert_eq!(output.status.code(), Some(103), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn status_96_without_room_for_the_cases() {
    let world = plain();
    let nowhere = world.directory.path().join("nowhere");
    let mut command = world.command(&["plain"]);
    let output = command.env("TMPDIR", &nowhere).env("BACKSTOP_SCRATCH", &nowhere).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(96), "{said}");
    assert!(said.contains("could not prepare a directory for case plain") && said.contains("nowhere"), "{said}");
}

#[test]
fn a_sweep_that_finds_nothing_is_status_100() {
    let sweep = "[[client]]\nname = \"backup\"\nwal = \"none\"\n[[fault]]\n\
        when.every = { unit = \"byte\", archive = \"16400.tar\", step = \"1KiB\" }\ndo.crash = {}\n";
    let world = World::new(&[("nothing", &format!("{PLAIN}{sweep}"))]);
    assert_eq!(world.verdicts(&[]), (100, BTreeMap::from([("nothing".to_owned(), "fail".to_owned())])));
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("a sweep has steps"), "{said}");
}

/// Whether a process is still there and not a zombie.
fn is_alive(process: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(process).join("stat"));
    state.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Ctrl-C ends the run with the status that shells report, and with it the client, what the client started, and all that lay
/// on disk. SIGTERM, by which `timeout` and CI servers end what runs, does the same.
#[test]
fn status_130_when_cancelled_and_nothing_stays_behind() {
    for signal in ["INT", "TERM"] {
        let world = World::new(&[("first", PLAIN), ("second", PLAIN)]);
        let pipe = world.directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let script = format!("mkdir -p \"$1\"\nsleep 1000 &\necho $$ $! > {}\nwait", pipe.display());
        let client = world.client("sleeper", &script);
        let mut command = world.command(&["--jobs", "1", "--client", &client]);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        // Opening a pipe waits for its other end: by then the client runs.
        let mut processes = String::new();
        fs::File::open(&pipe).and_then(|mut pipe| pipe.read_to_string(&mut processes)).expect("two numbers");
        let processes: Vec<&str> = processes.split_whitespace().collect();
        assert!(processes.len() == 2 && processes.iter().all(|process| is_alive(process)), "{processes:?}");
        send(signal, run.id());
        world.assert_cancelled(&run.wait_with_output().expect("it ends"));
        let alive: Vec<_> = processes.into_iter().filter(|process| is_alive(process)).collect();
        assert_eq!(alive, Vec::<&str>::new());
    }
}

#[test]
fn status_130_when_cancelled_between_cases_in_process() {
    // More steps than anybody waits for.
    let sweep = "[server]\nwal-segment-size = \"1MiB\"\n[cluster]\nsize = \"64KiB\"\n\
        [[client]]\nname = \"backup\"\nwal = \"none\"\n[[fault]]\n\
        when.every = { unit = \"byte\", archive = \"base.tar\", step = \"1B\", before = \"50000B\" }\ndo.close = {}\n";
    let world = World::new(&[("plain", PLAIN), ("sweep", &format!("{PLAIN}{sweep}"))]);
    let mut command = world.command(&["--jobs", "2"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut said = BufReader::new(run.stdout.take().expect("a pipe"));
    let mut first = String::new();
    said.read_line(&mut first).expect("a line");
    assert_eq!(first, "2 cases, builtin against mock\n");
    send("INT", run.id());
    let mut output = run.wait_with_output().expect("it ends");
    said.read_to_end(&mut output.stdout).expect("the rest");
    world.assert_cancelled(&output);
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// A client may leave something running that keeps its output open. The run does not wait for that.
#[test]
fn what_a_client_leaves_running_ends_with_it_or_is_not_waited_for() {
    let world = plain();
    let left = |name: &str| fs::read_to_string(world.directory.path().join(name)).expect("a number").trim().to_owned();
    let note = |name: &str| world.directory.path().join(name).display().to_string();
    let script = format!("sleep 1000 & echo $! > {}\necho begun\nexit 1", note("child"));
    let client = world.client("parent", &script);
    assert_eq!(world.verdict_on(&client), (0, "pass".to_owned()));
    assert!(!is_alive(&left("child")));
    // This one cannot be found again: it has left the group.
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' &\nexit 1", note("daemon"));
    let client = world.client("daemon-parent", &script);
    let (status, verdict) = world.verdict_on(&client);
    if let Ok(daemon) = fs::read_to_string(world.directory.path().join("daemon")) {
        let _ = Command::new("kill").arg(daemon.trim()).status();
    }
    assert_eq!((status, verdict), (0, "pass".to_owned()));
}
