//! Cases, from their texts to their verdicts, without the command line.

use backstop::event::{Event, Finished};
use backstop::plan::{RunPlan, ServerSpec, SubjectSpec};
use backstop::runner;
use backstop::scenario::document::SourceFile;
use backstop::scenario::{Case, load};
use tokio::sync::{mpsc, watch};

/// A client that stops at the archive's end. Cargo builds examples beside the tests.
pub fn hasty_client() -> SubjectSpec {
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

/// Runs the case of a scenario, given as a file's text, against a client of the mock.
pub fn verdict(text: &str, client: SubjectSpec) -> Finished {
    verdicts(&[text.to_owned()], client, 1).remove(0)
}

/// Runs the cases of several, so many at a time, and returns them in the order in which they ended.
pub fn verdicts(texts: &[String], client: SubjectSpec, jobs: usize) -> Vec<Finished> {
    match outcomes(texts, client, ServerSpec::Mock, jobs).into_iter().collect() {
        Ok(finished) => finished,
        Err(reason) => unreachable!("a case was skipped: {reason}"),
    }
}

/// The case of a scenario on any server; or why it was skipped.
pub fn outcome(text: &str, client: SubjectSpec, server: ServerSpec) -> Result<Finished, String> {
    outcomes(&[text.to_owned()], client, server, 1).remove(0)
}

fn outcomes(texts: &[String], client: SubjectSpec, server: ServerSpec, jobs: usize) -> Vec<Result<Finished, String>> {
    let plan = RunPlan {
        bless: backstop::golden::Bless::Nothing,
        capture: false,
        known: backstop::known::KnownFaults::default(),
        cases: texts.iter().map(|text| case(text)).collect(),
        clients: vec![client],
        server,
        jobs,
        seed: None,
        keep: None,
        transcripts: None,
        scratch: None,
        ask_postgres: false,
        allow_writes: false,
        strict: false,
    };
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_cancel, cancelled) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(runner::run(plan, events, cancelled)).expect("a run");
    let mut ended = Vec::new();
    while let Some(event) = heard.blocking_recv() {
        match event {
            Event::CaseFinished(finished) => ended.push(Ok(*finished)),
            Event::Skipped { reason, .. } => ended.push(Err(reason)),
            _ => {}
        }
    }
    assert_eq!(ended.len(), texts.len(), "a case did not finish");
    ended
}
