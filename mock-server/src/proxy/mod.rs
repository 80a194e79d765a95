//! The fault proxy: the same faults in the stream of a real server.
//!
//! A [`Proxy`] stands between clients and a server. It passes bytes on as they come, in both directions, and reads along: it knows
//! statements, archives, members, the manifest and WAL positions as the mock does, and asks the same plan at the same points. Where a
//! fault strikes, it changes what the client gets; what a fault does to the server itself, the [`Upstream`] does over a connection of
//! its own. Passwords are between client and server.
//!
//! | what | see |
//! |---|---|
//! | the server behind it | [`Upstream`] |
//! | what can be done to whom | `means` |
//! | a connection from its first byte to its last | `session` |
//! | start-up, encryption, cancel requests | `greeting` |
//! | from the client to the server | `upward` |
//! | from the server to the client, and faults there | `downward` |

mod downward;
mod greeting;
mod means;
mod session;
mod shared;
mod tapped;
#[cfg(test)]
mod tests;
mod upstream;
mod upward;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use backstop_protocol::version::ServerVersion;
use tokio::sync::mpsc;

use self::means::{Means, means};
use self::shared::{Shared, lock};
pub use self::upstream::{Later, Link, Opened, Upstream};
use crate::capture::Capture;
use crate::config::{Config, ConfigError, TlsConfig};
use crate::fault::{Fault, Identity, Moment, Plan};
use crate::server::ClientOrder;
use crate::tls::Tls;
use crate::transcript::Event;
use crate::transport::{MemoryStream, Socket, Stream};

/// Why no proxy can let `fault` strike, whatever its server is, if none can; `runs_clients` as in [`ProxyConfig`].
pub fn obstacle(fault: &Fault, runs_clients: bool) -> Option<&'static str> {
    match means(fault, runs_clients) {
        Means::Nobody(why) => Some(why),
        Means::Stream | Means::Server | Means::Clients => None,
    }
}

/// What a proxy does besides passing bytes on.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// The faults.
    pub faults: Vec<Fault>,
    /// The certificate with which it ends the TLS of clients. Without it clients are told that there is no TLS.
    pub tls: Option<TlsConfig>,
    /// Whether whoever runs the proxy runs its clients, too: hears what is to be done to their machines ([`Proxy::client_orders`]), and
    /// tells when one has ended ([`Proxy::client_ended`]).
    pub runs_clients: bool,
}

/// A proxy with faults before a real server.
///
/// Cheap to clone. Its sessions are tasks on the runtime on which they were accepted; they end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    _end: Arc<EndOnDrop>,
}

impl Proxy {
    /// A proxy before `upstream`, with its faults armed.
    ///
    /// # Errors
    /// A fault that neither a proxy nor this server can carry out.
    pub fn new(config: &ProxyConfig, upstream: Arc<dyn Upstream>) -> Result<Self, ConfigError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self::at(config, upstream, i64::try_from(now).unwrap_or(i64::MAX))
    }

    /// The same at a date of its own, in Unix seconds.
    fn at(config: &ProxyConfig, upstream: Arc<dyn Upstream>, epoch: i64) -> Result<Self, ConfigError> {
        for (index, fault) in config.faults.iter().enumerate() {
            let named = |problem| ConfigError::invalid(format!("fault {}", index + 1), problem);
            fault.validate().map_err(named)?;
            let refused = match means(fault, config.runs_clients) {
                Means::Stream | Means::Clients => None,
                Means::Server => upstream.refuses(&fault.r#do),
                Means::Nobody(why) => Some(why.to_owned()),
            };
            if let Some(why) = refused {
                let (when, what) = (fault.when.name(), fault.r#do.name());
                return Err(named(format!("{what} at {when} cannot be done through a proxy: {why}")));
            }
        }
        let tls = Config { tls: config.tls.clone(), ..Config::default() };
        let tls = Tls::new(&tls, ServerVersion::NEWEST)?;
        let mut shared = Shared::new(upstream, tls, Plan::new(&config.faults), epoch);
        shared.client_orders = config.runs_clients.then(Default::default);
        let shared = Arc::new(shared);
        Ok(Self { _end: Arc::new(EndOnDrop(shared.clone())), shared })
    }

    /// Opens an in-memory connection; its session runs on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(&self) -> MemoryStream {
        let (ours, theirs) = MemoryStream::pair();
        self.shared.accept(Stream::Memory(ours));
        theirs
    }

    /// Listens on a TCP port; port 0 lets the kernel choose one.
    pub fn listen(&self, address: SocketAddr) -> io::Result<ProxyListener> {
        Ok(ProxyListener { shared: self.shared.clone(), socket: Socket::listen(address)? })
    }

    /// Listens on a Unix socket, which everybody may use. The path must not exist.
    #[cfg(unix)]
    pub fn listen_unix(&self, path: &Path) -> io::Result<ProxyListener> {
        Ok(ProxyListener { shared: self.shared.clone(), socket: Socket::listen_unix(path)? })
    }

    /// The certificate authority's certificate in PEM, which proves the proxy's own: libpq's `sslrootcert`. None without TLS.
    pub fn ca_certificate_pem(&self) -> Option<&str> {
        self.shared.tls.as_ref().map(Tls::authority)
    }

    /// Everything that passed so far, in order, as the client saw it.
    pub fn transcript(&self) -> Vec<Event> {
        lock(&self.shared.recorder).events()
    }

    /// What [`transcript`](Self::transcript) would tell and has not been taken yet, except for the last event of each session
    /// that is in the middle of data. What is taken is no longer kept: whoever serves for long takes it from time to time.
    pub fn take_transcript(&self) -> Vec<Event> {
        lock(&self.shared.recorder).take()
    }

    /// Has every byte between clients and the proxy taken down, from the connections that come from now on. The first capture stays;
    /// another one is not taken.
    pub fn capture(&self, capture: Arc<Mutex<dyn Capture>>) {
        let _ = self.shared.capture.set(capture);
    }

    /// The same of every byte between the proxy and the server, under the numbers that the clients' connections have: what the server
    /// said before a fault changed it. Cancel requests are not taken down.
    pub fn capture_upstream(&self, capture: Arc<Mutex<dyn Capture>>) {
        let _ = self.shared.upstream_capture.set(capture);
    }

    /// What faults want to be done to the machines of clients, from now on. Only the last who asks is told, and nobody is ever told
    /// anything unless the proxy was made for somebody who runs its clients.
    pub fn client_orders(&self) -> mpsc::UnboundedReceiver<ClientOrder> {
        match &self.shared.client_orders {
            Some(orders) => orders.listen(),
            None => mpsc::unbounded_channel().1,
        }
    }

    /// The client called `name` has ended: faults at `client-end` strike, one after another.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client_ended(&self, name: &str) {
        let who = Identity { session: 0, application_name: Some(name.to_owned()), role: None };
        let actions = self.shared.plan(|plan| plan.ask(Moment::ClientEnd, &who));
        if actions.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let doing = tokio::spawn(async move {
            for action in actions {
                shared.note(0, action.name());
                shared.at_large(&action, None).await;
            }
        });
        lock(&self.shared.book).background.push(doing.abort_handle());
    }

    /// Indexes of the faults that have struck.
    pub fn fired(&self) -> BTreeSet<usize> {
        lock(&self.shared.plan).fired()
    }

    /// Open connections.
    pub fn sessions(&self) -> usize {
        *self.shared.live.borrow()
    }

    /// Resolves when no session is left.
    pub async fn idle(&self) {
        let mut live = self.shared.live.subscribe();
        // The sender lives as long as self.
        let _ = live.wait_for(|sessions| *sessions == 0).await;
    }
}

/// Accepts connections for a [`Proxy`].
#[derive(Debug)]
pub struct ProxyListener {
    shared: Arc<Shared>,
    socket: Socket,
}

impl ProxyListener {
    /// The address, with the port that the kernel chose. A Unix socket has none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped. Ends only if the socket breaks.
    pub async fn run(self) -> io::Result<()> {
        loop {
            self.shared.accept(self.socket.accept().await?);
        }
    }
}

/// Ends the sessions of a proxy when its last handle goes.
#[derive(Debug)]
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut book = lock(&self.0.book);
        let tasks: Vec<_> = std::mem::take(&mut book.tasks).into_values().collect();
        let background = std::mem::take(&mut book.background);
        drop(book);
        for task in tasks.into_iter().chain(background) {
            task.abort();
        }
    }
}
