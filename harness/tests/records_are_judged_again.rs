//! What a run kept is judged once more, with the same verdict as long as nobody touches it; and a backup by itself is judged.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const STORY: &str = r#"
summary = "A backup"
because = "It is kept"
[server]
wal-segment-size = "1MiB"
[cluster]
size = "256KiB"
[[cluster.tablespace]]
oid = 16400
location = "/srv/tablespaces/fast"
size = "64KiB"
"#;

/// The exit status and the cases of the report.
fn backstop(directory: &Path, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output =
        command.current_dir(directory).args(arguments).args(["--report", "json=-"]).output().expect("backstop");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {said}"));
    (output.status.code().expect("no signal"), report["cases"].as_array().expect("cases").clone())
}

/// What the checks saw that failed.
fn refused(case: &Value) -> String {
    let checks = case["checks"].as_array().expect("checks").iter();
    let failed = checks.filter(|check| check["ok"] == false);
    failed.map(|check| check["actual"].as_str().expect("text").to_owned()).collect::<Vec<_>>().join("; ")
}

/// A directory with one scenario, the one case of which was kept in `kept`, and where the backup of that is.
fn kept(more: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("scenarios")).expect("a directory");
    fs::write(directory.path().join("scenarios/story.toml"), format!("{STORY}{more}")).expect("a scenario");
    let (_, cases) = backstop(directory.path(), &["run", "--keep", "kept"]);
    assert_eq!(cases.len(), 1);
    let target = directory.path().join("kept/story/backup/target");
    (directory, target)
}

/// Changes one byte.
fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 0x55;
    fs::write(path, bytes).expect("a file");
}

/// The largest file below `directory`, by its size and then its name.
fn largest(directory: &Path) -> PathBuf {
    let files = walk(directory).into_iter().filter(|path| path.is_file());
    files.max_by_key(|path| (path.metadata().expect("metadata").len(), path.clone())).expect("a file")
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() && !path.is_symlink() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_run_and_its_record_come_to_the_same_verdict() {
    for more in [
        "",
        "[[client]]\nname = \"backup\"\nformat = \"tar\"\n",
        // A mistake of the scenario, to see checks that fail.
        "[expect.backup]\nmust.outcome = \"failure\"\nmust.says = \"never\"\n[expect.server]\nmust.slots = 3\nmust.sessions = 0\n",
        "[[fault]]\nwhen.copy-done = {}\ndo.crash = {}\n[expect.backup]\nmust.outcome = \"failure\"\n",
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("scenarios")).expect("a directory");
        fs::write(directory.path().join("scenarios/story.toml"), format!("{STORY}{more}")).expect("a scenario");
        let (status, ran) = backstop(directory.path(), &["run", "--keep", "kept"]);
        for path in ["kept", "kept/story", "kept/story/record.json"] {
            let (again, judged) = backstop(directory.path(), &["judge", path]);
            assert_eq!(again, status, "{more}");
            for key in ["id", "client", "server", "verdict", "checks"] {
                assert_eq!(judged[0][key], ran[0][key], "{more}");
            }
        }
    }
}

#[test]
fn a_record_tells_what_was_changed_since() {
    let judged = |change: &dyn Fn(&Path)| {
        let (directory, target) = kept("");
        change(&target);
        let (status, cases) = backstop(directory.path(), &["judge", "kept"]);
        (status, refused(&cases[0]))
    };
    assert_eq!(judged(&|_| {}), (0, String::new()));
    let (status, said) = judged(&|target| spoil(&target.join("base/5/1259"), 4_200));
    assert_eq!(status, 101, "{said}");
    assert!(said.contains("\"base/5/1259\" differs from the server's in bytes 0 to 8191"), "{said}");
    assert!(said.contains("checksum mismatch for file \"base/5/1259\""), "{said}");
    let (status, said) = judged(&|target| fs::remove_file(target.join("pg_hba.conf")).expect("removed"));
    assert!(status == 101 && said.contains("\"pg_hba.conf\" is missing"), "{said}");
    let (status, said) = judged(&|target| fs::write(target.join("extra"), "new").expect("written"));
    assert!(status == 101 && said.contains("\"extra\" is not a file of the server"), "{said}");
    let (status, said) = judged(&|target| spoil(&largest(&target.join("pg_wal")), 100));
    assert!(status == 101 && said.contains("WAL differs from the server's at 0/"), "{said}");
    let (status, said) = judged(&|target| fs::remove_dir(target.join("pg_notify")).expect("removed"));
    assert!(status == 101 && said.contains("directory \"pg_notify\" is missing"), "{said}");
}

/// Judges what was kept of a sound backup with a slot, after a change of what the record says.
fn with_another_record(change: &dyn Fn(&mut Value)) -> (i32, String) {
    let (directory, _) = kept("[[client]]\nname = \"backup\"\nslot = { create = \"held\" }\n");
    let path = directory.path().join("kept/story/record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).expect("a record")).expect("JSON");
    change(&mut record);
    fs::write(&path, record.to_string()).expect("a record");
    let (status, cases) = backstop(directory.path(), &["judge", "kept"]);
    (status, refused(&cases[0]))
}

#[test]
fn what_the_server_saw_counts() {
    assert_eq!(with_another_record(&|_| {}), (0, String::new()));
    let found = with_another_record(&|record| {
        record["backups"][0]["ended"] = serde_json::json!({ "failed": "could not read file" });
        record["backups"][0]["command-complete"] = false.into();
    });
    assert_eq!(found, (101, "the server ended the backup with: could not read file".to_owned()));
    // Between CommandComplete and ReadyForQuery nothing can happen to the backup any more.
    let found = with_another_record(&|record| {
        record["backups"][0]["ended"] = serde_json::json!({ "failed": "the server crashed" });
    });
    assert_eq!(found, (0, String::new()));
    let (status, said) = with_another_record(&|record| {
        record["sessions"][1]["overconfirmed"] = serde_json::json!(["0/3000000", "0/2000100"]);
    });
    let words = "connection #2 reported WAL as flushed to 0/3000000 when it had been sent to 0/2000100";
    assert_eq!((status, said.as_str()), (100, words));
    let (status, said) = with_another_record(&|record| {
        record["server"]["slots"][0]["restart-lsn"] = "1/0".into();
    });
    assert!(
        status == 101 && said.starts_with("slot \"held\" keeps WAL from 1/0 on, but what was stored ends at "),
        "{said}"
    );
    let (status, said) = with_another_record(&|record| record["clients"][0]["ending"] = "timed-out".into());
    assert!(status == 102, "{said}");
    let (status, said) =
        with_another_record(&|record| record["clients"][0]["ending"] = serde_json::json!({ "exited": 1 }));
    assert_eq!((status, said.as_str()), (100, "something that does"), "a failure that leaves a whole backup");
    let (status, said) = with_another_record(&|record| {
        record["clients"][0]["changes-outside"] = serde_json::json!(["file \"x\" appeared"]);
    });
    assert_eq!((status, said.as_str()), (103, "file \"x\" appeared"));
    let (status, said) = with_another_record(&|record| {
        record["faults"] = serde_json::json!([{ "description": "when.ready do.close", "fired": false }]);
    });
    assert_eq!((status, said.as_str()), (100, "not: when.ready do.close"));
    let (status, said) = with_another_record(&|record| {
        record["backups"][0]["label"] = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)".into();
    });
    assert!(status == 101 && said.contains("backup_label is not the one of the backup that started at"), "{said}");
    let (status, said) = with_another_record(&|record| record["server"]["system-identifier"] = 7.into());
    assert!(status == 101 && said.contains("the server is 7"), "{said}");
}

#[test]
fn recovery_does_not_read_everything() {
    // Behind the record that ends the backup a SWITCH leaves the rest of the segment empty.
    let (directory, target) = kept("");
    let segment = largest(&target.join("pg_wal"));
    let end = fs::metadata(&segment).expect("metadata").len();
    spoil(&segment, usize::try_from(end - 1).expect("small"));
    let (status, cases) = backstop(directory.path(), &["judge", "kept"]);
    assert_eq!((status, refused(&cases[0])), (0, String::new()));
}

#[test]
fn a_backup_is_judged_by_itself() {
    for more in ["", "[[client]]\nname = \"backup\"\nformat = \"tar\"\n"] {
        let (directory, target) = kept(more);
        let (status, cases) = backstop(directory.path(), &["judge", &target.display().to_string()]);
        assert_eq!((status, cases[0]["verdict"].as_str()), (0, Some("pass")), "{}", refused(&cases[0]));
    }
    let judged = |change: &dyn Fn(&Path)| {
        let (directory, target) = kept("");
        change(&target);
        let (status, cases) = backstop(directory.path(), &["judge", &target.display().to_string()]);
        (status, cases[0]["verdict"].as_str().expect("a verdict").to_owned(), refused(&cases[0]))
    };
    let remove = |name: &'static str| move |target: &Path| fs::remove_file(target.join(name)).expect("removed");
    let (status, _, said) = judged(&|target| spoil(&target.join("base/5/1259"), 4_200));
    assert_eq!((status, said.as_str()), (100, "checksum mismatch for file \"base/5/1259\""));
    let (status, _, said) = judged(&|target| fs::remove_file(largest(&target.join("pg_wal"))).expect("removed"));
    assert!(status == 100 && said.contains("WAL segment 0000000100000000") && said.contains("is missing"), "{said}");
    let (status, _, said) = judged(&|target| {
        fs::remove_dir(target.join("pg_multixact/members")).unwrap_or_else(|_| {
            fs::remove_dir_all(target.join("pg_multixact/members")).expect("removed");
        });
    });
    assert!(status == 100 && said.contains("directory \"pg_multixact/members\" is missing"), "{said}");
    // pgbackrest 2.11, wal-g/wal-g#63: segments that were cut on their way to the archive.
    let (status, _, said) = judged(&|target| {
        let segment = largest(&target.join("pg_wal"));
        let bytes = fs::read(&segment).expect("WAL");
        fs::write(&segment, &bytes[..bytes.len() / 2]).expect("WAL");
    });
    assert!(status == 100 && said.contains("has 524288 bytes instead of 1048576"), "{said}");
    // patroni/patroni#3577: without its label a backup starts as if it had crashed, from a wrong checkpoint.
    let (status, _, said) = judged(&remove("backup_label"));
    assert_eq!((status, said.as_str()), (100, "\"backup_label\" is missing"));
    let (status, _, said) = judged(&remove("PG_VERSION"));
    assert_eq!((status, said.as_str()), (100, "\"PG_VERSION\" is missing"));
    let (status, _, said) = judged(&|target| spoil(&target.join("global/pg_control"), 0));
    assert!(status == 100 && said.contains("global/pg_control cannot be read"), "{said}");
    let (status, _, said) = judged(&|target| spoil(&target.join("backup_manifest"), 100));
    assert!(status == 100 && said.contains("backup_manifest: "), "{said}");
    // Nobody says then what should be there, but WAL says where the backup ended.
    let (status, verdict, said) = judged(&remove("backup_manifest"));
    assert_eq!(
        (status, verdict.as_str(), said.as_str()),
        (0, "weak", "none: what is missing or changed cannot be told")
    );
    let (status, _, said) = judged(&|target| {
        fs::remove_file(target.join("backup_manifest")).expect("removed");
        // The record that ends the backup is among these.
        let segment = largest(&target.join("pg_wal"));
        let mut bytes = fs::read(&segment).expect("WAL");
        bytes[0x80..].fill(0);
        fs::write(&segment, bytes).expect("WAL");
    });
    assert!(status == 100 && said.contains("WAL ends before end of online backup"), "{said}");
}

#[test]
fn what_is_no_backup_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("empty")).expect("a directory");
    let (status, cases) = backstop(directory.path(), &["judge", "empty"]);
    assert_eq!((status, refused(&cases[0]).as_str()), (100, "nothing lies there"));
    let status = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_backstop")).current_dir(directory.path()).args(arguments).output();
        output.expect("backstop").status.code()
    };
    assert_eq!(status(&["judge", "nowhere"]), Some(96));
    fs::write(directory.path().join("record.json"), "{}").expect("a file");
    assert_eq!(status(&["judge", "record.json"]), Some(2));
    assert_eq!(status(&["judge"]), Some(2));
}
