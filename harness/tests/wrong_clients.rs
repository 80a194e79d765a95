//! A client that is wrong is caught: the harness believes what was left behind, not what the client says.

use std::path::PathBuf;

use backstop::event::{Event, Finished};
use backstop::plan::{RunPlan, ServerSpec, SubjectSpec};
use backstop::runner;
use backstop::scenario::document::SourceFile;
use backstop::scenario::{Case, load};
use backstop::verdict::Verdict;
use tokio::sync::{mpsc, watch};

/// Cargo builds examples beside the tests.
fn hasty_client() -> SubjectSpec {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("the target directory");
    let program = target.join("examples/hasty_client");
    assert!(program.is_file(), "{} was not built", program.display());
    SubjectSpec::Exec(format!("{} {{host}} {{port}} {{dir}}", program.display()))
}

fn case(text: &str) -> Case {
    let file = SourceFile { path: "case.toml".into(), text: text.into() };
    let mut cases = load::read("case", &file).expect("a valid scenario");
    assert_eq!(cases.len(), 1);
    cases.remove(0)
}

fn verdict(text: &str) -> Finished {
    let plan = RunPlan {
        bless: backstop::golden::Bless::Nothing,
        capture: false,
        known: backstop::known::KnownFaults::default(),
        cases: vec![case(text)],
        clients: vec![hasty_client()],
        server: ServerSpec::Mock,
        jobs: 1,
        seed: None,
        keep: None::<PathBuf>,
        transcripts: None,
        scratch: None,
        ask_postgres: false,
        strict: false,
    };
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_cancel, cancelled) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(runner::run(plan, events, cancelled)).expect("a run");
    while let Some(event) = heard.blocking_recv() {
        if let Event::CaseFinished(finished) = event {
            return *finished;
        }
    }
    unreachable!("the case did not finish");
}

const SOUND: &str = r#"
summary = "A quiet server"
because = "Even a hasty client gets this right"
[server]
version = "15"
[[client]]
name = "hasty"
wal = "fetch"
"#;

const FAILS_AFTER_COPY_DONE: &str = r#"
summary = "The server fails after CopyDone"
because = "A client that does not read on takes half a backup for a whole one"
[server]
version = "15"
[[client]]
name = "hasty"
wal = "fetch"
[[fault]]
when.end-position = {}
do.error = { sqlstate = "XX000", message = "could not complete the backup" }
[expect.hasty]
must.outcome = "failure"
"#;

#[test]
fn a_client_that_stops_at_the_end_of_the_archive_corrupts_silently() {
    let finished = verdict(FAILS_AFTER_COPY_DONE);
    assert_eq!(finished.verdict, Verdict::SilentCorruption, "{:#?}", finished.checks);
    let refusal = finished.checks.iter().find(|check| check.check.contains("the server ended the backup"));
    let refusal = refusal.expect("the oracle that refuses");
    assert!(!refusal.ok);
    assert!(refusal.actual.contains("could not complete the backup"), "{}", refusal.actual);
}

#[test]
fn the_same_client_against_a_sound_server_leaves_nothing_to_object_to_but_its_haste() {
    let finished = verdict(SOUND);
    let refused: Vec<_> = finished.checks.iter().filter(|check| !check.ok).map(|check| check.check.as_str()).collect();
    // Whether the server had written its last word when the client left is the client's luck, not its merit.
    assert!(refused.iter().all(|check| check.contains("the server ended the backup")), "{:#?}", finished.checks);
}
