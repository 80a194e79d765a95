//! A connection to the server, as raw messages.

use std::time::Duration;

use backstop_mock::{MemoryStream, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(u8, Vec<u8>),
    /// The connection ended, perhaps inside a message.
    End,
    /// Nothing for so long.
    Silence,
}

pub(crate) struct Peer {
    stream: MemoryStream,
    input: Vec<u8>,
    back: Vec<(u8, Vec<u8>)>,
    /// From BackendKeyData, where [`Peer::start`] read it.
    pub(crate) key: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(server: &Server) -> Self {
        Self { stream: server.connect(), input: Vec::new(), back: Vec::new(), key: Vec::new() }
    }

    /// Connects, starts a walsender and reads up to ReadyForQuery.
    pub(crate) async fn start(server: &Server, user: &str, database: bool) -> Result<Self, String> {
        let mut peer = Self::connect(server);
        let replication = if database { "database" } else { "true" };
        let mut parameters = vec!["user", user, "replication", replication, "application_name", "capture"];
        if database {
            parameters.extend(["database", "postgres"]);
        }
        let mut packet = 196_608_u32.to_be_bytes().to_vec();
        for parameter in parameters {
            packet.extend_from_slice(parameter.as_bytes());
            packet.push(0);
        }
        packet.push(0);
        let length = u32::try_from(packet.len() + 4).unwrap_or(u32::MAX);
        peer.send(&[&length.to_be_bytes(), packet.as_slice()].concat()).await;
        loop {
            match peer.hear(Duration::from_secs(60)).await {
                Heard::Message(b'Z', _) => return Ok(peer),
                Heard::Message(b'E', body) => return Err(format!("start-up: {}", String::from_utf8_lossy(&body))),
                Heard::Message(b'K', body) => peer.key = body,
                Heard::Message(..) => {}
                other => return Err(format!("start-up: {other:?}")),
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that has closed is found out by what it says.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn send_message(&mut self, tag: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        self.send(&[&[tag], length.to_be_bytes().as_slice(), body].concat()).await;
    }

    /// Puts a message back, to be heard again.
    pub(crate) fn unhear(&mut self, tag: u8, body: Vec<u8>) {
        self.back.push((tag, body));
    }

    pub(crate) async fn hear(&mut self, patience: Duration) -> Heard {
        if let Some((tag, body)) = self.back.pop() {
            return Heard::Message(tag, body);
        }
        loop {
            if let Some(header) = self.input.first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if self.input.len() > length {
                    let body = self.input[5..=length].to_vec();
                    let tag = header[0];
                    self.input.drain(..=length);
                    return Heard::Message(tag, body);
                }
            }
            match timeout(patience, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Heard::Silence,
                Ok(Ok(0) | Err(_)) => return Heard::End,
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The single byte that answers SSLRequest.
    pub(crate) async fn byte(&mut self, patience: Duration) -> Option<u8> {
        if self.input.is_empty() {
            let _ = timeout(patience, self.stream.read_buf(&mut self.input)).await;
        }
        (!self.input.is_empty()).then(|| self.input.remove(0))
    }

    /// Bytes that came and make no message.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.input
    }
}
