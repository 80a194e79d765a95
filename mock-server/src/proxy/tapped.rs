//! A connection to the server that tells what passes on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::upstream::Link;
use crate::capture::Tap;
use crate::transcript::Direction;

/// The connection, and who is told.
pub(super) struct TappedLink {
    link: Box<dyn Link>,
    tap: Tap,
}

impl TappedLink {
    pub(super) fn new(link: Box<dyn Link>, tap: Tap) -> Self {
        Self { link, tap }
    }
}

impl AsyncRead for TappedLink {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.link).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.tap.bytes(Direction::Sent, read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TappedLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.link).poll_write(cx, bytes))?;
        if written > 0 {
            self.tap.bytes(Direction::Received, bytes.get(..written).unwrap_or(bytes));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
