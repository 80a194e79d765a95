//! `backstop proxy`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Root, cancel, one_story};
use crate::arena::{self, Endpoint, ProxyService, ServeError, UpstreamServer};

/// A fault has not struck: whatever the client made of it says nothing.
const UNFIRED: u8 = 100;

const EXAMPLE: &str = "\
Example:
  backstop proxy crash/mid-tablespace --upstream 'host=db.example.com user=postgres' --listen 127.0.0.1:5433
  pg_basebackup -h 127.0.0.1 -p 5433 -U replicator -D /tmp/backup

  backstop proxy --record session.cassette --upstream 'host=db.example.com' --listen 127.0.0.1:5433
  backstop serve --replay session.cassette

Clients log in to the server themselves: the proxy passes their passwords on and keeps none. The user and the password of --upstream are \
for what faults do to the server, such as promote, switch-wal or terminate; a scenario without such a fault needs none.

A proxy that speaks TLS to both sides cannot pass channel binding on: clients then need channel_binding=disable.

Exit status: 0 if every fault has struck until Ctrl-C came, 100 if one has not; 2 if a fault cannot be carried out there, 96 if the \
server does not answer.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ProxyArgs {
    /// The id of a case, or the path of a scenario file; of it only the faults count. What is only to be recorded needs none
    #[arg(value_name = "SCENARIO", required_unless_present = "record")]
    scenario: Option<String>,
    /// The server, as libpq's connection strings and environment variables say. sslmode and the like are about the way from the proxy to
    /// it
    #[arg(long, value_name = "CONNINFO")]
    upstream: String,
    /// Where to listen: a TCP port, of which 0 lets the system choose one, or `unix:DIR` for the socket of port 5432 in a directory.
    /// The first line printed is `listening on` and this
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: Endpoint,
    /// Speak TLS to clients that ask for it, with a certificate made for the occasion
    #[arg(long)]
    tls: bool,
    /// Where to write the certificate of the proxy's authority, for `sslrootcert`
    #[arg(long, value_name = "PATH", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// Where to record what passes between clients and the proxy: a cassette, for `backstop serve --replay`. It holds messages, the
    /// headers and sizes of what is copied, and checksums. Passwords and the exchanges that prove them, keys, SQL, rows, WAL and the
    /// contents of files are left out; names of users, databases, files and tablespaces, settings that a session reports, labels and
    /// errors are kept. A FILE whose name ends in .pcap takes down every byte instead, passwords and contents of files among them,
    /// for `backstop decode` and other tools that read packets
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ProxyArgs) -> Result<u8, Failure> {
    let case = args.scenario.as_deref().map(|scenario| one_story(scenario, &args.root)).transpose()?;
    let mut warnings = Vec::new();
    let upstream = UpstreamServer::new(&args.upstream, |warning| warnings.push(warning));
    let upstream = upstream.map_err(|error| Failure::Usage(format!("--upstream: {error}")))?;
    for warning in warnings {
        anstream::eprintln!("warning: {warning}");
    }
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    // One thread: what wakes another one costs more than what there is to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(environment)?;
    runtime.block_on(async {
        let cancel = cancel::on_request();
        let (mut out, mut log) = (anstream::stdout(), anstream::stderr());
        let service = ProxyService {
            endpoint: args.listen.clone(),
            upstream,
            tls: args.tls,
            ca_file: args.ca_file.clone(),
            record: args.record.clone(),
        };
        let unfired =
            arena::proxy(case.as_ref(), service, &mut out, &mut log, cancel).await.map_err(|error| match error {
                ServeError::Impossible(_) => Failure::Usage(error.to_string()),
                error => Failure::Environment(error.to_string()),
            })?;
        Ok(if unfired.is_empty() { 0 } else { UNFIRED })
    })
}
