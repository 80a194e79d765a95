//! Serving one scenario to whoever comes: a debugger, a proxy, the client that misbehaved.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_mock::transcript::Event;
use tokio::sync::watch;

use super::{config, seed, settle, start};
use crate::capture::CaptureWriter;
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

/// The name of the socket in its directory, which goes with the value.
struct SocketFile(PathBuf);

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
    let outside = tempfile::Builder::new().prefix("backstop-").tempdir()?;
    let mut config = config(case, service.seed.unwrap_or_else(|| seed(case)), outside.path()).map_err(setup)?;
    config.server_root.clone_from(&service.server_root);
    if let (Some(tls), Endpoint::Tcp(address)) = (&mut config.tls, &service.endpoint) {
        tls.names.push(address.ip().to_string());
    }
    let server = start(case, config).map_err(setup)?;
    if let Some(path) = &service.ca_file {
        let pem = server.ca_certificate_pem().ok_or_else(|| setup("its server does not speak TLS".to_owned()))?;
        let problem = |error| setup(format!("could not write {}: {error}", path.display()));
        fs::write(path, pem).map_err(problem)?;
    }
    let capture = service.record.as_ref().map(|path| {
        let problem = |error| setup(format!("could not write {}: {error}", path.display()));
        let writer = File::create(path).and_then(|file| CaptureWriter::new(BufWriter::new(file), u64::MAX));
        writer.map(|writer| Arc::new(Mutex::new(writer))).map_err(problem)
    });
    let capture = capture.transpose()?;
    if let Some(capture) = &capture {
        server.capture(Arc::clone(capture) as _);
    }
    let (listener, _socket) = match &service.endpoint {
        Endpoint::Tcp(address) => {
            let listener = server.listen(*address).map_err(ServeError::Listen)?;
            writeln!(out, "listening on {}", listener.local_addr()?)?;
            (listener, None)
        }
        Endpoint::Unix(directory) => {
            let socket = directory.join(".s.PGSQL.5432");
            let listener = server.listen_unix(&socket).map_err(ServeError::Listen)?;
            writeln!(out, "listening on unix:{}", directory.display())?;
            (listener, Some(SocketFile(socket)))
        }
    };
    out.flush()?;
    let serving = listener.run();
    tokio::pin!(serving);
    let mut refresh = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            _ = &mut serving => return Ok(()),
            _ = cancel.wait_for(|cancelled| *cancelled) => break,
            _ = refresh.tick() => {
                show(&server.take_transcript(), log)?;
                write_out(capture.as_ref())?;
            }
        }
    }
    show(&server.transcript(), log)?;
    write_out(capture.as_ref())?;
    Ok(())
}

/// Writes what waits of a capture, so that it can be read while the server runs.
fn write_out(capture: Option<&Arc<Mutex<CaptureWriter<BufWriter<File>>>>>) -> io::Result<()> {
    match capture {
        // What it holds is whole between statements, even if somebody died in the middle of one.
        Some(capture) => capture.lock().unwrap_or_else(PoisonError::into_inner).finish(),
        None => Ok(()),
    }
}

/// Writes events.
fn show(events: &[Event], log: &mut impl Write) -> io::Result<()> {
    for event in events {
        writeln!(log, "{event}")?;
    }
    log.flush()
}
