//! `backstop serve`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Root, cancel, one_story};
use crate::arena::{self, Endpoint, Replaying, Service};

const EXAMPLE: &str = "\
Example:
  backstop serve tar/tar-empty-archive --listen 127.0.0.1:5433
  pg_basebackup -h 127.0.0.1 -p 5433 -U backstop -D /tmp/backup
  backstop serve --replay session.cassette --listen 127.0.0.1:5433

A cassette (backstop proxy --record) is answered as it was recorded: the same files of the same sizes, a manifest that fits, WAL that \
parses. Contents are made up, and nobody is asked for a password. A client that asks something else than what was recorded gets an error.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ServeArgs {
    /// The id of a case, or the path of a scenario file
    #[arg(value_name = "SCENARIO", required_unless_present = "replay")]
    scenario: Option<String>,
    /// The cassette to play in place of a scenario
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "seed", "server_root", "ca_file"])]
    replay: Option<PathBuf>,
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
    /// Where to take down what passes: a FILE whose name ends in .pcap takes down every byte, for `backstop decode` and other tools
    /// that read packets, TLS decrypted; any other is a cassette, without secrets and contents, see `backstop proxy --help`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The seed of everything random [default: the scenario's own]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ServeArgs) -> Result<u8, Failure> {
    let case = args.scenario.as_deref().map(|scenario| one_story(scenario, &args.root)).transpose()?;
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(environment)?;
    runtime.block_on(async {
        let cancel = cancel::on_request();
        let (mut out, mut log) = (anstream::stdout(), anstream::stderr());
        let (endpoint, ca_file, record) = (args.listen.clone(), args.ca_file.clone(), args.record.clone());
        let served = match (&case, &args.replay) {
            (None, Some(cassette)) => {
                let replaying = Replaying { cassette: cassette.clone(), endpoint, ca_file, record };
                arena::replay(&replaying, &mut out, &mut log, cancel).await
            }
            (Some(case), _) => {
                let service =
                    Service { endpoint, seed: args.seed, ca_file, server_root: args.server_root.clone(), record };
                arena::serve(case, &service, &mut out, &mut log, cancel).await
            }
            (None, None) => Ok(()),
        };
        served.map_err(|error| Failure::Environment(error.to_string()))?;
        Ok(0)
    })
}
