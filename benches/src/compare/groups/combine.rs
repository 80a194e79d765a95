//! `backstop-client combinebackup` and `pg_combinebackup`.

use std::process::{Command, Stdio};

use backstop_scenarios::postgres::succeed;

use super::super::bench::{arm, backup};
use super::super::rounds::{Comparison, Metric};
use super::super::servers::Serves as _;
use super::super::workload::{Cluster, size_of};
use super::super::{Bench, CompareError, Programs};
use super::at_most;

/// The full backup and one in which a tenth has changed, half of it by new rows, half in old pages: a fifth of one table of four.
pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let programs = bench.programs;
    let release = programs.releases().iter().find(|release| release.major() >= 17);
    let release =
        release.ok_or_else(|| CompareError::Missing("pg_combinebackup came with 17, which is not there".to_owned()))?;
    let cluster = Cluster::make(release, bench.bytes)?;
    let (full, later) = (bench.scratch().join("full"), bench.scratch().join("later"));
    let server = cluster.start()?;
    let take = |target| {
        let mut take = Programs::theirs(release, "pg_basebackup");
        take.args(server.arguments()).args(["-Xnone", "-cfast", "-N", "-D"]).arg(target);
        take
    };
    succeed(&mut take(&full));
    server.postgres.sql("update rows set filler = reverse(filler) where id <= (select max(id) / 5 from rows)");
    succeed(take(&later).arg("-i").arg(full.join("backup_manifest")));
    drop(server);
    let bytes = size_of(&full).map_err(CompareError::io("could not size", &full))?;
    let finish = |mut command: Command, target: &std::path::Path| {
        command.arg(&full).arg(&later).arg("--no-sync").arg("-o").arg(backup(target)).stdout(Stdio::null());
        command
    };
    let ours = arm("combinebackup".to_owned(), bytes, |target| finish(programs.client("combinebackup"), target));
    let theirs = arm(format!("pg_combinebackup {}", release.major()), bytes, |target| {
        finish(Programs::theirs(release, "pg_combinebackup"), target)
    });
    let mut comparison = Comparison {
        name: "combine".to_owned(),
        what: "full and one in which a tenth has changed, copied, with manifest".to_owned(),
        ours,
        theirs,
        targets: vec![at_most(Metric::Wall, 0.70)],
    };
    (comparison.ours.all_cores, comparison.theirs.all_cores) = (true, true);
    bench.compare(&comparison)
}
