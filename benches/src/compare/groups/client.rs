//! `backstop-client basebackup` and `pg_basebackup`.

use std::path::Path;
use std::process::{Command, Stdio};

use backstop_scenarios::postgres::Installation;

use super::super::bench::{arm, backup};
use super::super::rounds::{Comparison, Metric, Target};
use super::super::servers::{Process, Serves};
use super::super::workload::{Cluster, scenario};
use super::super::{Bench, CompareError, Programs};
use super::at_most;

/// What is asked of both sides.
#[derive(Clone, Copy)]
struct Task {
    name: &'static str,
    what: &'static str,
    options: &'static [&'static str],
    to_standard_output: bool,
    all_cores: bool,
    targets: &'static [(Metric, f64)],
}

const FORMATS: [Task; 3] = [
    Task {
        name: "stdout",
        what: "tar to standard output",
        options: &["-Ft"],
        to_standard_output: true,
        all_cores: false,
        targets: &[(Metric::ClientCpu, 0.60)],
    },
    Task {
        name: "tar",
        what: "tar into memory-backed files",
        options: &["-Ft"],
        to_standard_output: false,
        all_cores: false,
        targets: &[(Metric::ClientCpu, 0.85), (Metric::Wall, 0.90)],
    },
    Task {
        name: "plain",
        what: "plain into memory-backed files",
        options: &["-Fp"],
        to_standard_output: false,
        all_cores: false,
        targets: &[(Metric::ClientCpu, 0.85), (Metric::Wall, 0.90)],
    },
];

const COMPRESSIONS: [Task; 2] = [
    Task {
        name: "gzip",
        what: "tar, gzip level 1",
        options: &["-Ft", "--compress=client-gzip:1"],
        to_standard_output: false,
        all_cores: true,
        targets: &[(Metric::Wall, 0.55)],
    },
    Task {
        name: "zstd",
        what: "tar, zstd level 1",
        options: &["-Ft", "--compress=client-zstd:1"],
        to_standard_output: false,
        all_cores: true,
        targets: &[(Metric::Wall, 0.55)],
    },
];

/// Each release's `pg_basebackup` from the mock of its release.
pub(super) fn from_the_mock(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    for release in bench.programs.releases() {
        let text = scenario(release.major(), bench.bytes);
        let mock = Process::mock(bench.programs, &text, bench.scratch())?;
        for task in FORMATS {
            compare(bench, release, &mock, "mock", bench.bytes, task)?;
        }
    }
    Ok(())
}

/// The same from its own server.
pub(super) fn from_real_servers(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    for release in bench.programs.releases() {
        let cluster = bench.cluster(release)?;
        let server = cluster.start()?;
        for task in FORMATS {
            compare(bench, release, &server, "server", cluster.bytes, task)?;
        }
    }
    Ok(())
}

/// A release that can compress, from a real server: what the mock sends does not look like tables.
pub(super) fn compressed(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let release = bench.programs.postgres()?;
    let cluster = bench.cluster(release)?;
    let server = cluster.start()?;
    for task in COMPRESSIONS {
        compare(bench, release, &server, "server", cluster.bytes, task)?;
    }
    Ok(())
}

/// A schema of many small tables.
pub(super) fn small_files(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    const FILES: u32 = 20_000;
    let release = bench.programs.postgres()?;
    let cluster = Cluster::make(release, 1 << 20)?;
    cluster.add_small_files(FILES)?;
    let server = cluster.start()?;
    let task = Task {
        name: "small-files",
        what: "plain, 20,000 files of 4 kB",
        options: &["-Fp"],
        to_standard_output: false,
        all_cores: false,
        targets: &[(Metric::Wall, 0.80)],
    };
    compare(bench, release, &server, "server", cluster.bytes + u64::from(FILES) * 4096, task)
}

fn compare(
    bench: &mut Bench<'_>,
    release: &Installation,
    server: &dyn Serves,
    from: &str,
    bytes: u64,
    task: Task,
) -> Result<(), CompareError> {
    let programs = bench.programs;
    let finish = |mut command: Command, target: &Path| {
        command.args(server.arguments()).args(task.options).args(["-Xnone", "-cfast", "--no-sync", "-D"]);
        if task.to_standard_output {
            command.arg("-");
        } else {
            command.arg(backup(target));
        }
        command.stdout(Stdio::null());
        command
    };
    let side = |label: String, start: Box<dyn Fn() -> Command>| {
        let mut arm = arm(label, bytes, move |target| finish(start(), target));
        arm.server = Some(server);
        arm.all_cores = task.all_cores;
        arm
    };
    let major = release.major();
    let ours = programs.client("basebackup").get_program().to_owned();
    let theirs = release.clone();
    let comparison = Comparison {
        name: format!("{}-{from}-{major}", task.name),
        what: format!("{}, from a {from} {major}", task.what),
        ours: side(
            "basebackup".to_owned(),
            Box::new(move || {
                let mut command = Command::new(&ours);
                command.arg("basebackup");
                command
            }),
        ),
        theirs: side(format!("pg_basebackup {major}"), Box::new(move || Programs::theirs(&theirs, "pg_basebackup"))),
        targets: task.targets.iter().map(|(metric, ratio)| at_most(*metric, *ratio)).collect::<Vec<Target>>(),
    };
    bench.compare(&comparison)
}
