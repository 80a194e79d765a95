//! The machine of the built-in client: a disk and a network that a fault can break.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use backstop_client::{Connecting, Connector, Disk, Place, Purpose};
use backstop_mock::{MemoryStream, Server};
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

    fn sync(&self, _path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.trouble().forgets {
            return Err(Errno::IO.into());
        }
        self.writable()?;
        work()
    }
}

/// The network of a machine: connections inside of the process, until the machine loses its power.
#[derive(Debug)]
pub(crate) struct Network {
    server: Server,
    dead: Arc<AtomicBool>,
}

impl Network {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, dead: Arc::default() }
    }

    /// Cuts all connections: nothing more is sent, no goodbye above all.
    pub(crate) fn switch_off(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

impl Connector for Network {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async {
            let cable = Cable { stream: self.server.connect(), dead: Arc::clone(&self.dead) };
            Ok(Box::new(cable) as _)
        })
    }

    /// One of the names that the mock's certificate is for.
    fn name(&self, _host: usize) -> Option<String> {
        Some("localhost".to_owned())
    }
}

/// A connection of a [`Network`].
#[derive(Debug)]
struct Cable {
    stream: MemoryStream,
    dead: Arc<AtomicBool>,
}

impl Cable {
    fn live(&mut self) -> io::Result<Pin<&mut MemoryStream>> {
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
