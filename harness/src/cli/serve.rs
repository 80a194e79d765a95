//! `backstop serve`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Root, cancel, one_case};
use crate::arena::{self, Endpoint, Service};

const EXAMPLE: &str = "\
Example:
  backstop serve tar/tar-empty-archive --listen 127.0.0.1:5433
  pg_basebackup -h 127.0.0.1 -p 5433 -U backstop -D /tmp/backup";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ServeArgs {
    /// The id of a case, or the path of a scenario file
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// Where to listen: a TCP port, of which 0 lets the system choose one, or `unix:DIR` for the socket of port 5432 in a directory.
    /// The first line printed is `listening on` and this
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: Endpoint,
    /// Where to write the certificate of the server's authority, for `sslrootcert`, if the scenario's server speaks TLS
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// The directory that is `/` for backups with `--target=server`; without it nothing of them is written
    #[arg(long, value_name = "DIR")]
    server_root: Option<PathBuf>,
    /// Where to take down every byte that passes, for `backstop decode` and other tools that read pcap. TLS is taken down decrypted
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The seed of everything random [default: the scenario's own]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ServeArgs) -> Result<u8, Failure> {
    let case = one_case(&args.scenario, &args.root)?;
    if let Some(sweep) = case.scenario.sweep.as_ref().filter(|_| case.step.is_none()) {
        let first = sweep.every.first();
        return Err(Failure::Usage(format!("{} is a sweep: choose a step, such as '{}[{first}]'", case.id, case.id)));
    }
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(environment)?;
    runtime.block_on(async {
        let cancel = cancel::on_request();
        let (mut out, mut log) = (anstream::stdout(), anstream::stderr());
        let service = Service {
            endpoint: args.listen.clone(),
            seed: args.seed,
            ca_file: args.ca_file.clone(),
            server_root: args.server_root.clone(),
            record: args.record.clone(),
        };
        let served = arena::serve(&case, &service, &mut out, &mut log, cancel).await;
        served.map_err(|error| Failure::Environment(error.to_string()))?;
        Ok(0)
    })
}
