//! `backstop-client receivewal` and `pg_receivewal`, from a backlog.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::bench::arm;
use super::super::rounds::{Comparison, Metric};
use super::super::servers::Serves;
use super::super::workload::Cluster;
use super::super::{Bench, CompareError, Programs};
use super::at_most;

/// Bytes of a segment.
const SEGMENT: u64 = 16 << 20;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let programs = bench.programs;
    for release in programs.releases() {
        let cluster = Cluster::make(release, 1 << 20)?;
        let server = cluster.start()?;
        let postgres = &server.postgres;
        // What was received last tells a receiver where to go on.
        let received = postgres.sql("select pg_walfile_name(pg_switch_wal())");
        let start = postgres.sql("create table before (id int); select pg_current_wal_lsn()");
        let rows = bench.bytes / 300;
        postgres.sql(&format!(
            "create table wal as select id, repeat(md5(id::text), 8) as filler from generate_series(1, {rows}) as id; select pg_switch_wal()"
        ));
        let end = postgres.sql("create table after (id int); select pg_current_wal_flush_lsn()");
        let bytes = postgres.sql(&format!("select ('{end}'::pg_lsn - '{start}'::pg_lsn)::bigint")).parse().unwrap_or(0);
        let finish = |mut command: Command, target: &Path| {
            command.args(server.arguments()).args(["--no-sync", "--no-loop", "--endpos", &end, "-D"]).arg(target);
            command.stdout(Stdio::null());
            command
        };
        let before = |target: &Path| File::create(target.join(&received))?.set_len(SEGMENT);
        let mut ours = arm("receivewal".to_owned(), bytes, |target| finish(programs.client("receivewal"), target));
        ours.prepare = Box::new(before);
        let mut theirs = arm(format!("pg_receivewal {}", release.major()), bytes, |target| {
            finish(Programs::theirs(release, "pg_receivewal"), target)
        });
        theirs.prepare = Box::new(before);
        ours.server = Some(&server);
        theirs.server = Some(&server);
        bench.compare(&Comparison {
            name: format!("receivewal-{}", release.major()),
            what: format!("WAL from a backlog, not synced, from a server {}", release.major()),
            ours,
            theirs,
            targets: vec![at_most(Metric::ClientCpu, 0.50), at_most(Metric::Wall, 0.60)],
        })?;
    }
    Ok(())
}
