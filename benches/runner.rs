//! The scenario runner: how many cases a second it plays against the built-in client, and judges.

use std::fs;
use std::path::Path;

use backstop::event::Event;
use backstop::golden::Bless;
use backstop::known::KnownFaults;
use backstop::plan::{RunPlan, ServerSpec, SubjectSpec};
use backstop::runner;
use backstop::scenario::Case;
use backstop::scenario::select::Selection;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::{mpsc, watch};

/// A cluster of 64 KiB: whole backups, and the connection cut off at many places.
const SMALL: &str = r#"
summary = "A small cluster"
because = "It is measured"
[matrix]
server.version = ["12", "14", "15", "18"]
client.format = ["plain", "tar"]
[cluster]
size = "64KiB"
[[client]]
name = "backup"
wal = "fetch"
[expect.backup]
must.outcome = "success"
must.leaves = "restorable"
"#;

/// The same cut off before one message in eight.
const CUT: &str = r#"
[[fault]]
when.every = { unit = "message", step = 8 }
do.close = {}
[expect.backup]
must.outcome = "failure"
must.leaves = "nothing-restorable"
"#;

/// Cases of one area, each of a cluster of some megabytes.
fn cases(area: &str) -> Vec<Case> {
    select(area, &backstop_scenarios::directory())
}

fn select(wanted: &str, root: &Path) -> Vec<Case> {
    let selection = Selection { wanted: vec![wanted.to_owned()], root: root.to_owned(), ..Selection::default() };
    selection.cases().expect("scenarios")
}

/// Cases whose clusters are small, so that what is around them counts.
fn small(text: &str) -> Vec<Case> {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("small.toml"), text).expect("a file");
    select("small", root.path())
}

/// Runs them all; they have to pass. Returns how many they are with every step of a sweep.
fn run(cases: &[Case], jobs: usize) -> usize {
    let plan = RunPlan {
        cases: cases.to_vec(),
        clients: vec![SubjectSpec::Builtin],
        server: ServerSpec::Mock,
        known: KnownFaults::default(),
        jobs,
        seed: None,
        keep: None,
        transcripts: None,
        scratch: None,
        capture: false,
        ask_postgres: false,
        allow_writes: false,
        strict: false,
        bless: Bless::Nothing,
    };
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_cancel, cancelled) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(runner::run(plan, events, cancelled)).expect("a run");
    let mut total = 0;
    while let Some(event) = heard.blocking_recv() {
        if let Event::RunFinished { summary, .. } = event {
            assert_eq!(summary.passed, summary.total, "{summary:?}");
            total = summary.total;
        }
    }
    total
}

fn cases_a_second(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cases");
    group.sample_size(10);
    for area in ["tar/", "commands/"] {
        let cases = cases(area);
        group.throughput(Throughput::Elements(cases.len() as u64));
        for jobs in [1, 2] {
            let name = format!("{} of {area} with {jobs} jobs", cases.len());
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| run(&cases, jobs)));
        }
    }
    let cut = SMALL.split("[expect").next().unwrap_or_default().to_owned() + CUT;
    for (name, cases) in [("whole", small(SMALL)), ("cut", small(&cut))] {
        let total = run(&cases, 2);
        group.throughput(Throughput::Elements(total as u64));
        let name = format!("{total} of 64 KiB, {name}, with 2 jobs");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| run(&cases, 2)));
    }
    group.finish();
}

criterion_group!(benches, cases_a_second);
criterion_main!(benches);
