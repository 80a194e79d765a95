//! A server that runs: where it is reached, and how it is ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_client::{Address, NetConnector};
use backstop_mock::fault::ShutdownMode;
use backstop_mock::proxy::Later;
use backstop_protocol::version::ServerVersion;
use tokio::sync::Mutex;

use super::configuration::SUPERUSER;
use super::process::Process;
use crate::arena::sql::Sql;
use crate::arena::upstream::{Owner, UpstreamServer};
use crate::oracle::postgres::Installation;

/// A server that was started. It ends with the last value, if it was not ended before.
#[derive(Clone, Debug)]
pub(in crate::arena) struct Server {
    /// The directory of its socket.
    pub(super) socket: PathBuf,
    pub(super) port: u16,
    running: Arc<Running>,
}

/// Its process.
#[derive(Debug)]
struct Running {
    installation: Installation,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
    /// None once it was ended for good.
    process: Mutex<Option<Process>>,
}

impl Server {
    pub(super) fn new(installation: Installation, data: PathBuf, socket: PathBuf, port: u16, process: Process) -> Self {
        let process = Mutex::new(Some(process));
        let running = Running { installation, data, socket: socket.clone(), port, process };
        Self { socket, port, running: Arc::new(running) }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A session of ours.
    pub(super) async fn sql(&self) -> Result<Sql, String> {
        self.running.sql().await
    }

    /// The server as a proxy sees it.
    pub(super) fn upstream(&self, version: ServerVersion) -> UpstreamServer {
        let address = self.address();
        let clients = NetConnector::new([Address::Tcp { host: address.ip().to_string(), port: address.port() }]);
        UpstreamServer::ours(version, clients, self.running.connector(), SUPERUSER, Arc::clone(&self.running) as _)
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// The end of its log.
    pub(super) async fn stop(self) -> Result<(), String> {
        match &mut *self.running.process.lock().await {
            Some(process) => process.stop(ShutdownMode::Fast).await,
            None => Ok(()),
        }
    }

    /// Ends it where it stands: the end of its log.
    pub(super) async fn end(&self) -> String {
        let process = self.running.process.lock().await.take();
        process.map(|process| process.last_words()).unwrap_or_default()
    }
}

impl Running {
    fn connector(&self) -> NetConnector {
        NetConnector::new([Address::Unix { directory: self.socket.clone(), port: self.port }])
    }

    async fn sql(&self) -> Result<Sql, String> {
        Sql::open(&self.connector(), SUPERUSER).await
    }

    /// The process whose death hurts nobody but the server.
    async fn victim(&self) -> Result<u32, String> {
        let mut sql = self.sql().await?;
        let rows = sql.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'").await?;
        let pid = rows.into_iter().flatten().flatten().next();
        pid.and_then(|pid| pid.parse().ok()).ok_or_else(|| "the server has no background writer".to_owned())
    }

    async fn end(&self, mode: ShutdownMode) -> Result<(), String> {
        let mut process = self.process.lock().await;
        let Some(process) = process.as_mut() else { return Ok(()) };
        match mode {
            ShutdownMode::Smart => {
                process.ask_to_stop(mode);
                Ok(())
            }
            _ => process.stop(mode).await,
        }
    }

    async fn fall(&self, restart_after: Option<Duration>) -> Result<(), String> {
        let victim = self.victim().await?;
        let mut process = self.process.lock().await;
        let Some(fallen) = process.as_mut() else { return Ok(()) };
        // One of its processes dies, and it ends all others: restart_after_crash is off.
        fallen.kill(victim);
        fallen.gone().await?;
        if let Some(after) = restart_after {
            tokio::time::sleep(after).await;
            let again = Process::start(&self.installation, &self.data);
            let mut again = again.map_err(|error| format!("could not run postgres: {error}"))?;
            again.ready(1).await?;
            *process = Some(again);
        }
        Ok(())
    }
}

impl Owner for Running {
    fn shut_down(&self, mode: ShutdownMode) -> Later<'_, Result<(), String>> {
        Box::pin(self.end(mode))
    }

    fn crash(&self, restart_after: Option<Duration>) -> Later<'_, Result<(), String>> {
        Box::pin(self.fall(restart_after))
    }
}
