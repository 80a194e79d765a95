//! Where connections come from.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::gathering::Gathering;
use crate::keepalive::Keepalive;

/// What a connection carries bytes over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection of any kind.
pub type BoxStream = Box<dyn Stream>;

/// A connection on its way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Places that are being looked up.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<Place>>> + Send + 'a>>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// BASE_BACKUP, or a backup that is started and stopped with SQL.
    Backup,
    /// START_REPLICATION, at the same time; or files of WAL, again and again.
    Wal,
    /// Files, read with SQL, at the same time.
    Files,
}

/// One of the places where a server may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the host.
    pub host: usize,
    /// One of its addresses, if it has any.
    pub address: Option<IpAddr>,
}

/// What a session's server must be told to cancel what it is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionKey {
    /// The process id of its backend; 0 if the server told none.
    pub pid: i32,
    /// The secret that goes with it.
    pub secret: Bytes,
}

/// Opens connections to one server, which may be at several places.
pub trait Connector: Send + Sync {
    /// The hosts where it may be, in the order to try.
    fn hosts(&self) -> Vec<usize> {
        vec![0]
    }

    /// The places of a host, in the order to try.
    fn resolve(&self, host: usize) -> Resolving<'_> {
        Box::pin(std::future::ready(Ok(vec![Place { host, address: None }])))
    }

    /// Opens a connection.
    fn connect(&self, place: &Place, purpose: Purpose) -> Connecting<'_>;

    /// Learns that a session for `purpose` began at `place`.
    fn connected(&self, place: &Place, purpose: Purpose, key: &SessionKey) {
        let _ = (place, purpose, key);
    }

    /// The session of the backup, or of the WAL where there is no backup, once it began: where it is, and its key.
    fn session(&self) -> Option<(Place, SessionKey)> {
        None
    }

    /// The place in libpq's words: `server at "localhost" (127.0.0.1), port 5432`.
    fn describe(&self, place: &Place) -> String {
        let _ = place;
        "server".to_owned()
    }

    /// The host's name, which the server's certificate must be for; none for a connection that never leaves the machine and is not
    /// encrypted.
    fn name(&self, host: usize) -> Option<String> {
        let _ = host;
        None
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
    /// A Unix socket: `.s.PGSQL.<port>` in a directory. One that begins with `@` is in the abstract namespace.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Address {
    /// As libpq reads `host`: what begins with a slash or `@` is the directory of a Unix socket.
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with(['/', '@']) {
            Self::Unix { directory: host.into(), port }
        } else {
            Self::Tcp { host: host.to_owned(), port }
        }
    }
}

/// A host of a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name and port, or its socket.
    pub address: Address,
    /// Its address, if it need not be looked up (`hostaddr`).
    pub at: Option<IpAddr>,
}

impl From<Address> for Host {
    fn from(address: Address) -> Self {
        Self { address, at: None }
    }
}

/// Connects over TCP or Unix sockets. Of several places the first is taken where a session begins. Where the backup comes from, its WAL
/// comes from, too.
#[derive(Debug)]
pub struct NetConnector {
    hosts: Vec<Host>,
    order: Vec<usize>,
    shuffled: bool,
    keepalive: Keepalive,
    /// Parameters that no connection can be made with, and those that no TCP connection can: libpq tells where it would connect.
    wrong: Option<String>,
    wrong_for_tcp: Option<String>,
    /// The name of the user whom the server on a Unix socket must run as.
    peer: Option<String>,
    /// Where the backup's session began, and its key.
    chosen: Mutex<Option<(Place, SessionKey)>>,
    /// The same of the last session for WAL.
    streaming: Mutex<Option<(Place, SessionKey)>>,
}

impl NetConnector {
    /// Tries `hosts` in order.
    pub fn new<H: Into<Host>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts: Vec<Host> = hosts.into_iter().map(Into::into).collect();
        Self {
            order: (0..hosts.len()).collect(),
            hosts,
            shuffled: false,
            keepalive: Keepalive::DEFAULT,
            wrong: None,
            wrong_for_tcp: None,
            peer: None,
            chosen: Mutex::new(None),
            streaming: Mutex::new(None),
        }
    }

    /// Tries hosts and their addresses in an order that chance decides (`load_balance_hosts=random`).
    pub(crate) fn shuffle(&mut self) {
        self.shuffled = true;
        shuffle(&mut self.order);
    }

    pub(crate) fn keepalive(&mut self, keepalive: Result<Keepalive, String>) {
        match keepalive {
            Ok(keepalive) => self.keepalive = keepalive,
            Err(problem) => self.wrong_for_tcp = Some(problem),
        }
    }

    /// Connects nowhere, and says why.
    pub(crate) fn refuse(&mut self, problem: String) {
        self.wrong = Some(problem);
    }

    pub(crate) fn require_peer(&mut self, user: &str) {
        self.peer = Some(user.to_owned());
    }

    fn chosen(&self) -> Option<Place> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(place, _)| *place)
    }

    async fn look_up(&self, host: usize) -> io::Result<Vec<Place>> {
        let Some(Host { address, at }) = self.hosts.get(host) else { return Ok(Vec::new()) };
        let place = |address| Place { host, address };
        match (address, at) {
            (Address::Unix { .. }, _) => Ok(vec![place(None)]),
            (Address::Tcp { .. }, Some(at)) => Ok(vec![place(Some(*at))]),
            (Address::Tcp { host: name, port }, None) => {
                let found = tokio::net::lookup_host((name.as_str(), *port)).await;
                let found = found.map_err(|error| io::Error::new(error.kind(), untranslatable(name, &error)))?;
                let mut places: Vec<Place> = found.map(|address| place(Some(address.ip()))).collect();
                if self.shuffled {
                    shuffle(&mut places);
                }
                Ok(places)
            }
        }
    }

    async fn open(&self, place: Place) -> io::Result<BoxStream> {
        let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
        if let Some(problem) = &self.wrong {
            return Err(unusable(problem.clone()));
        }
        match (self.hosts.get(place.host).map(|host| &host.address), place.address) {
            (Some(Address::Tcp { port, .. }), Some(address)) => {
                Ok(Box::new(self.open_tcp(SocketAddr::new(address, *port)).await?))
            }
            (Some(Address::Unix { directory, port }), _) => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let text = path.to_string_lossy();
                // The kernel's mark of the abstract namespace is a zero byte.
                let stream = match text.strip_prefix('@') {
                    Some(name) => UnixStream::connect(format!("\0{name}")).await?,
                    None => UnixStream::connect(&path).await?,
                };
                self.check_peer(&stream)?;
                Ok(Box::new(stream))
            }
            _ => Err(nowhere()),
        }
    }

    /// A TCP connection with everything that its parameters say of the socket.
    pub(crate) async fn open_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if let Some(problem) = &self.wrong_for_tcp {
            return Err(unusable(problem.clone()));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.keepalive.apply(&stream)?;
        Ok(stream)
    }

    fn check_peer(&self, stream: &UnixStream) -> io::Result<()> {
        let Some(wanted) = &self.peer else { return Ok(()) };
        let actual = stream.peer_cred()?.uid();
        let actual = user_name(actual).unwrap_or_else(|| actual.to_string());
        if *wanted == actual {
            return Ok(());
        }
        let problem = format!("requirepeer specifies \"{wanted}\", but actual peer user name is \"{actual}\"");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }
}

/// An error about the parameters of a connection, in libpq's words.
pub(crate) fn unusable(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// As libpq says that there is no such host.
fn untranslatable(name: &str, error: &io::Error) -> String {
    let reason = error.to_string();
    let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason);
    format!("could not translate host name \"{name}\" to address: {reason}")
}

impl Connector for NetConnector {
    fn hosts(&self) -> Vec<usize> {
        self.chosen().map_or_else(|| self.order.clone(), |place| vec![place.host])
    }

    fn resolve(&self, host: usize) -> Resolving<'_> {
        match self.chosen() {
            Some(place) if place.host == host => Box::pin(std::future::ready(Ok(vec![place]))),
            _ => Box::pin(self.look_up(host)),
        }
    }

    fn connect(&self, place: &Place, purpose: Purpose) -> Connecting<'_> {
        let place = *place;
        Box::pin(async move {
            let stream = self.open(place).await?;
            // WAL comes in frames of 128 KiB, each of which is worth looking at while the next one is on its way. A Unix socket holds
            // so little that the server would wait, too.
            let gathers = purpose != Purpose::Wal && place.address.is_some();
            Ok(if gathers { Box::new(Gathering::new(stream)) as BoxStream } else { stream })
        })
    }

    fn connected(&self, place: &Place, purpose: Purpose, key: &SessionKey) {
        let session = match purpose {
            Purpose::Backup => &self.chosen,
            Purpose::Wal => &self.streaming,
            // There are many, and each can be replaced.
            Purpose::Files => return,
        };
        *session.lock().unwrap_or_else(PoisonError::into_inner) = Some((*place, key.clone()));
    }

    fn session(&self) -> Option<(Place, SessionKey)> {
        let of = |session: &Mutex<Option<(Place, SessionKey)>>| {
            session.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        of(&self.chosen).or_else(|| of(&self.streaming))
    }

    fn describe(&self, place: &Place) -> String {
        let at = self.hosts.get(place.host).and_then(|host| host.at);
        match (self.hosts.get(place.host).map(|host| &host.address), place.address) {
            // An address that was given is named alone.
            (Some(Address::Tcp { port, .. }), Some(address)) if at.is_some() => {
                format!("server at \"{address}\", port {port}")
            }
            (Some(Address::Tcp { host, port }), Some(address)) if *host != address.to_string() => {
                format!("server at \"{host}\" ({address}), port {port}")
            }
            (Some(Address::Tcp { host, port }), _) => format!("server at \"{host}\", port {port}"),
            (Some(Address::Unix { directory, port }), _) => {
                format!("server on socket \"{}\"", directory.join(format!(".s.PGSQL.{port}")).display())
            }
            (None, _) => "server".to_owned(),
        }
    }

    fn name(&self, host: usize) -> Option<String> {
        match self.hosts.get(host).map(|host| &host.address) {
            Some(Address::Tcp { host, .. }) => Some(host.clone()),
            _ => None,
        }
    }
}

/// The name of a user of this machine.
pub(crate) fn user_name(id: u32) -> Option<String> {
    let id = id.to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let entry = users.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
    entry.split(':').next().map(str::to_owned)
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T]) {
    let mut bytes = vec![0; items.len() * 8];
    // Without chance, the order stays as it is.
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    for (last, chance) in (1..items.len()).rev().zip(bytes.as_chunks::<8>().0) {
        let other = u64::from_le_bytes(*chance) % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_libpq_does() {
        let connector = NetConnector::new([
            Address::new("localhost", 5432),
            Address::new("::1", 1),
            Address::new("/tmp", 5433),
            Address::new("@x", 5433),
        ]);
        let at = |host, address: &str| connector.describe(&Place { host, address: address.parse().ok() });
        assert_eq!(at(0, "127.0.0.1"), "server at \"localhost\" (127.0.0.1), port 5432");
        assert_eq!(at(1, "::1"), "server at \"::1\", port 1");
        assert_eq!(at(2, ""), "server on socket \"/tmp/.s.PGSQL.5433\"");
        assert_eq!(at(3, ""), "server on socket \"@x/.s.PGSQL.5433\"");
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut items: Vec<u32> = (0..100).collect();
        shuffle(&mut items);
        assert!(items.iter().enumerate().any(|(index, item)| index != *item as usize));
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(index, item)| index == *item as usize));
    }

    #[test]
    fn wal_comes_from_where_the_backup_comes_from() {
        let connector = NetConnector::new([Address::new("a", 1), Address::new("b", 2)]);
        let place = Place { host: 1, address: "10.0.0.2".parse().ok() };
        connector.connected(&place, Purpose::Wal, &SessionKey::default());
        assert_eq!(connector.hosts(), [0, 1]);
        assert_eq!(connector.session(), Some((place, SessionKey::default())), "it can be canceled");
        connector.connected(&place, Purpose::Backup, &SessionKey::default());
        assert_eq!(connector.hosts(), [1]);
    }
}
