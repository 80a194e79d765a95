//! Frames in, bytes out.

use std::net::IpAddr;

use backstop_protocol::backend::MessageError;
use backstop_protocol::frame::{read_frame, read_startup};
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::capture::Tap;
use crate::transcript::Direction;
use crate::transport::Stream;

/// Bytes that wait to be written to a socket before the session waits for the client to take them: what goes into few calls costs less.
const OUTPUT_BUFFER: usize = 256 << 10;

/// The same in memory, where a call costs nothing: a client that leaves has been told little that it did not read.
const MEMORY_OUTPUT_BUFFER: usize = 64 << 10;

/// Bytes of a client that nobody asked that are kept.
const INPUT_BUFFER: usize = 64 << 10;

/// The tags of everything that a client may send.
const TAGS: &[u8] = b"QpdcfXSHPBDECF";

/// What reading the next message came to.
#[derive(Debug)]
pub(crate) enum Received {
    Message(FrontendMessage),
    /// A tag that no client sends.
    Unknown(u8),
    /// A known tag with a wrong body.
    Malformed(MessageError),
    /// The connection ended or broke, or a length cannot be right. PostgreSQL says nothing in these cases.
    Gone,
}

/// What came in answer to a challenge.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The body of PasswordMessage, SASLInitialResponse or SASLResponse.
    Password(Bytes),
    /// A message of another type.
    Other(u8),
    /// A length that cannot be right.
    BadLength,
    /// The connection ended or broke.
    Gone,
}

/// A connection with its buffers. Every method but [`encrypt`](Self::encrypt) can be cancelled without losing a byte.
#[derive(Debug)]
pub(crate) struct Wire {
    /// None after its end.
    stream: Option<Stream>,
    /// Where every byte is taken down.
    tap: Option<Tap>,
    /// The client's address; none on a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    input: BytesMut,
    /// What was said and not yet written.
    pub(crate) output: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: Stream, tap: Option<Tap>) -> Self {
        Self { peer: stream.peer(), stream: Some(stream), tap, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// The connection, what was read of it and not looked at, and where its bytes are taken down.
    pub(crate) fn into_parts(self) -> Option<(Stream, BytesMut, Option<Tap>)> {
        Some((self.stream?, self.input, self.tap))
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }

    /// Goes on under TLS. With `rewind` the handshake begins with what was already read; without it that is dropped. False if nothing
    /// came of it: the connection is over then.
    pub(crate) async fn encrypt(&mut self, acceptor: &TlsAcceptor, rewind: bool) -> bool {
        let read = self.input.split().freeze();
        let Some(stream) = self.stream.take() else { return false };
        self.stream = stream.encrypt(acceptor, if rewind { read } else { Bytes::new() }).await.ok();
        self.stream.is_some()
    }

    /// What the client chose by ALPN.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.stream.as_ref().and_then(Stream::alpn)
    }

    /// Whether bytes were read that nobody has looked at.
    pub(crate) fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// The next byte, which is not consumed.
    pub(crate) async fn peek(&mut self) -> Option<u8> {
        while self.input.is_empty() {
            if !self.fill().await {
                return None;
            }
        }
        self.input.first().copied()
    }

    /// Waits for a packet that is a length and so many bytes, at most `limit`, as GSSAPI tokens come, and drops it.
    pub(crate) async fn skip_token(&mut self, limit: usize) {
        loop {
            if let Some(head) = self.input.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
                if length > limit || self.input.len() - 4 >= length {
                    return;
                }
            }
            if !self.fill().await {
                return;
            }
        }
    }

    /// Reads more bytes; false at the end of the stream, or when it broke.
    async fn fill(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        self.input.reserve(4096);
        let before = self.input.len();
        let read = matches!(stream.read_buf(&mut self.input).await, Ok(1..));
        if let Some(tap) = &self.tap {
            tap.bytes(Direction::Received, self.input.get(before..).unwrap_or_default());
        }
        read
    }

    /// The next untagged packet.
    pub(crate) async fn read_startup(&mut self) -> Option<Bytes> {
        loop {
            match read_startup(&mut self.input) {
                Ok(Some(packet)) => return Some(packet),
                Ok(None) if self.fill().await => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next message, whose body has at most `limit` bytes.
    pub(crate) async fn read(&mut self, limit: usize) -> Received {
        loop {
            // Before anything is believed of a length: what has no meaning needs no body.
            if let Some(tag) = self.input.first().filter(|tag| !TAGS.contains(tag)) {
                return Received::Unknown(*tag);
            }
            match read_frame(&mut self.input, limit) {
                Ok(Some(frame)) => {
                    return FrontendMessage::decode(frame).map_or_else(Received::Malformed, Received::Message);
                }
                Ok(None) if self.fill().await => {}
                Ok(None) | Err(_) => return Received::Gone,
            }
        }
    }

    /// The client's answer to a challenge, as the server reads it: whatever else comes instead is known by its tag alone.
    pub(crate) async fn read_password(&mut self, limit: usize) -> Answer {
        loop {
            if let Some(tag) = self.input.first().filter(|tag| **tag != b'p') {
                return Answer::Other(*tag);
            }
            match read_frame(&mut self.input, limit) {
                Ok(Some(frame)) => return Answer::Password(frame.body),
                Ok(None) if self.fill().await => {}
                Ok(None) => return Answer::Gone,
                Err(_) => return Answer::BadLength,
            }
        }
    }

    /// Resolves when the client has closed. What it sends meanwhile is kept, up to a bound; then nobody looks any more.
    pub(crate) async fn closed(&mut self) {
        while self.input.len() < INPUT_BUFFER {
            if !self.fill().await {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Whether so much waits that it has to be written before more comes.
    pub(crate) fn is_full(&self) -> bool {
        let most = if matches!(self.stream, Some(Stream::Memory(_))) { MEMORY_OUTPUT_BUFFER } else { OUTPUT_BUFFER };
        self.output.len() >= most
    }

    /// Writes what waits. False if the connection broke.
    pub(crate) async fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        while !self.output.is_empty() {
            let Ok(count @ 1..) = stream.write(&self.output).await else { return false };
            if let Some(tap) = &self.tap {
                tap.bytes(Direction::Sent, self.output.get(..count).unwrap_or_default());
            }
            self.output.advance(count);
        }
        stream.flush().await.is_ok()
    }

    /// An orderly end.
    pub(crate) async fn shut_down(&mut self) {
        if let Some(stream) = &mut self.stream {
            // The peer may be gone already, which is an end as well.
            let _ = stream.shutdown().await;
        }
        self.stream = None;
    }

    /// The end of a process that has no time for an orderly one.
    pub(crate) async fn abandon(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.abandon().await;
        }
    }

    /// A disorderly end.
    pub(crate) fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset();
        }
    }
}
