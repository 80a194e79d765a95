//! Frames in, bytes out.

use backstop_protocol::backend::MessageError;
use backstop_protocol::frame::{read_frame, read_startup};
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transport::Stream;

/// Bytes that wait to be written before the session waits for the client to take them.
pub(super) const OUTPUT_BUFFER: usize = 64 << 10;

/// The tags of everything that a client may send.
const TAGS: &[u8] = b"QpdcfXSHPBDECF";

/// What reading the next message came to.
#[derive(Debug)]
pub(super) enum Received {
    Message(FrontendMessage),
    /// A tag that no client sends.
    Unknown(u8),
    /// A known tag with a wrong body.
    Malformed(MessageError),
    /// The connection ended or broke, or a length cannot be right. PostgreSQL says nothing in these cases.
    Gone,
}

/// A connection with its buffers. Every method can be cancelled without losing a byte.
#[derive(Debug)]
pub(super) struct Wire {
    /// None after its end.
    stream: Option<Stream>,
    input: BytesMut,
    /// What was said and not yet written.
    pub(super) output: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: Some(stream), input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Reads more bytes; false at the end of the stream, or when it broke.
    async fn fill(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        self.input.reserve(4096);
        matches!(stream.read_buf(&mut self.input).await, Ok(1..))
    }

    /// The next untagged packet.
    pub(super) async fn read_startup(&mut self) -> Option<Bytes> {
        loop {
            match read_startup(&mut self.input) {
                Ok(Some(packet)) => return Some(packet),
                Ok(None) if self.fill().await => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next message, whose body has at most `limit` bytes.
    pub(super) async fn read(&mut self, limit: usize) -> Received {
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

    /// Resolves when the client has closed. What it sends meanwhile is kept, up to a bound; then nobody looks any more.
    pub(super) async fn closed(&mut self) {
        while self.input.len() < OUTPUT_BUFFER {
            if !self.fill().await {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Writes what waits. False if the connection broke.
    pub(super) async fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        while !self.output.is_empty() {
            if !matches!(stream.write_buf(&mut self.output).await, Ok(1..)) {
                return false;
            }
        }
        stream.flush().await.is_ok()
    }

    /// An orderly end.
    pub(super) async fn shut_down(&mut self) {
        if let Some(stream) = &mut self.stream {
            // The peer may be gone already, which is an end as well.
            let _ = stream.shutdown().await;
        }
        self.stream = None;
    }

    /// A disorderly end.
    pub(super) fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset();
        }
    }
}
