//! Scenarios on PostgreSQL of this machine: what it plays, what it cannot, and that nothing of it is left behind.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstop::plan::{ServerSpec, SubjectSpec};
use backstop::verdict::Verdict;
use backstop_scenarios::postgres::Installation;
use rustix::process::{Pid, Signal, kill_process};
use support::one_case::outcome;

fn spec(installation: &Installation) -> ServerSpec {
    let bin = installation.path("postgres");
    ServerSpec::Postgres(bin.parent().expect("a directory").to_owned())
}

/// A scenario of `version` with more keys.
fn scenario(version: u16, keys: &str) -> String {
    format!("summary = \"s\"\nbecause = \"b\"\n[server]\nversion = \"{version}\"\nwal-segment-size = \"1MiB\"\n{keys}")
}

/// Runs a scenario that has to pass on every installed release.
fn passes(what: &str, keys: &str) {
    for major in [15, 16, 18] {
        let Some(installation) = Installation::find_release(major, what) else { continue };
        let finished = outcome(&scenario(major, keys), SubjectSpec::Builtin, spec(&installation));
        let finished = finished.unwrap_or_else(|reason| unreachable!("{major} skips it: {reason}"));
        assert_eq!(finished.verdict, Verdict::Pass, "{major}: {:#?}", (finished.checks, finished.said));
        let started = finished.checks.iter().find(|check| check.check.ends_with("PostgreSQL starts on it"));
        let started = started.map(|check| check.actual.clone()).unwrap_or_default();
        assert!(started.starts_with(&format!("PostgreSQL {major} starts on it")), "{major}: {started}");
    }
}

const RESTORABLE: &str = "[[client]]\nname = \"backup\"\n[expect.backup]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n\
    [expect.server]\nmust.sessions = 0\nmust.running-backups = 0\n";

#[test]
fn a_server_with_tablespaces_on_a_later_timeline_is_backed_up() {
    passes(
        "tablespaces and timelines",
        &format!(
            "timeline = 3\nauth = \"scram-sha-256\"\nchecksums = false\n[cluster]\nsize = \"26MiB\"\n\
             [[cluster.tablespace]]\noid = 20000\nlocation = \"/srv/one\"\nsize = \"1MiB\"\n\
             [[cluster.tablespace]]\noid = 16500\nlocation = \"/srv/two\"\nsize = \"64KiB\"\n\
             [[cluster.file]]\npath = \"extra/notes.txt\"\nkind = {{ text = \"mine\" }}\n{RESTORABLE}"
        ),
    );
}

#[test]
fn a_standby_is_backed_up_while_its_primary_writes() {
    passes("a standby", &format!("role = \"standby\"\n[cluster]\nwal-rate = \"1MiB/s\"\n{RESTORABLE}"));
}

#[test]
fn a_second_client_starts_when_the_first_has_ended_and_shares_a_slot() {
    let clients = "[[client]]\nname = \"first\"\nslot = { existing = \"kept\" }\n\
        [[client]]\nname = \"backup\"\nslot = { existing = \"kept\" }\nstarts.client-end = { client = \"first\" }\n\
        [expect.first]\nmust.outcome = \"success\"\n\
        [expect.backup]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n[expect.server]\nmust.slots = 1\n";
    passes("slots and two clients", clients);
}

#[test]
fn an_incremental_backup_is_compared_block_by_block() {
    let Some(installation) = Installation::find_release(18, "incremental backups") else { return };
    let text = scenario(
        18,
        "settings = { summarize_wal = \"on\" }\n[cluster]\nwal-rate = \"1MiB/s\"\n\
         [[client]]\nname = \"full\"\n[[client]]\nname = \"later\"\nincremental-from = \"full\"\n\
         [expect.full]\nmust.outcome = \"success\"\n[expect.later]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n",
    );
    let finished = outcome(&text, SubjectSpec::Builtin, spec(&installation)).expect("it is played");
    assert_eq!(finished.verdict, Verdict::Pass, "{:#?}", (finished.checks, finished.said));
}

#[test]
fn a_client_that_changes_one_byte_is_found_out() {
    let Some(installation) = Installation::find("a client that changes a byte") else { return };
    let scratch = installation.scratch();
    let script = scratch.path().join("client.sh");
    let pg_basebackup = installation.path("pg_basebackup");
    let spoil =
        "file=$(ls -S \"$4\"/base/1/* | head -n 1)\nprintf x | dd of=\"$file\" bs=1 seek=100 conv=notrunc 2>/dev/null";
    let backup = format!("{} -h $1 -p $2 -U $3 -D $4 -X none -c fast --no-manifest", pg_basebackup.display());
    fs::write(&script, format!("set -e\n{backup}\n{spoil}\n")).expect("a file");
    let client = SubjectSpec::Exec(format!("sh {} {{host}} {{port}} {{user}} {{dir}}", script.display()));
    let text = scenario(15, "[[client]]\nname = \"backup\"\nwal = \"none\"\nmanifest = \"none\"\n");
    let finished = outcome(&text, client, spec(&installation)).expect("it is played");
    assert_eq!(finished.verdict, Verdict::SilentCorruption, "{:#?}", (finished.checks, finished.said));
    let refusal = finished.checks.iter().find(|check| check.check.contains("every byte is the server's"));
    let refusal = refusal.expect("the oracle that refuses");
    assert!(refusal.actual.starts_with("\"base/1/") && refusal.actual.ends_with("at byte 100"), "{}", refusal.actual);
}

#[test]
fn what_a_real_server_cannot_play_is_skipped_with_a_reason() {
    let Some(installation) = Installation::find("what is skipped") else { return };
    let skipped = |text: &str| outcome(text, SubjectSpec::Builtin, spec(&installation)).expect_err("it is skipped");
    assert_eq!(skipped(&scenario(18, "")), "the server is PostgreSQL 15, the scenario's is 18");
    let fault = "[[fault]]\nwhen.copy-begin = {}\ndo.remove-file = { path = \"base/1/1259\" }\n";
    assert_eq!(skipped(&scenario(15, fault)), "do.remove-file: the files of a server that runs are its own");
    let sweep = "[[fault]]\nwhen.every = { unit = \"message\" }\ndo.close = {}\n";
    assert_eq!(skipped(&scenario(15, sweep)), "each step of a sweep would need a server of its own");
    let mock = "settings = { \"backstop.compression\" = \"gzip\" }\n";
    assert_eq!(skipped(&scenario(15, mock)), "the setting backstop.compression is the mock's alone");
}

#[test]
fn wrong_directories_and_settings_are_one_clear_error() {
    let run = |server: &str, scenario: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("case.toml");
        fs::write(&path, scenario).expect("a file");
        let output = Command::new(env!("CARGO_BIN_EXE_backstop"))
            .args(["run", "--server", server])
            .arg(&path)
            .output()
            .expect("backstop");
        (output.status.code(), [output.stdout, output.stderr].concat())
    };
    let run = |server: &str, scenario: &str| {
        let (status, said) = run(server, scenario);
        (status, String::from_utf8_lossy(&said).into_owned())
    };
    let (status, said) = run("pg=/nowhere", &scenario(15, ""));
    assert_eq!((status, said.as_str()), (Some(96), "error: /nowhere holds no server of PostgreSQL\n"));
    let (status, said) = run("pg", &scenario(15, ""));
    assert_eq!(status, Some(2), "{said}");
    let Some(installation) = Installation::find("a setting that there is not") else { return };
    let (status, said) =
        run(&spec(&installation).to_string(), &scenario(15, "settings = { no_such_setting = \"on\" }\n"));
    // A case whose server cannot be put up fails, and the others of its run are played.
    assert_eq!(status, Some(100), "{said}");
    assert!(said.contains("the server is put up as the scenario says"), "{said}");
    assert!(said.contains("PostgreSQL does not start") && said.contains("no_such_setting"), "{said}");
}

/// A run that goes on for long, with its servers in `scratch`.
fn long_run(installation: &Installation, scratch: &Path) -> Child {
    let path = scratch.join("long.toml");
    let keys = "[[client]]\nname = \"backup\"\nwal = \"none\"\nmax-rate = \"64KiB/s\"\ntimeout = \"1h\"\n";
    fs::write(&path, scenario(15, keys)).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["run", "--server", &spec(installation).to_string(), "--scratch"])
        .arg(scratch)
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("backstop")
}

/// Process ids by what stands in their command lines.
fn processes(with: &str) -> Vec<Pid> {
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let holds = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(with) && !line.contains("long.toml")
    };
    numbers.filter(holds).filter_map(Pid::from_raw).collect()
}

/// Waits for something that nobody tells.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn server_directories(scratch: &Path) -> usize {
    let entries = fs::read_dir(scratch).expect("a directory").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("backstop-servers-")).count()
}

#[test]
fn a_killed_harness_leaves_no_server_and_no_directory() {
    let Some(installation) = Installation::find("a killed harness") else { return };
    let scratch = installation.scratch();
    let name = scratch.path().display().to_string();
    let mut run = long_run(&installation, scratch.path());
    until("a server", || processes(&name).len() > 1);
    run.kill().expect("a signal");
    run.wait().expect("an end");
    until("the end of its server", || processes(&name).is_empty());
    until("the end of its directory", || server_directories(scratch.path()) == 0);
}

#[test]
fn a_run_that_is_told_to_stop_cleans_up() {
    let Some(installation) = Installation::find("a run that is told to stop") else { return };
    let scratch = installation.scratch();
    let name = scratch.path().display().to_string();
    let mut run = long_run(&installation, scratch.path());
    until("a server", || processes(&name).len() > 1);
    let pid = i32::try_from(run.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("a signal");
    assert_eq!(run.wait().expect("an end").code(), Some(130));
    assert!(processes(&name).is_empty());
    assert_eq!(server_directories(scratch.path()), 0);
}

#[test]
fn the_next_run_removes_what_a_run_left_whose_keeper_was_killed_too() {
    let Some(installation) = Installation::find("orphans") else { return };
    let scratch = installation.scratch();
    let name = scratch.path().display().to_string();
    let mut run = long_run(&installation, scratch.path());
    until("a server", || processes("backstop-keeper").iter().any(|pid| processes(&name).contains(pid)));
    until("a server that runs", || !processes(&format!("postgres -D {name}")).is_empty());
    let keepers: Vec<Pid> =
        processes("backstop-keeper").into_iter().filter(|pid| processes(&name).contains(pid)).collect();
    run.kill().expect("a signal");
    for keeper in keepers {
        // It may have ended by itself at this moment: then it has done its work.
        let _ = kill_process(keeper, Signal::KILL);
    }
    run.wait().expect("an end");
    let mut next = Command::new(env!("CARGO_BIN_EXE_backstop"));
    next.args(["run", "--server", &spec(&installation).to_string(), "--scratch"]).arg(scratch.path());
    let text = scenario(15, "[[client]]\nname = \"backup\"\nwal = \"none\"\n");
    let path = scratch.path().join("short.toml");
    fs::write(&path, text).expect("a file");
    let mut next = next.arg(&path).stdout(Stdio::piped()).spawn().expect("backstop");
    let lines = BufReader::new(next.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let told: Vec<String> = lines.collect();
    assert!(next.wait().expect("an end").success(), "{told:#?}");
    until("the end of all servers", || processes(&name).is_empty());
    assert_eq!(server_directories(scratch.path()), 0);
}
