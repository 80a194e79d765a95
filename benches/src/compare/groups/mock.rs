//! The mock, a real walsender, and what the loopback takes.

use std::path::Path;
use std::process::{Command, Stdio};

use super::super::bench::arm;
use super::super::rounds::{Comparison, Metric};
use super::super::servers::{Process, Serves};
use super::super::workload::scenario;
use super::super::{Bench, CompareError, Programs};
use super::at_most;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let (programs, bytes) = (bench.programs, bench.bytes);
    let release = programs.postgres()?;
    let major = release.major();
    let mock = Process::mock(programs, &scenario(major, bytes), bench.scratch())?;
    let cluster = bench.cluster(release)?;
    let real = cluster.start()?;
    let manifests: [(&str, &[&str], f64); 2] =
        [("no manifest", &["--no-manifest"], 0.33), ("CRC32C", &["--manifest-checksums=CRC32C"], 0.35)];
    for (name, options, at) in manifests {
        let side = |label: String, bytes, server| {
            let command =
                move |_: &Path| to_standard_output(Programs::theirs(release, "pg_basebackup"), server, options);
            let mut side = arm(label, bytes, command);
            side.server = Some(server);
            side
        };
        let comparison = Comparison {
            name: format!("mock-{}", name.replace(' ', "-").to_lowercase()),
            what: format!("{name}, to pg_basebackup {major} and standard output"),
            ours: side("mock".to_owned(), bytes, &mock),
            theirs: side(format!("walsender {major}"), cluster.bytes, &real),
            targets: vec![at_most(Metric::ServerCpu, at)],
        };
        bench.compare(&comparison)?;
    }
    let sender = Process::start(programs.own("send-frames").arg(bytes.to_string()))?;
    let reader = |command: &'static str, server: &Process| {
        let port = server.port().to_owned();
        move |_: &Path| {
            let mut reader = programs.own(command);
            reader.arg(&port).stdout(Stdio::null());
            reader
        }
    };
    let mut ours = arm("mock".to_owned(), bytes, reader("discard-backup", &mock));
    ours.server = Some(&mock);
    let mut theirs = arm("frames that are always there".to_owned(), bytes, reader("read-frames", &sender));
    theirs.server = Some(&sender);
    bench.compare(&Comparison {
        name: "mock-limit".to_owned(),
        what: "no manifest, to a reader that throws everything away".to_owned(),
        ours,
        theirs,
        // 0.80 of the throughput.
        targets: vec![at_most(Metric::Wall, 1.25)],
    })
}

fn to_standard_output(mut command: Command, server: &dyn Serves, options: &[&str]) -> Command {
    command.args(server.arguments()).args(["-Ft", "-Xnone", "-cfast", "-D", "-"]).args(options);
    command.stdout(Stdio::null());
    command
}
