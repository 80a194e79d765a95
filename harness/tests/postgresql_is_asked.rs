//! Where a backup of a real data directory must be restorable, PostgreSQL starts on a copy of it, and says what it does not
//! start on. Of synthetic clusters its tools are asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_scenarios::postgres::{Installation, Postgres};
use serde_json::Value;
use tempfile::TempDir;

/// The exit status and the cases of the report.
fn backstop(arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output = command.args(arguments).args(["--report", "json=-"]).output().expect("backstop");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {said}"));
    (output.status.code().expect("no signal"), report["cases"].as_array().expect("cases").clone())
}

/// What was seen where the check's name ends so.
fn seen(case: &Value, check: &str) -> (bool, String) {
    let checks = case["checks"].as_array().expect("checks");
    let found = checks.iter().find(|found| found["check"].as_str().expect("text").ends_with(check));
    let found = found.unwrap_or_else(|| unreachable!("{case}"));
    (found["ok"] == true, found["actual"].as_str().expect("text").to_owned())
}

/// A stopped server's data directory, with a table in a tablespace, and a scenario that serves it.
struct Story {
    scratch: TempDir,
}

impl Story {
    fn new() -> Option<Self> {
        let installation = Installation::find("PostgreSQL on what a client left")?;
        let scratch = installation.scratch();
        let (data, space) = (scratch.path().join("data"), scratch.path().join("space"));
        installation.initdb(&data, &["--wal-segsize=1"]);
        fs::create_dir(&space).expect("a directory");
        installation.give(&space);
        let server = Postgres::start(&installation, &data, &scratch.path().join("s"));
        server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
        server.sql("CREATE TABLE there TABLESPACE space AS SELECT * FROM generate_series(1, 5000) AS n");
        server.stop();
        Some(Self { scratch })
    }

    /// Runs the story and keeps what the client left, whose place is returned.
    fn run(&self, more: &str) -> (i32, Value, PathBuf) {
        let directory = self.scratch.path().join("scenarios");
        fs::create_dir_all(&directory).expect("a directory");
        let text = format!(
            "summary = \"A data directory\"\nbecause = \"Its copy must start\"\n\
             [cluster]\nsource = {{ directory = \"{}\" }}\n{more}\n\
             [expect.backup]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n",
            self.scratch.path().join("data").display()
        );
        fs::write(directory.join("story.toml"), text).expect("a scenario");
        let kept = self.scratch.path().join("kept");
        let (directory, kept_text) = (directory.display().to_string(), kept.display().to_string());
        let (status, cases) = backstop(&["run", "--scenarios", &directory, "--keep", &kept_text]);
        (status, cases[0].clone(), kept.join("story/backup/target"))
    }
}

/// Changes every byte of a file from `from` on.
fn spoil(path: &Path, from: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes.get_mut(from..).expect("bytes").fill(0x11);
    fs::write(path, bytes).expect("a file");
}

#[test]
fn a_copy_starts_and_a_spoilt_one_does_not() {
    let Some(story) = Story::new() else { return };
    let check = "PostgreSQL starts on it";
    for more in ["", "[[client]]\nname = \"backup\"\nformat = \"tar\"\nwal = \"fetch\""] {
        let (status, case, _) = story.run(more);
        let accepted = "PostgreSQL 15 starts on it, its pages agree with their checksums".to_owned();
        assert_eq!((status, seen(&case, check)), (0, (true, accepted)), "{case}");
    }

    let judged = |target: &Path| {
        let (status, cases) = backstop(&["judge", "--start", &target.display().to_string()]);
        (status, seen(&cases[0], check))
    };
    let (_, _, target) = story.run("");
    assert_eq!(judged(&target).0, 0);
    // Whoever judges by looking alone does not look into relations without a manifest.
    fs::remove_file(target.join("backup_manifest")).expect("removed");
    let relation = walk(&target.join("base")).into_iter().max_by_key(|path| path.metadata().expect("metadata").len());
    spoil(&relation.expect("a file"), 8192 + 4000);
    let (status, (ok, said)) = judged(&target);
    assert!(status == 100 && !ok && said.starts_with("pg_checksums: "), "{said}");

    // pgmoneta/pgmoneta#782: a restore that makes no directories in which nothing lies.
    let (_, _, target) = story.run("");
    fs::remove_dir(target.join("pg_notify")).expect("removed");
    let (status, (ok, said)) = judged(&target);
    assert!(status == 100 && !ok && said.contains("could not open directory \"pg_notify\""), "{said}");

    // wal-g/wal-g#1338: too little WAL never reaches consistency.
    let (_, _, target) = story.run("");
    for segment in
        walk(&target.join("pg_wal")).iter().filter(|path| path.metadata().expect("metadata").len() == 1 << 20)
    {
        spoil(segment, 0x40);
    }
    let (status, (ok, said)) = judged(&target);
    assert!(status == 100 && !ok && said.starts_with("PostgreSQL 15 does not start: "), "{said}");
    assert!(said.contains("checkpoint record"), "{said}");
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn tools_accept_what_the_mock_sends_and_nobody_else_is_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "summary = \"Releases\"\nbecause = \"Their tools know what they send\"\n\
                [matrix]\nserver.version = [\"9.4\", \"15\", \"18\"]\n\
                [cluster]\nsize = \"256KiB\"\n\
                [expect.backup]\nmust.leaves = \"restorable\"\n";
    fs::write(directory.path().join("releases.toml"), text).expect("a scenario");
    let scenarios = directory.path().display().to_string();
    let (status, cases) = backstop(&["run", "--scenarios", &scenarios, "--ask-postgres"]);
    assert_eq!(status, 0);
    for case in &cases {
        let id = case["id"].as_str().expect("an id");
        let release = if id.contains("9.4") {
            "9.4"
        } else if id.contains("15") {
            "15"
        } else {
            "18"
        };
        let (ok, said) = seen(case, "PostgreSQL's tools accept it");
        assert!(ok, "{said}");
        let major = release.parse::<u16>().ok();
        if major.is_some_and(|major| Installation::find_release(major, "the tools of a release").is_some()) {
            assert_eq!(said, "pg_controldata and pg_verifybackup did not object", "{id}");
        } else {
            assert!(said.starts_with(&format!("not asked: no PostgreSQL {release} here")), "{said}");
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.args(["run", "--scenarios", &scenarios, "--ask-postgres", "releases[server.version=9.4]"]);
    let said = String::from_utf8(command.output().expect("backstop").stdout).expect("text");
    assert!(said.contains("PostgreSQL was not asked about 1 backup: no PostgreSQL 9.4 here"), "{said}");
}
