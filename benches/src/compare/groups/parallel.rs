//! `backstop-client parallelbackup` with several connections, and `backstop-client basebackup` with one stream.

use super::super::bench::{arm, backup};
use super::super::rounds::Comparison;
use super::super::servers::Serves as _;
use super::super::{Bench, CompareError};

/// Connections that fetch files.
const JOBS: [u8; 3] = [1, 2, 4];

/// The same cluster over one stream and over each number of connections. Both ends may use all cores: several connections on one would
/// only take turns.
pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), CompareError> {
    let release = bench.programs.postgres()?.clone();
    let cluster = bench.cluster(&release)?;
    let server = cluster.start_on_all_cores()?;
    let programs = bench.programs;
    for jobs in JOBS {
        let mut ours = arm(format!("parallelbackup -j {jobs}"), cluster.bytes, |target| {
            let mut command = programs.client("parallelbackup");
            command.args(["-c", "fast", "--no-sync", "-j", &jobs.to_string(), &server.conninfo()]).arg(backup(target));
            command
        });
        let mut theirs = arm("basebackup".to_owned(), cluster.bytes, |target| {
            let mut command = programs.client("basebackup");
            command.args(server.arguments()).args(["-Fp", "-Xnone", "-cfast", "--no-sync", "-D"]).arg(backup(target));
            command
        });
        for arm in [&mut ours, &mut theirs] {
            arm.server = Some(&server);
            arm.all_cores = true;
        }
        let plural = if jobs == 1 { "connection" } else { "connections" };
        bench.compare(&Comparison {
            name: format!("parallel-{jobs}"),
            what: format!(
                "files with SQL over {jobs} {plural} against one stream, plain, from a server {}",
                release.major()
            ),
            ours,
            theirs,
            targets: Vec::new(),
        })?;
    }
    Ok(())
}
