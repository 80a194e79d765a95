//! Serving one scenario to whoever comes: a debugger, a proxy, the client that misbehaved.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use backstop_mock::Server;
use tokio::sync::watch;

use super::{config, seed, settle, start};
use crate::scenario::Case;

/// How often the log catches up with the transcript: for eyes, not for programs.
const REFRESH: Duration = Duration::from_millis(100);

/// Why a scenario cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The mock cannot be set up as the scenario says.
    #[error("could not serve {case}: {problem}")]
    Setup {
        /// The case.
        case: String,
        /// What is wrong.
        problem: String,
    },
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(io::Error),
    /// The output went away.
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
}

/// Serves `case` on `address` until `cancel` says so. The first line on `out` is `listening on HOST:PORT`; every event of the
/// transcript follows on `log` as it happens. Hostile links lead to a directory that goes in the end.
///
/// # Errors
/// A scenario or data directory that cannot be served, an address that is in use.
pub async fn serve(
    case: &Case,
    given_seed: Option<u64>,
    address: SocketAddr,
    out: &mut impl Write,
    log: &mut impl Write,
    mut cancel: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let setup = |problem| ServeError::Setup { case: case.id.clone(), problem };
    let case = &settle(case.clone()).map_err(setup)?;
    let outside = tempfile::Builder::new().prefix("backstop-").tempdir()?;
    let config = config(case, given_seed.unwrap_or_else(|| seed(case)), outside.path()).map_err(setup)?;
    let server = start(case, config).map_err(setup)?;
    let listener = server.listen(address).map_err(ServeError::Listen)?;
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    let serving = listener.run();
    tokio::pin!(serving);
    let mut refresh = tokio::time::interval(REFRESH);
    let mut shown = 0;
    loop {
        tokio::select! {
            _ = &mut serving => return Ok(()),
            _ = cancel.wait_for(|cancelled| *cancelled) => break,
            _ = refresh.tick() => shown = show(&server, shown, log)?,
        }
    }
    show(&server, shown, log)?;
    Ok(())
}

/// Writes the events that were not yet shown and returns how many have been.
fn show(server: &Server, shown: usize, log: &mut impl Write) -> io::Result<usize> {
    let events = server.transcript();
    for event in events.iter().skip(shown) {
        writeln!(log, "{event}")?;
    }
    log.flush()?;
    Ok(events.len())
}
