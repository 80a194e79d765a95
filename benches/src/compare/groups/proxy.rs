//! A real walsender, directly and through the fault proxy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use backstop_scenarios::postgres::USER;

use super::super::bench::arm;
use super::super::rounds::{Comparison, Metric};
use super::super::servers::Process;
use super::super::{Bench, CompareError, Programs};
use super::at_most;

const SCENARIO: &str = "summary = \"No fault\"\nbecause = \"It is measured\"\n";

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let programs = bench.programs;
    let release = programs.postgres()?;
    let major = release.major();
    let cluster = bench.cluster(release)?;
    let real = cluster.start()?;
    let port = real.postgres.port().to_string();
    let path = bench.scratch().join("proxy.toml");
    fs::write(&path, SCENARIO).map_err(CompareError::io("could not write", &path))?;
    let upstream = format!("host=127.0.0.1 port={port} user={USER}");
    let mut proxy = programs.ours("backstop");
    proxy.arg("proxy").arg(&path).args(["--upstream", &upstream]);
    let proxy = Process::start_anywhere(&mut proxy)?;
    let through = proxy.port().to_owned();
    for (name, options) in [("no manifest", "--no-manifest"), ("CRC32C", "--manifest-checksums=CRC32C")] {
        let side = |label: &str, port: &str| {
            let port = port.to_owned();
            let command = move |_: &Path| discarding(Programs::theirs(release, "pg_basebackup"), &port, options);
            let mut side = arm(label.to_owned(), cluster.bytes, command);
            side.all_cores = true;
            side
        };
        bench.compare(&Comparison {
            name: format!("proxy-{}", name.replace(' ', "-").to_lowercase()),
            what: format!("{name}, from a walsender to pg_basebackup {major} and standard output"),
            ours: side("through the proxy", &through),
            theirs: side("directly", &port),
            // 0.90 of the throughput.
            targets: vec![at_most(Metric::Wall, 1.11)],
        })?;
    }
    Ok(())
}

fn discarding(mut command: Command, port: &str, options: &str) -> Command {
    command.args(["-h", "127.0.0.1", "-p", port, "-U", USER, "-Ft", "-Xnone", "-cfast", "-D", "-", options]);
    command.stdout(Stdio::null());
    command
}
