//! Sockets that are read in few large pieces.
//!
//! A walsender gives its archive to the kernel in pieces of some KiB, and a reader that is woken for each of them costs both ends more
//! than the bytes do. So after a small piece of something large the next one is given a moment to grow. The kernel could do that itself
//! (`SO_RCVLOWAT`), but it would keep back the last bytes for ever, and an ErrorResponse among them; a moment is over by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A piece of something large has so many bytes. Answers to commands have fewer.
const PIECE: usize = 8 << 10;
/// So many bytes are worth being woken for.
const ENOUGH: usize = 192 << 10;
/// As short as can be: the timer's slack makes some 50 µs of it, in which a server sends some 100 KiB. Shorter than it takes others to notice.
const MOMENT: Duration = Duration::from_micros(1);

/// A stream that is given a moment after each small piece.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    inner: S,
    /// Bytes of the last piece, if the next one was not waited for yet.
    last: usize,
}

impl<S> Gathering<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, last: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if (PIECE..ENOUGH).contains(&std::mem::take(&mut self.last)) {
            // The thread has nothing better to do: writing what comes blocks it for longer.
            std::thread::sleep(MOMENT);
        }
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        // What filled the buffer says nothing of how much more there is.
        self.last = if read == room { 0 } else { read };
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_what_was_written_and_its_end() {
        let (ours, mut theirs) = tokio::io::duplex(100_000);
        let sizes = [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, ENOUGH + 1, 5];
        let writing = tokio::spawn(async move {
            for (size, byte) in sizes.into_iter().zip(0..) {
                theirs.write_all(&vec![byte; size]).await.expect("written");
            }
        });
        let mut read = Vec::new();
        Gathering::new(ours).read_to_end(&mut read).await.expect("read");
        writing.await.expect("written");
        let expected: Vec<u8> = sizes.into_iter().zip(0..).flat_map(|(size, byte)| vec![byte; size]).collect();
        assert!(read == expected);
    }
}
