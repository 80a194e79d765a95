//! A scenario's faults before a real server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_mock::config::TlsConfig;
use backstop_mock::fault::Fault;
use backstop_mock::proxy::{Proxy, ProxyConfig, Upstream as _};
use tokio::sync::watch;

use super::recording::record;
use super::serve::{Endpoint, News, SOCKET, ServeError, SocketFile, announce, write_ca};
use super::upstream::UpstreamServer;
use super::{description, lead};
use crate::scenario::Case;
use crate::survivor::Survivor;

/// How a proxy is set up.
#[derive(Debug)]
pub struct ProxyService {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The server behind it.
    pub upstream: UpstreamServer,
    /// Whether it speaks TLS to clients.
    pub tls: bool,
    /// Where the certificate of its authority goes.
    pub ca_file: Option<PathBuf>,
    /// The file that takes down what passes between it and clients.
    pub record: Option<PathBuf>,
}

/// Passes on what clients and the server say to each other until `cancel` says so, with the faults of `case` in between. The first line
/// on `out` is as that of [`serve`](super::serve()); events follow on `log`, and in the end which faults have struck.
///
/// The faults that have not.
///
/// # Errors
/// A fault that cannot strike there, a server that does not answer, an address that is in use.
pub async fn proxy(
    case: Option<&Case>,
    mut service: ProxyService,
    out: &mut impl Write,
    log: &mut impl Write,
    mut cancel: watch::Receiver<bool>,
) -> Result<Vec<Fault>, ServeError> {
    let id = case.map_or("the proxy", |case| &case.id);
    let setup = |problem| ServeError::Setup { case: id.to_owned(), problem };
    let outside = tempfile::Builder::new().prefix("backstop-").tempdir()?;
    let _survivor = Survivor::removing(outside.path())?;
    let faults = case.map(|case| case.scenario.faults.as_slice()).unwrap_or_default();
    let faults: Vec<_> = faults.iter().cloned().map(|fault| lead(fault, outside.path())).collect();
    service.upstream.reach().await.map_err(|error| ServeError::Upstream(error.to_string()))?;
    if faults.iter().any(|fault| service.upstream.refuses(&fault.r#do).is_none()) {
        service.upstream.log_in().await;
    }
    let mut tls = TlsConfig::default();
    if let Endpoint::Tcp(address) = &service.endpoint {
        tls.names.push(address.ip().to_string());
    }
    let config = ProxyConfig { faults: faults.clone(), tls: service.tls.then_some(tls), runs_clients: false };
    let proxy = Proxy::new(&config, Arc::new(service.upstream));
    let proxy = proxy.map_err(|error| ServeError::Impossible(format!("{id}: {error}")))?;
    write_ca(service.ca_file.as_deref(), proxy.ca_certificate_pem()).map_err(setup)?;
    pass_on(&proxy, &service.endpoint, service.record.as_deref(), out, log, &mut cancel).await?;
    let fired = proxy.fired();
    let mut unfired = Vec::new();
    for (index, fault) in faults.into_iter().enumerate() {
        let struck = fired.contains(&index);
        writeln!(log, "fault: {} has {}struck", description(&fault), if struck { "" } else { "not " })?;
        if !struck {
            unfired.push(fault);
        }
    }
    log.flush()?;
    Ok(unfired)
}

/// Has `proxy` listen until `cancel` says so, and tells what passes.
pub(super) async fn pass_on(
    proxy: &Proxy,
    endpoint: &Endpoint,
    file: Option<&Path>,
    out: &mut impl Write,
    log: &mut impl Write,
    cancel: &mut watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let capture = record(file).map_err(|problem| ServeError::Output(std::io::Error::other(problem)))?;
    if let Some(capture) = &capture {
        proxy.capture(Arc::clone(capture) as _);
    }
    let (listener, _socket) = match endpoint {
        Endpoint::Tcp(address) => (proxy.listen(*address).map_err(ServeError::Listen)?, None),
        Endpoint::Unix(directory) => {
            let socket = directory.join(SOCKET);
            (proxy.listen_unix(&socket).map_err(ServeError::Listen)?, Some(SocketFile(socket)))
        }
    };
    announce(endpoint, listener.local_addr().ok(), out)?;
    let news = News { events: &|| proxy.take_transcript(), rest: &|| proxy.transcript(), capture };
    news.tell(listener.run(), log, cancel).await?;
    Ok(())
}
