//! `backstop-client verifybackup` and `pg_verifybackup`.

use std::process::Stdio;

use backstop_scenarios::postgres::succeed;

use super::super::bench::arm;
use super::super::rounds::{Comparison, Metric};
use super::super::servers::Serves as _;
use super::super::workload::size_of;
use super::super::{Bench, CompareError, Programs};
use super::at_most;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let programs = bench.programs;
    for release in programs.releases() {
        let major = release.major();
        let cluster = bench.cluster(release)?;
        for algorithm in ["CRC32C", "SHA256"] {
            let backup = bench.scratch().join("verified");
            let server = cluster.start()?;
            let mut take = Programs::theirs(release, "pg_basebackup");
            take.args(server.arguments()).args(["-Xnone", "-cfast", "-N", "-D"]).arg(&backup);
            succeed(take.args(["--manifest-checksums", algorithm]));
            drop(server);
            let bytes = size_of(&backup).map_err(CompareError::io("could not size", &backup))?;
            let mut ours = arm("verifybackup".to_owned(), bytes, |_| {
                let mut verify = programs.client("verifybackup");
                verify.arg("-n").arg(&backup).stdout(Stdio::null());
                verify
            });
            let mut theirs = arm(format!("pg_verifybackup {major}"), bytes, |_| {
                let mut verify = Programs::theirs(release, "pg_verifybackup");
                verify.arg("-n").arg(&backup).stdout(Stdio::null());
                verify
            });
            (ours.all_cores, theirs.all_cores) = (true, true);
            let targets = match (algorithm, major) {
                ("CRC32C", 15) => vec![at_most(Metric::Wall, 0.35)],
                ("CRC32C", 18) => vec![at_most(Metric::Wall, 0.55)],
                ("SHA256", 15) => vec![at_most(Metric::Wall, 0.60)],
                _ => Vec::new(),
            };
            let name = format!("verify-{}-{major}", algorithm.to_lowercase());
            bench.compare(&Comparison {
                name,
                what: format!("a plain backup, {algorithm}, of {major}"),
                ours,
                theirs,
                targets,
            })?;
            std::fs::remove_dir_all(&backup).map_err(CompareError::io("could not remove", &backup))?;
        }
    }
    Ok(())
}
