//! Where connections come from.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// What a connection carries bytes over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection of any kind.
pub type BoxStream = Box<dyn Stream>;

/// A connection on its way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// BASE_BACKUP.
    Backup,
    /// START_REPLICATION, at the same time.
    Wal,
}

/// Opens connections to one server.
pub trait Connector: Send + Sync {
    /// Opens a connection.
    fn connect(&self, purpose: Purpose) -> Connecting<'_>;

    /// The server in libpq's words: `server at "localhost", port 5432`.
    fn describe(&self) -> String {
        "server".to_owned()
    }
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket: `.s.PGSQL.<port>` in a directory.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Address {
    /// As libpq reads `host`: what begins with a slash is the directory of a Unix socket.
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            Self::Unix { directory: host.into(), port }
        } else {
            Self::Tcp { host: host.to_owned(), port }
        }
    }

    async fn connect(&self) -> io::Result<BoxStream> {
        match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix { directory, port } => {
                Ok(Box::new(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?))
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("server at \"{host}\", port {port}"),
            Self::Unix { directory, port } => {
                format!("server on socket \"{}\"", directory.join(format!(".s.PGSQL.{port}")).display())
            }
        }
    }
}

/// Connects over TCP or a Unix socket. Of several addresses the first that answers is taken, and kept for later connections:
/// the WAL must come from the server that sends the backup.
#[derive(Debug)]
pub struct NetConnector {
    addresses: Vec<Address>,
    /// The address that answered; `usize::MAX` before any did.
    chosen: AtomicUsize,
}

impl NetConnector {
    /// Tries `addresses` in order.
    pub fn new(addresses: Vec<Address>) -> Self {
        Self { addresses, chosen: AtomicUsize::new(usize::MAX) }
    }
}

impl Connector for NetConnector {
    fn connect(&self, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async move {
            if let Some(address) = self.addresses.get(self.chosen.load(Ordering::Relaxed)) {
                return address.connect().await;
            }
            let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
            for (index, address) in self.addresses.iter().enumerate() {
                match address.connect().await {
                    Ok(stream) => {
                        self.chosen.store(index, Ordering::Relaxed);
                        return Ok(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn describe(&self) -> String {
        let chosen = self.addresses.get(self.chosen.load(Ordering::Relaxed)).or(self.addresses.last());
        chosen.map_or_else(|| "server".to_owned(), Address::describe)
    }
}
