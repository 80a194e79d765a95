//! The connections that a server can have: TCP, Unix sockets, and memory, and TLS over them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(unix)]
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bytes that an in-memory connection holds in each direction before the writer must wait.
const MEMORY_BUFFER: usize = 64 << 10;

/// One end of an in-memory connection.
///
/// Dropping an end is an orderly close: the peer reads what was written and then the end of the stream. A [reset](Self::reset)
/// is not: the peer reads what was written and then [`io::ErrorKind::ConnectionReset`], as with a TCP connection whose peer
/// sent RST.
#[derive(Debug)]
pub struct MemoryStream {
    inner: DuplexStream,
    /// One flag for each direction of view: set by an end that resets, seen by the other.
    reset_by_me: Arc<AtomicBool>,
    reset_by_peer: Arc<AtomicBool>,
}

impl MemoryStream {
    /// Two connected ends.
    pub fn pair() -> (Self, Self) {
        let (left, right) = tokio::io::duplex(MEMORY_BUFFER);
        let (left_flag, right_flag) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        (
            Self { inner: left, reset_by_me: left_flag.clone(), reset_by_peer: right_flag.clone() },
            Self { inner: right, reset_by_me: right_flag, reset_by_peer: left_flag },
        )
    }

    /// Ends the connection as a reset.
    pub fn reset(self) {
        self.reset_by_me.store(true, Ordering::SeqCst);
    }

    fn peer_error(&self) -> Option<io::Error> {
        self.reset_by_peer.load(Ordering::SeqCst).then(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let at_end = matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0;
        match self.peer_error() {
            Some(error) if at_end => Poll::Ready(Err(error)),
            _ => polled,
        }
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.peer_error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where connections are waited for.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Socket {
    /// A TCP port; port 0 lets the kernel choose one.
    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("could not listen on {address}: {error}"));
        on_runtime().map_err(failed)?;
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        TcpListener::from_std(socket).map(Self::Tcp).map_err(failed)
    }

    /// A Unix socket, which everybody may use (`unix_socket_permissions`). The path must not exist.
    #[cfg(unix)]
    pub(crate) fn listen_unix(path: &Path) -> io::Result<Self> {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("could not listen on {}: {error}", path.display()));
        on_runtime().map_err(failed)?;
        let socket = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Self::Unix(socket))
    }

    /// The address, with the port that the kernel chose. A Unix socket has none.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            #[cfg(unix)]
            Self::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "a Unix socket has no internet address")),
        }
    }

    /// The next connection. An error only if the socket breaks.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        loop {
            let accepted = match self {
                Self::Tcp(socket) => socket.accept().await.map(|(stream, _)| {
                    // A hint: without it the stream still works.
                    let _ = stream.set_nodelay(true);
                    Stream::Tcp(stream)
                }),
                #[cfg(unix)]
                Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                // The peer went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                accepted => return accepted,
            }
        }
    }
}

/// Sockets belong to a runtime.
fn on_runtime() -> io::Result<()> {
    tokio::runtime::Handle::try_current().map(drop).map_err(io::Error::other)
}

/// The server's end of a connection of any kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(MemoryStream),
    Tls(Box<TlsStream<Rewound>>),
}

impl Stream {
    /// Where the client is, as `pg_hba.conf` sees it: nowhere on a Unix socket, on this machine in memory.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            // A connection that has no peer any more will not come to be asked.
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            #[cfg(unix)]
            Self::Unix(_) => None,
            Self::Memory(_) => Some(Ipv4Addr::LOCALHOST.into()),
            Self::Tls(stream) => stream.get_ref().0.stream.peer(),
        }
    }

    /// The server's side of the TLS handshake. `read` is what was already read of it.
    pub(crate) async fn encrypt(self, acceptor: &TlsAcceptor, read: Bytes) -> io::Result<Self> {
        let stream = acceptor.accept(Rewound { read, stream: self }).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// What the client chose by ALPN. None without TLS, too.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }

    /// Ends the connection as the end of a process does: without a last word of TLS.
    pub(crate) async fn abandon(self) {
        match self {
            Self::Tls(stream) => Box::pin(stream.into_inner().0.stream.abandon()).await,
            // The peer may be gone already, which is an end as well.
            mut stream => drop(stream.shutdown().await),
        }
    }

    /// Ends the connection so that the peer sees a reset where the transport has one. A Unix socket has none: it closes.
    pub(crate) fn reset(self) {
        match self {
            // Without SO_LINGER 0 the kernel would send FIN. If it cannot be set, a close is the best there is.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            #[cfg(unix)]
            Self::Unix(_) => {}
            Self::Memory(stream) => stream.reset(),
            Self::Tls(stream) => stream.into_inner().0.stream.reset(),
        }
    }
}

/// A connection of which something was already read.
#[derive(Debug)]
pub(crate) struct Rewound {
    read: Bytes,
    stream: Stream,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $call,
            #[cfg(unix)]
            Self::Unix($stream) => $call,
            Self::Memory($stream) => $call,
            Self::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_close_is_an_end_of_stream() {
        let (mut left, mut right) = MemoryStream::pair();
        left.write_all(b"last words").await.unwrap();
        drop(left);
        let mut read = Vec::new();
        right.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
    }

    #[tokio::test]
    async fn a_reset_is_an_error_after_what_was_written() {
        let (mut left, mut right) = MemoryStream::pair();
        left.write_all(b"last words").await.unwrap();
        left.reset();
        let mut read = Vec::new();
        let error = right.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(read, b"last words");
        assert_eq!(right.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_reset_wakes_a_waiting_reader() {
        let (left, mut right) = MemoryStream::pair();
        let reader = tokio::spawn(async move { right.read_u8().await.map_err(|error| error.kind()) });
        tokio::task::yield_now().await;
        left.reset();
        assert_eq!(reader.await.unwrap(), Err(io::ErrorKind::ConnectionReset));
    }
}
