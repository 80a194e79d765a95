//! `backstop serve`

use std::io;
use std::net::SocketAddr;

use clap::Args;

use super::{Failure, Root, cancel, one_case};
use crate::arena;
use crate::scenario::sweep;

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
    /// Where to listen; port 0 lets the system choose. The first line printed is `listening on HOST:PORT`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The seed of everything random [default: the scenario's own]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: &ServeArgs) -> Result<u8, Failure> {
    let case = one_case(&args.scenario, &args.root)?;
    if sweep::is_sweep(&case.scenario) && case.step.is_none() {
        return Err(Failure::Usage(format!("{} is a sweep: choose a step, such as '{}[1]'", case.id, case.id)));
    }
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(environment)?;
    runtime.block_on(async {
        let cancel = cancel::on_ctrl_c();
        let (mut out, mut log) = (anstream::stdout(), anstream::stderr());
        let served = arena::serve(&case, args.seed, args.listen, &mut out, &mut log, cancel).await;
        served.map_err(|error| Failure::Environment(error.to_string()))?;
        Ok(0)
    })
}
