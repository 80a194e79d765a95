//! Serving one scenario to whoever comes: a debugger, a proxy, the client that misbehaved.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use backstop_mock::transcript::Event;
use tokio::sync::watch;

use super::recording::{SharedRecording, record};
use super::replay::{self, Replaying};
use super::{config, description, seed, settle, start};
use crate::scenario::Case;
use crate::survivor::Survivor;

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
    /// Nobody answers behind a proxy.
    #[error("could not reach the upstream: {0}")]
    Upstream(String),
    /// A fault that nobody can carry out there.
    #[error("{0}")]
    Impossible(String),
    /// A cassette that cannot be played.
    #[error("could not play {path}: {problem}")]
    Cassette {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The output went away.
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
}

/// Where a scenario is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port: `HOST:PORT`.
    Tcp(SocketAddr),
    /// The socket `.s.PGSQL.5432` in this directory: `unix:DIR`.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("nothing follows \"unix:\"".to_owned()),
            Some(directory) => Ok(Self::Unix(directory.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected HOST:PORT or unix:DIR".to_owned()),
        }
    }
}

/// The name of the socket in its directory: that of port 5432.
pub(super) const SOCKET: &str = ".s.PGSQL.5432";

/// A socket, which goes with the value.
pub(super) struct SocketFile(pub(super) PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.0);
    }
}

/// How a scenario is served.
#[derive(Clone, Debug)]
pub struct Service {
    /// Where.
    pub endpoint: Endpoint,
    /// In place of the scenario's seed.
    pub seed: Option<u64>,
    /// Where the certificate of the server's authority goes.
    pub ca_file: Option<PathBuf>,
    /// The directory that is `/` for backups with TARGET 'server'. Nothing of them is written without one.
    pub server_root: Option<PathBuf>,
    /// The file that takes down what passes on the wire.
    pub record: Option<PathBuf>,
}

/// Serves `case` until `cancel` says so. The first line on `out` is `listening on HOST:PORT`, or `listening on unix:DIR`; every event
/// of the transcript follows on `log` once it is complete. Hostile links lead to a directory that goes in the end.
///
/// # Errors
/// A scenario or data directory that cannot be served, an address that is in use.
pub async fn serve(
    case: &Case,
    service: &Service,
    out: &mut impl Write,
    log: &mut impl Write,
    mut cancel: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let setup = |problem| ServeError::Setup { case: case.id.clone(), problem };
    let case = &settle(case.clone()).map_err(setup)?;
    if let Some(path) = replay::cassette(case) {
        let Service { endpoint, ca_file, record, .. } = service.clone();
        let replaying = Replaying { cassette: path, endpoint, ca_file, record };
        return replay::replay(&replaying, out, log, cancel).await;
    }
    let outside = tempfile::Builder::new().prefix("backstop-").tempdir()?;
    let _survivor = Survivor::removing(outside.path())?;
    let mut config = config(case, service.seed.unwrap_or_else(|| seed(case)), outside.path()).map_err(setup)?;
    config.server_root.clone_from(&service.server_root);
    if let (Some(tls), Endpoint::Tcp(address)) = (&mut config.tls, &service.endpoint) {
        tls.names.push(address.ip().to_string());
    }
    let server = start(case, config).map_err(setup)?;
    write_ca(service.ca_file.as_deref(), server.ca_certificate_pem()).map_err(setup)?;
    let capture = record(service.record.as_deref()).map_err(setup)?;
    if let Some(capture) = &capture {
        server.capture(Arc::clone(capture) as _);
    }
    let (listener, _socket) = match &service.endpoint {
        Endpoint::Tcp(address) => (server.listen(*address).map_err(ServeError::Listen)?, None),
        Endpoint::Unix(directory) => {
            let socket = directory.join(SOCKET);
            (server.listen_unix(&socket).map_err(ServeError::Listen)?, Some(SocketFile(socket)))
        }
    };
    announce(&service.endpoint, listener.local_addr().ok(), out)?;
    for fault in case.scenario.faults.iter().filter(|fault| fault.r#do.client_machine().is_some()) {
        let fault = description(fault);
        writeln!(log, "note: {fault} strikes the machine of a client, which only whoever starts the client can do")?;
    }
    log.flush()?;
    let news = News { events: &|| server.take_transcript(), rest: &|| server.transcript(), capture };
    news.tell(listener.run(), log, &mut cancel).await?;
    Ok(())
}

/// Writes the certificate of whoever speaks TLS.
pub(super) fn write_ca(path: Option<&Path>, pem: Option<&str>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let pem = pem.ok_or_else(|| "its server does not speak TLS".to_owned())?;
    fs::write(path, pem).map_err(|error| format!("could not write {}: {error}", path.display()))
}

/// Says where somebody listens: the first line on `out`.
pub(super) fn announce(endpoint: &Endpoint, address: Option<SocketAddr>, out: &mut impl Write) -> io::Result<()> {
    match (endpoint, &address) {
        (Endpoint::Unix(directory), _) => writeln!(out, "listening on unix:{}", directory.display())?,
        (Endpoint::Tcp(address), None) | (_, Some(address)) => writeln!(out, "listening on {address}")?,
    }
    out.flush()
}

/// What happens while clients are served.
pub(super) struct News<'a> {
    /// Events that are complete and were not told.
    pub(super) events: &'a dyn Fn() -> Vec<Event>,
    /// All that were not told.
    pub(super) rest: &'a dyn Fn() -> Vec<Event>,
    pub(super) capture: Option<SharedRecording>,
}

impl News<'_> {
    /// Tells it on `log`, until the socket breaks or `cancel` says so.
    pub(super) async fn tell(
        &self,
        serving: impl Future<Output = io::Result<()>>,
        log: &mut impl Write,
        cancel: &mut watch::Receiver<bool>,
    ) -> io::Result<()> {
        tokio::pin!(serving);
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                _ = &mut serving => break,
                _ = cancel.wait_for(|cancelled| *cancelled) => break,
                _ = refresh.tick() => {
                    show(&(self.events)(), log)?;
                    write_out(self.capture.as_ref())?;
                }
            }
        }
        show(&(self.rest)(), log)?;
        match &self.capture {
            Some(capture) => capture.lock().unwrap_or_else(PoisonError::into_inner).finish(),
            None => Ok(()),
        }
    }
}

/// Writes what waits of a capture, so that it can be read while the server runs.
fn write_out(capture: Option<&SharedRecording>) -> io::Result<()> {
    match capture {
        // What it holds is whole between statements, even if somebody died in the middle of one.
        Some(capture) => capture.lock().unwrap_or_else(PoisonError::into_inner).write_out(),
        None => Ok(()),
    }
}

/// Writes events.
fn show(events: &[Event], log: &mut impl Write) -> io::Result<()> {
    // Standard error has no buffer of its own.
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    log.write_all(lines.as_bytes())?;
    log.flush()
}
