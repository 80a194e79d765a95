//! What bounds the client's own program: deadlines, each with the name of what was waited for, and the size of a backup.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use support::Serving;
use support::client::{bare, said, tool};

/// A small server on which something happens, `what` being tables of faults.
fn scenario(what: &str) -> String {
    format!(
        r#"
summary = "A server that falls silent"
because = "Whoever wants to hear of it sets a deadline"
[server]
version = "18"
wal-segment-size = "1MiB"
[cluster]
size = "512KiB"
{what}
"#
    )
}

/// A phase that has a deadline, a way to take a backup, where the server falls silent, and what is said of it.
struct Silence {
    deadline: &'static str,
    wal: &'static str,
    when: &'static str,
    told: &'static str,
}

const fn silence(deadline: &'static str, wal: &'static str, when: &'static str, told: &'static str) -> Silence {
    Silence { deadline, wal, when, told }
}

const WAL: &str = "waiting for write-ahead log up to the end position";

const SILENCES: [Silence; 14] = [
    silence("connect", "none", "connect = {}", "connecting to the server"),
    silence("connect", "none", "startup = {}", "connecting to the server"),
    silence("connect", "none", "command = { starts-with = \"SHOW\" }", "connecting to the server"),
    silence("connect", "none", "command = { starts-with = \"IDENTIFY_SYSTEM\" }", "connecting to the server"),
    silence("checkpoint", "none", "start-position = {}", "waiting for the checkpoint"),
    silence("data", "none", "tablespace-list = {}", "receiving the backup"),
    silence("data", "fetch", "archive-data = { archive = \"base.tar\", at = \"50%\" }", "receiving the backup"),
    silence("data", "none", "manifest-data = { at = \"50%\" }", "receiving the backup"),
    silence("finish", "fetch", "end-position = {}", "waiting for the end of the backup"),
    // The second session's start-up; its first command; its stream, not begun or not gone on with.
    silence("connect", "stream", "startup = { nth = 2 }", "connecting to the server"),
    silence("wal-silence", "stream", "command = { starts-with = \"CREATE_REPLICATION_SLOT\" }", WAL),
    silence("wal-silence", "stream", "wal-begin = {}", WAL),
    silence("wal-end", "stream", "command = { starts-with = \"START_REPLICATION\" }", WAL),
    // Behind the answers to three commands and CopyBothResponse.
    silence("wal-end", "stream", "message = { client = \"wal\", n = 14 }", WAL),
];

#[test]
fn every_phase_has_its_deadline() {
    let scratch = tempfile::tempdir().expect("a directory");
    for (number, Silence { deadline, wal, when, told }) in SILENCES.into_iter().enumerate() {
        let fault = scenario(&format!("[[fault]]\nwhen.{when}\ndo.stall = {{}}\n"));
        let server = Serving::start(scratch.path(), &format!("silent{number}"), &fault);
        let target = scratch.path().join("backup");
        let limit = format!("{deadline}=1");
        let arguments = ["-c", "fast", "-X", wal, "-N", "--deadline", &limit, "-D"];
        let output = tool("basebackup", server.port, &arguments).arg(&target).output().expect("the client");
        let context = format!("{limit} -X {wal}, silent at {when}: {}", said(&output));
        assert_eq!(output.status.code(), Some(1), "{context}");
        let error = format!("backstop-client basebackup: error: timed out while {told}\n");
        assert!(said(&output).contains(&error), "{context}");
        assert!(!target.exists(), "{context}");
    }
}

#[test]
fn a_receiver_has_its_deadlines() {
    let scratch = tempfile::tempdir().expect("a directory");
    let silences = [
        ("connect", "startup = {}", "connecting to the server"),
        ("wal-silence", "command = { starts-with = \"IDENTIFY_SYSTEM\" }", WAL),
        ("wal-silence", "wal-begin = {}", WAL),
    ];
    for (number, (deadline, when, told)) in silences.into_iter().enumerate() {
        let fault = scenario(&format!("[[fault]]\nwhen.{when}\ndo.stall = {{}}\n"));
        let server = Serving::start(scratch.path(), &format!("silent{number}"), &fault);
        let archive = scratch.path().join(format!("archive{number}"));
        fs::create_dir(&archive).expect("a directory");
        let limit = format!("{deadline}=1");
        let arguments = ["--no-loop", "--no-sync", "--deadline", &limit, "-D"];
        let output = tool("receivewal", server.port, &arguments).arg(&archive).output().expect("the client");
        let context = format!("{limit}, silent at {when}: {}", said(&output));
        assert_eq!(output.status.code(), Some(1), "{context}");
        assert!(said(&output).contains(&format!("error: timed out while {told}\n")), "{context}");
    }
}

#[test]
fn a_backup_over_many_connections_has_its_deadlines() {
    let scratch = tempfile::tempdir().expect("a directory");
    let starts = |sql: &str| format!("command = {{ starts-with = \"{sql}\" }}");
    let silences = [
        ("connect", "startup = {}".to_owned(), "connecting to the server"),
        ("connect", "startup = { nth = 2 }".to_owned(), "connecting to the server"),
        ("checkpoint", starts("SELECT pg_backup_start"), "waiting for the checkpoint"),
        ("data", starts("WITH RECURSIVE tree"), "receiving the backup"),
        ("finish", starts("SELECT lsn, labelfile"), "waiting for the end of the backup"),
    ];
    for (deadline, when, told) in silences {
        let (target, output) = by_files(scratch.path(), deadline, &when);
        let context = format!("{deadline}, silent at {when}: {}", said(&output));
        assert_eq!(output.status.code(), Some(1), "{context}");
        assert!(said(&output).contains(&format!("error: timed out while {told}\n")), "{context}");
        assert!(!target.exists(), "{context}");
    }
    // A connection that only reads is replaced.
    let (target, output) =
        by_files(scratch.path(), "data", "command = { starts-with = \"SELECT pg_read_binary_file\", nth = 9 }");
    assert!(output.status.success(), "{}", said(&output));
    let told = "warning: job 1: timed out while receiving the backup; connecting again\n";
    assert!(said(&output).contains(told) && target.join("backup_label").exists(), "{}", said(&output));
}

/// Takes a backup by files into the directory that is returned, with a deadline of a second, from a server that falls silent.
fn by_files(scratch: &Path, deadline: &str, when: &str) -> (PathBuf, Output) {
    let server = Serving::start(scratch, "silent", &scenario(&format!("[[fault]]\nwhen.{when}\ndo.stall = {{}}\n")));
    let target = scratch.join("backup");
    let dsn = format!("host=127.0.0.1 port={} user=backstop dbname=postgres", server.port);
    let (limit, directory) = (format!("{deadline}=1"), target.to_str().expect("a path in UTF-8"));
    let arguments = ["parallelbackup", "-x", "-N", "-c", "fast", "--deadline", &limit, &dsn, directory];
    (target.clone(), bare(&arguments).output().expect("the client"))
}

/// A backup of less than 2 MiB with this limit.
fn limited(scratch: &Path, port: u16, limit: &str, more: &[&str]) -> Output {
    let mut command = tool("basebackup", port, &["-c", "fast", "-N", "-X", "none", "--max-size", limit]);
    command.args(more).current_dir(scratch).output().expect("the client")
}

#[test]
fn a_backup_that_is_too_large_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let server = Serving::start(scratch.path(), "large", &scenario(""));
    for (number, format) in
        [&["-Fp"][..], &["-Ft"], &["-Ft", "-Z", "server-gzip"], &["-Fp", "-Z", "server-zstd"]].into_iter().enumerate()
    {
        let target = scratch.path().join(format!("backup{number}"));
        let more = [format, &["-D", target.to_str().expect("a path in UTF-8")]].concat();
        let output = limited(scratch.path(), server.port, "100k", &more);
        assert_eq!(output.status.code(), Some(1), "{format:?}: {}", said(&output));
        // What is compressed is counted as what it stands for.
        let problem = "the backup is larger than 102400 bytes, the most that may come\n";
        assert!(said(&output).contains(problem), "{format:?}: {}", said(&output));
        assert!(!target.exists(), "{format:?}");
        let output = limited(scratch.path(), server.port, "2M", &more);
        assert!(output.status.success(), "{format:?}: {}", said(&output));
        assert!(target.join("backup_manifest").exists(), "{format:?}");
    }
    for wrong in ["0", "-1", "1.5G", "2KB", "G", "99999999999T", ""] {
        let output = limited(scratch.path(), server.port, wrong, &["-D", "never"]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(said(&output).contains("--max-size"), "{wrong}: {}", said(&output));
        assert!(!scratch.path().join("never").exists(), "{wrong}");
    }
}
