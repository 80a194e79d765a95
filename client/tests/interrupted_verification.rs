//! A verification that is told to end: it ends at once, by the signal, as PostgreSQL's does, and says nothing of the backup.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_scenarios::postgres::Installation;
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/backups.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod backups;

use backups::{named, sealed};

/// More than anybody reads in a minute. It needs no room.
const SIZE: u64 = 4 << 40;

/// A backup of one file, which is long.
fn endless(directory: &Path) {
    fs::create_dir(directory).unwrap();
    fs::File::create(directory.join("endless")).unwrap().set_len(SIZE).unwrap();
    let text = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{{ \"Path\": \"endless\", \"Size\": {SIZE}, \
         \"Last-Modified\": \"2026-11-21 01:38:44 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }}\n],\n\
         \"WAL-Ranges\": [\n],\n\"Manifest-Checksum\": \"\"}}\n"
    );
    fs::write(directory.join("backup_manifest"), sealed(&text)).unwrap();
}

#[test]
fn a_signal_ends_it_at_once() {
    let installation = Installation::find_release(18, "an interrupted pg_verifybackup");
    let scratch = match &installation {
        Some(installation) => installation.scratch(),
        None => tempfile::tempdir().unwrap(),
    };
    let backup = scratch.path().join("backup");
    endless(&backup);
    let mut programs: Vec<PathBuf> = vec![named("pg_verifybackup", scratch.path())];
    if let Some(installation) = &installation {
        installation.give(&backup);
        programs.push(installation.path("pg_verifybackup"));
    }
    for program in &programs {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            // What a shell starts in the background would not hear all of them.
            let mut command = Command::new("env");
            command.arg("--default-signal=INT,TERM,HUP").arg(program).args(["-Fp", "-n", "-P"]).arg(&backup);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let (mut line, mut said) = (Vec::new(), String::new());
            let mut words = BufReader::new(child.stderr.take().unwrap());
            // Told as files begin to be read. Neither a terminal's nor another's end of the line is waited for.
            while !line.ends_with(b"(0%) verified") {
                assert_ne!(words.read_until(b'd', &mut line).unwrap(), 0, "{}", String::from_utf8_lossy(&line));
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            words.read_to_string(&mut said).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{program:?} {signal:?}: {status} {said}");
            assert!(!said.contains("error"), "{program:?} {signal:?}: {said}");
            let mut answer = String::new();
            child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "", "{program:?} {signal:?}");
        }
    }
}
