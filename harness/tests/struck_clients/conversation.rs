//! `basebackup`, struck at points of its conversation with the server.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::Path;

use backstop::event::Finished;
use backstop::plan::SubjectSpec;
use backstop::subject::signals::is_ignored;
use backstop::verdict::Verdict;
use backstop_mock::fault::Signal;

use super::chance::{Chance, strikes};
use super::support::client::client_program;
use super::support::one_case::verdicts;

/// What every story has in common: about 1 MiB of archive, and 260 messages.
const STORY: &str = r#"
summary = "The client is struck"
because = "A crash, a full disk or Ctrl-C at any moment leaves nothing that passes for a backup"
[server]
wal-segment-size = "1MiB"
version = "VERSION"
[cluster]
size = "512KiB"
[[client]]
name = "backup"
format = "FORMAT"
wal = "WAL"
"#;

/// Bytes of the archive, of the manifest, and messages of the session: a few less than there are.
const ARCHIVE: u64 = 940_000;
const MANIFEST: u64 = 15_000;
const MESSAGES: u64 = 250;

fn story(chance: &mut Chance, wal: &[&str]) -> String {
    let story = STORY.replace("VERSION", chance.pick(&["14", "18"]));
    let story = story.replace("FORMAT", chance.pick(&["plain", "tar"]));
    story.replace("WAL", chance.pick(wal))
}

/// A point of a backup.
fn point(chance: &mut Chance) -> String {
    match chance.below(8) {
        0..4 => format!("when.archive-data = {{ archive = \"base.tar\", at = \"{}B\" }}", chance.below(ARCHIVE)),
        4..7 => format!("when.message = {{ client = \"backup\", n = {} }}", 1 + chance.below(MESSAGES)),
        _ => format!("when.manifest-data = {{ at = \"{}B\" }}", chance.below(MANIFEST)),
    }
}

/// Runs the stories with the client's binary under PostgreSQL's name. All of them have to pass, unless the rest of the backup was on its
/// way already when the signal arrived: then it may be whole, which is what success means.
fn run(test: &str, stories: &[String]) {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("pg_basebackup");
    symlink(client_program(), &program).expect("a link");
    let jobs = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let finished = verdicts(stories, SubjectSpec::PgBasebackup(Some(program)), jobs);
    let (whole, struck): (Vec<_>, Vec<_>) = finished.iter().partition(|case| is_whole(case));
    println!("{test}: {} strikes, {} of them too late", finished.len(), whole.len());
    for case in &struck {
        assert_eq!(case.verdict, Verdict::Pass, "{}", told(case));
    }
    assert!(whole.len() * 2 < finished.len(), "most strikes struck nothing");
}

fn is_whole(case: &Finished) -> bool {
    let outcome = case.checks.iter().find(|check| check.check == "expect.backup.should.outcome");
    case.verdict == Verdict::Weak && outcome.is_some_and(|outcome| outcome.actual == "success")
}

fn told(case: &Finished) -> String {
    let failed = case.checks.iter().filter(|check| !check.ok);
    let failed: Vec<_> = failed.map(|check| format!("{}: {}", check.check, check.actual)).collect();
    let lines: Vec<_> = case.transcript.iter().map(ToString::to_string).collect();
    format!("{}\n{:?}\n{}", failed.join("\n"), case.said, lines.join("\n"))
}

#[test]
fn a_signal_anywhere_leaves_nothing() {
    let signals = [("SIGINT", Signal::Int), ("SIGTERM", Signal::Term), ("SIGHUP", Signal::Hup)];
    let heard: Vec<_> = signals.into_iter().filter(|(_, signal)| !is_ignored(*signal)).map(|(name, _)| name).collect();
    if heard.is_empty() {
        return println!("skipped: signals in a conversation: whoever started this test has them ignored");
    }
    let mut chance = Chance::of("signals in a conversation");
    let stories: Vec<_> = (0..strikes(60))
        .map(|_| {
            let (story, point, signal) =
                (story(&mut chance, &["stream", "fetch"]), point(&mut chance), chance.pick(&heard));
            format!(
                "{story}[[fault]]\n{point}\ndo.kill-client = {{ client = \"backup\", signal = \"{signal}\" }}\n\
                 [expect.backup]\nshould.outcome = \"killed\"\nshould.leaves = \"nothing\"\n\
                 [expect.server]\nmust.sessions = 0\nmust.running-backups = 0\nmust.slots = 0\n"
            )
        })
        .collect();
    run("signals in a conversation", &stories);
}

#[test]
fn a_client_killed_anywhere_leaves_nothing_that_passes_for_a_backup() {
    let mut chance = Chance::of("SIGKILL in a conversation");
    let stories: Vec<_> = (0..strikes(60))
        .map(|_| {
            let (story, point) = (story(&mut chance, &["stream", "fetch"]), point(&mut chance));
            format!(
                "{story}[[fault]]\n{point}\ndo.kill-client = {{ client = \"backup\", signal = \"SIGKILL\" }}\n\
                 [expect.backup]\nmust.outcome = \"killed\"\nmust.leaves = \"nothing-restorable\"\n\
                 [expect.server]\nmust.sessions = 0\nmust.running-backups = 0\n"
            )
        })
        .collect();
    run("SIGKILL in a conversation", &stories);
}

#[test]
fn a_disk_that_is_full_at_any_byte_leaves_nothing() {
    // The harness makes it, and says so where it cannot.
    if !Path::new("/proc/self/ns/user").exists()
        || fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|most| most.trim() == "0")
    {
        return println!("skipped: full disks in a conversation: there are no user namespaces");
    }
    let mut chance = Chance::of("full disks in a conversation");
    let stories: Vec<_> = (0..strikes(60))
        .map(|_| {
            let story = story(&mut chance, &["fetch", "none"]);
            let (at, room) = (chance.below(ARCHIVE / 2), chance.below(100_000));
            format!(
                "{story}[[fault]]\nwhen.archive-data = {{ archive = \"base.tar\", at = \"{at}B\" }}\n\
                 do.fill-disk = {{ client = \"backup\", after = \"{room}B\" }}\n\
                 [expect.backup]\nmust.outcome = \"failure\"\nmust.leaves = \"nothing\"\n\
                 must.says = \"No space left on device\"\n[expect.server]\nmust.sessions = 0\nmust.running-backups = 0\n"
            )
        })
        .collect();
    run("full disks in a conversation", &stories);
}
