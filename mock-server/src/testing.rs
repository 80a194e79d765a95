//! A client for tests: it frames messages and believes everything.

use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::{Config, TablespaceConfig};
use crate::fault::Fault;
use crate::server::Server;
use crate::transport::MemoryStream;

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// ReadyForQuery.
    Ready,
    /// The server closed, with so many bytes of an incomplete message left.
    Closed(usize),
    /// The connection was reset.
    Reset,
    /// The server fell silent for a day.
    Silent,
    /// What came is no message.
    Garbage,
}

/// One connection.
pub(crate) struct Client<S = MemoryStream> {
    pub(crate) stream: S,
    input: BytesMut,
}

/// A small cluster of a release, with faults.
pub(crate) fn config(version: ServerVersion, faults: Vec<Fault>) -> Config {
    let tablespaces = vec![TablespaceConfig { oid: 16400, location: "/srv/ts1".to_owned(), size: 64 << 10 }];
    Config { version, size: 512 << 10, tablespaces, faults, ..Config::default() }
}

pub(crate) fn server(version: ServerVersion, faults: Vec<Fault>) -> Server {
    Server::new(config(version, faults)).unwrap()
}

/// A fault as a scenario file holds it, in JSON.
pub(crate) fn fault(when: &str, action: &str) -> Fault {
    let fault: Fault = serde_json::from_str(&format!("{{\"when\": {when}, \"do\": {action}}}")).unwrap();
    fault.validate().unwrap();
    fault
}

impl Client {
    /// Connects without a word.
    pub(crate) fn connect(server: &Server) -> Self {
        Self { stream: server.connect(), input: BytesMut::new() }
    }

    /// Connects and starts up as `name`.
    pub(crate) async fn start(server: &Server, name: &str) -> Self {
        Self::start_as(server, "repl", name).await
    }

    /// The same with a role of its own.
    pub(crate) async fn start_as(server: &Server, user: &str, name: &str) -> Self {
        let mut client = Self::connect(server);
        client.start_up_as(user, name).await;
        let (_, end) = client.read().await;
        assert_eq!(end, End::Ready);
        client
    }
}

impl Client {
    /// Starts up as `name` on a connection that was opened elsewhere.
    pub(crate) async fn started(stream: MemoryStream, name: &str) -> Self {
        let mut client = Self::over(stream);
        client.start_up(name).await;
        let (_, end) = client.read().await;
        assert_eq!(end, End::Ready);
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Speaks over a connection that was opened elsewhere.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    pub(crate) async fn start_up(&mut self, name: &str) {
        self.start_up_as("repl", name).await;
    }

    async fn start_up_as(&mut self, user: &str, name: &str) {
        let parameters = [("user", user), ("replication", "true"), ("application_name", name)];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        self.packet(&StartupPacket::Startup(Startup { major: 3, minor: 0, parameters })).await;
    }

    pub(crate) async fn packet(&mut self, packet: &StartupPacket) {
        let mut out = BytesMut::new();
        packet.encode(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn send(&mut self, message: &FrontendMessage) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        // The server may have closed, which the next read tells.
        let _ = self.stream.write_all(&out).await;
    }

    /// Sends a query and reads the answer.
    pub(crate) async fn query(&mut self, text: &str) -> (Vec<BackendMessage>, End) {
        self.send(&FrontendMessage::Query(text.to_owned().into())).await;
        self.read().await
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<BackendMessage, End> {
        loop {
            match read_frame(&mut self.input, MAX_FRAME) {
                Ok(Some(frame)) => return BackendMessage::decode(frame).map_err(|_| End::Garbage),
                Ok(None) => {}
                Err(_) => return Err(End::Garbage),
            }
            let read = self.stream.read_buf(&mut self.input);
            match tokio::time::timeout(Duration::from_secs(86_400), read).await {
                Err(_) => return Err(End::Silent),
                Ok(Ok(0)) => return Err(End::Closed(self.input.len())),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(End::Reset),
            }
        }
    }

    /// Everything up to ReadyForQuery or the end of the connection.
    pub(crate) async fn read(&mut self) -> (Vec<BackendMessage>, End) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Ok(message) => {
                    let ready = matches!(message, BackendMessage::ReadyForQuery(_));
                    messages.push(message);
                    if ready {
                        return (messages, End::Ready);
                    }
                }
                Err(end) => return (messages, end),
            }
        }
    }

    /// Everything up to the first message that `wanted` accepts, with it.
    pub(crate) async fn read_until(&mut self, wanted: impl Fn(&BackendMessage) -> bool) -> Vec<BackendMessage> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await.unwrap();
            let found = wanted(&message);
            messages.push(message);
            if found {
                return messages;
            }
        }
    }
}

/// The type bytes of messages, in order, repetitions of `d` folded.
pub(crate) fn tags(messages: &[BackendMessage]) -> String {
    let mut tags = String::new();
    for message in messages {
        let tag = char::from(message.tag());
        if tag != 'd' || !tags.ends_with('d') {
            tags.push(tag);
        }
    }
    tags
}

/// ERROR, FATAL, WARNING and NOTICE messages as texts.
pub(crate) fn diagnostics(messages: &[BackendMessage]) -> Vec<String> {
    let text = |diagnostic: &Diagnostic| {
        format!("{} {}: {}", diagnostic.severity.as_str(), diagnostic.code, diagnostic.message)
    };
    let told = messages.iter().filter_map(|message| match message {
        BackendMessage::ErrorResponse(diagnostic) | BackendMessage::NoticeResponse(diagnostic) => {
            Some(text(diagnostic))
        }
        _ => None,
    });
    told.collect()
}

/// What BASE_BACKUP since 15 carried: archives by name, then `manifest`.
pub(crate) fn archives(messages: &[BackendMessage]) -> Vec<(String, Vec<u8>)> {
    let mut archives: Vec<(String, Vec<u8>)> = Vec::new();
    for message in messages {
        let BackendMessage::CopyData(payload) = message else { continue };
        match ArchiveMessage::decode(payload.clone()).unwrap() {
            ArchiveMessage::NewArchive { name, .. } => {
                archives.push((String::from_utf8(name.to_vec()).unwrap(), Vec::new()));
            }
            ArchiveMessage::Manifest => archives.push(("manifest".to_owned(), Vec::new())),
            ArchiveMessage::Data(data) => archives.last_mut().unwrap().1.extend_from_slice(&data),
            ArchiveMessage::Progress(_) => {}
        }
    }
    archives
}

/// The payloads of CopyData.
pub(crate) fn payloads(messages: &[BackendMessage]) -> Vec<Bytes> {
    let payload = |message: &BackendMessage| match message {
        BackendMessage::CopyData(payload) => Some(payload.clone()),
        _ => None,
    };
    messages.iter().filter_map(payload).collect()
}
