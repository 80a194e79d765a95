//! The machine of the built-in client: a disk and a network that a fault can break.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use backstop_client::{Address, BoxStream, Connecting, Connector, Disk, NetConnector, Place, Purpose, Resolving};
use backstop_mock::Server;
use backstop_mock::proxy::Proxy;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// How much more fits, if there is a limit.
    room: Option<u64>,
    /// Whether fsync fails.
    forgets: bool,
    /// Why nothing can be changed.
    protected: Option<Errno>,
}

/// A disk in a machine.
#[derive(Debug, Default)]
pub(crate) struct FaultyDisk(Mutex<Trouble>);

impl FaultyDisk {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // A plain value is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `room` bytes more fit.
    pub(crate) fn fill(&self, room: u64) {
        self.trouble().room = Some(room);
    }

    /// Nothing can be forced to disk any more.
    pub(crate) fn forget(&self) {
        self.trouble().forgets = true;
    }

    /// Nothing can be changed any more, and this is what the system says.
    pub(crate) fn protect(&self, why: Errno) {
        self.trouble().protected = Some(why);
    }

    fn writable(&self) -> io::Result<()> {
        self.trouble().protected.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl Disk for FaultyDisk {
    fn change(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.writable()?;
        work()
    }

    fn write(&self, _path: &Path, bytes: &[u8], work: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.writable()?;
        let Some(room) = self.trouble().room else { return work(bytes) };
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if fits == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC.into());
        }
        let written = work(bytes.get(..fits).unwrap_or(bytes))?;
        self.trouble().room = Some(room.saturating_sub(written as u64));
        Ok(written)
    }

    /// Nobody starts a server on what is in memory, and most of a segment of WAL is zeros.
    fn makes_holes(&self) -> bool {
        true
    }

    fn sync(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.trouble().forgets {
            return Err(Errno::IO.into());
        }
        self.writable()?;
        work()
    }
}

/// The network of a machine: connections inside of the process or over TCP, until the machine loses its power.
#[derive(Debug)]
pub(crate) struct Network {
    way: Way,
    dead: Arc<AtomicBool>,
}

/// Where connections lead.
#[derive(Debug)]
enum Way {
    Memory(Server),
    Proxy(Proxy),
    Tcp(Box<NetConnector>),
}

impl Network {
    /// Connections to the mock in this process.
    pub(crate) fn to_mock(server: Server) -> Self {
        Self { way: Way::Memory(server), dead: Arc::default() }
    }

    /// Connections to a proxy in this process.
    pub(crate) fn to_proxy(proxy: Proxy) -> Self {
        Self { way: Way::Proxy(proxy), dead: Arc::default() }
    }

    /// Connections to what listens on `address`.
    pub(crate) fn to_address(address: SocketAddr) -> Self {
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        Self { way: Way::Tcp(Box::new(NetConnector::new([address]))), dead: Arc::default() }
    }

    /// Cuts all connections: nothing more is sent, no goodbye above all.
    pub(crate) fn switch_off(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

impl Connector for Network {
    fn resolve(&self, host: usize) -> Resolving<'_> {
        match &self.way {
            Way::Memory(_) | Way::Proxy(_) => Box::pin(std::future::ready(Ok(vec![Place { host, address: None }]))),
            Way::Tcp(connector) => connector.resolve(host),
        }
    }

    fn connect(&self, place: &Place, purpose: Purpose) -> Connecting<'_> {
        let place = *place;
        Box::pin(async move {
            let stream: BoxStream = match &self.way {
                Way::Memory(server) => Box::new(server.connect()),
                Way::Proxy(proxy) => Box::new(proxy.connect()),
                Way::Tcp(connector) => connector.connect(&place, purpose).await?,
            };
            Ok(Box::new(Cable { stream, dead: Arc::clone(&self.dead) }) as _)
        })
    }

    /// One of the names that the mock's certificate is for.
    fn name(&self, _host: usize) -> Option<String> {
        Some("localhost".to_owned())
    }
}

/// A connection of a [`Network`].
struct Cable {
    stream: BoxStream,
    dead: Arc<AtomicBool>,
}

impl Cable {
    fn live(&mut self) -> io::Result<Pin<&mut BoxStream>> {
        if self.dead.load(Ordering::SeqCst) { Err(Errno::NETDOWN.into()) } else { Ok(Pin::new(&mut self.stream)) }
    }
}

impl AsyncRead for Cable {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().live()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Cable {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().live()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().live()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().live()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &FaultyDisk, bytes: &[u8]) -> Result<usize, Option<i32>> {
        disk.write(Path::new("f"), bytes, &mut |bytes| Ok(bytes.len())).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_no_more() {
        let disk = FaultyDisk::default();
        assert_eq!(write(&disk, b"hello"), Ok(5));
        disk.fill(7);
        let full = Err(Some(Errno::NOSPC.raw_os_error()));
        assert_eq!([write(&disk, b"hello"), write(&disk, b"hello"), write(&disk, b"x")], [Ok(5), Ok(2), full]);
        assert!(disk.change(Path::new("f"), &mut || Ok(())).is_ok() && write(&disk, b"") == Ok(0));
    }

    #[test]
    fn a_disk_that_forgets_takes_everything_and_keeps_nothing() {
        let disk = FaultyDisk::default();
        disk.forget();
        assert_eq!(write(&disk, b"hello"), Ok(5));
        assert!(disk.sync(Path::new("f"), &mut || panic!("nothing is forced to disk")).is_err());
    }

    #[test]
    fn nothing_changes_on_a_protected_disk() {
        let disk = FaultyDisk::default();
        disk.protect(Errno::ROFS);
        assert_eq!(write(&disk, b"hello"), Err(Some(Errno::ROFS.raw_os_error())));
        assert!(disk.change(Path::new("f"), &mut || panic!("nothing changes")).is_err());
    }
}
