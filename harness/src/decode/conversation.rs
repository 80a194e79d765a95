//! One connection: bytes of both directions in, lines out.

use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use backstop_protocol::extended;
use backstop_protocol::frame::{Frame, MAX_FRAME, read_frame, read_startup};
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use bytes::{Buf, Bytes, BytesMut};

use super::Line;
use super::copy::Copying;

/// Who sent bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// The first byte of a TLS record that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// No error that a server reports before it knows the protocol is longer.
const MAX_OLD_ERROR: usize = 30_000;

/// What the next bytes of a direction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The beginning of the connection: packets without a type from a client, answers of one byte from a server.
    Opening,
    /// Messages.
    Messages,
    /// Nobody can read them.
    Encrypted,
    /// Not understood, or something before them is missing.
    Lost,
}

#[derive(Debug)]
struct Side {
    from: From,
    state: State,
    buffer: BytesMut,
    /// Of the buffer's first byte.
    offset: u64,
    /// Bytes that were passed over in this state.
    passed: u64,
}

impl Side {
    fn new(from: From) -> Self {
        Self { from, state: State::Opening, buffer: BytesMut::new(), offset: 0, passed: 0 }
    }

    /// Gives up on what follows; the remark says so.
    fn lose(&mut self, at: Option<Duration>, state: State, why: String) -> Line {
        self.state = state;
        Line::remark(at, Some(self.from), self.offset, why)
    }
}

/// A connection between a client and a server. Each direction can be known alone.
#[derive(Debug)]
pub struct Conversation {
    client: Side,
    server: Side,
    /// Requests for encryption that the server has not answered yet.
    requests: usize,
    copying: Copying,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            client: Side::new(From::Client),
            server: Side::new(From::Server),
            requests: 0,
            copying: Copying::default(),
        }
    }
}

impl Conversation {
    /// The next bytes of a direction. The lines of all messages that are complete now.
    pub fn push(&mut self, at: Option<Duration>, from: From, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let side = self.side(from);
        if matches!(side.state, State::Encrypted | State::Lost) {
            side.pass(bytes.len() as u64);
            return lines;
        }
        side.buffer.extend_from_slice(bytes);
        while let Some(line) = self.step(at, from) {
            lines.push(line);
        }
        lines
    }

    /// So many bytes of a direction were not captured: what follows cannot be framed.
    pub fn missing(&mut self, at: Option<Duration>, from: From, bytes: u64) -> Vec<Line> {
        let side = self.side(from);
        side.drain();
        let known = side.state == State::Lost;
        let line = side.lose(at, State::Lost, format!("{bytes} bytes are missing: nothing is understood from here on"));
        side.pass(bytes);
        if known { Vec::new() } else { vec![line] }
    }

    /// Whole messages of the server were left out here.
    pub fn left_out(&mut self, what: &str) -> Vec<Line> {
        self.copying.forget();
        vec![Line::remark(None, Some(From::Server), self.server.offset, what.to_owned())]
    }

    /// The end of the connection, or of what is known of it.
    pub fn finish(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for from in [From::Client, From::Server] {
            let side = self.side(from);
            let who = if from == From::Client { "client" } else { "server" };
            let text = match side.state {
                State::Encrypted if side.passed > 0 => format!("{} encrypted bytes of the {who}", side.passed),
                State::Lost if side.passed > 0 => format!("{} bytes of the {who} were passed over", side.passed),
                _ if !side.buffer.is_empty() => {
                    format!("the {who}'s bytes end inside a message, {} bytes after its beginning", side.buffer.len())
                }
                _ => continue,
            };
            lines.push(Line::remark(None, Some(from), side.offset, text));
        }
        lines
    }

    fn side(&mut self, from: From) -> &mut Side {
        match from {
            From::Client => &mut self.client,
            From::Server => &mut self.server,
        }
    }

    /// The next message or remark of a direction, if it is complete.
    fn step(&mut self, at: Option<Duration>, from: From) -> Option<Line> {
        let first = *self.side(from).buffer.first()?;
        match (self.side(from).state, from) {
            (State::Opening, _) if first == TLS_HANDSHAKE => {
                let text = "TLS begins: what follows is encrypted";
                let line = self.side(from).lose(at, State::Encrypted, text.to_owned());
                self.side(from).drain();
                Some(line)
            }
            (State::Opening, From::Client) if first == 0 => self.packet(at),
            (State::Opening, From::Server) if self.requests > 0 && b"SNG".contains(&first) => {
                self.requests -= 1;
                Some(self.answer(at, first))
            }
            (State::Opening, From::Server) => self.first_answer(at, first),
            (State::Opening, From::Client) => {
                self.client.state = State::Messages;
                self.message(at, from)
            }
            (State::Messages, _) => self.message(at, from),
            (State::Encrypted | State::Lost, _) => {
                self.side(from).drain();
                None
            }
        }
    }

    /// A packet without a type.
    fn packet(&mut self, at: Option<Duration>) -> Option<Line> {
        let before = self.client.buffer.len();
        let packet = match read_startup(&mut self.client.buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return None,
            Err(error) => return Some(self.lose(at, From::Client, &error.to_string())),
        };
        let length = (before - self.client.buffer.len()) as u64;
        let (name, detail) = match StartupPacket::decode(packet) {
            Ok(StartupPacket::Startup(startup)) => {
                self.client.state = State::Messages;
                let parameters = startup.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
                let parameters: String = parameters.collect();
                ("StartupMessage", format!("{}.{}{parameters}", startup.major, startup.minor))
            }
            Ok(StartupPacket::SslRequest) => {
                self.requests += 1;
                ("SSLRequest", String::new())
            }
            Ok(StartupPacket::GssEncRequest) => {
                self.requests += 1;
                ("GSSENCRequest", String::new())
            }
            Ok(StartupPacket::Cancel { pid, .. }) => ("CancelRequest", format!("pid {pid}")),
            Err(error) => ("StartupMessage", error.to_string()),
        };
        Some(self.line(at, From::Client, None, length, name, detail))
    }

    /// A server's first byte, when nobody is known to have asked for encryption.
    fn first_answer(&mut self, at: Option<Duration>, first: u8) -> Option<Line> {
        if !b"SNGE".contains(&first) {
            self.server.state = State::Messages;
            return self.message(at, From::Server);
        }
        // A message that begins so has a length of two zero bytes and two more; what follows an answer of one byte does not.
        let next = self.server.buffer.get(1..3)?;
        if next == [0, 0] {
            self.server.state = State::Messages;
            return self.message(at, From::Server);
        }
        if first != b'E' {
            return Some(self.answer(at, first));
        }
        // Protocol 2, in which old servers refuse what they do not understand: a text and a zero byte.
        let end = self.server.buffer.iter().take(MAX_OLD_ERROR).position(|byte| *byte == 0);
        let Some(end) = end else {
            let long = self.server.buffer.len() > MAX_OLD_ERROR;
            return long.then(|| self.lose(at, From::Server, "neither a message nor an error of protocol 2"));
        };
        let text = self.server.buffer.split_to(end + 1);
        let text = String::from_utf8_lossy(text.get(1..end).unwrap_or_default()).trim_end().to_owned();
        Some(self.line(at, From::Server, Some(b'E'), end as u64 + 1, "ErrorResponse", format!("of protocol 2: {text}")))
    }

    /// The answer of one byte to a request for encryption.
    fn answer(&mut self, at: Option<Duration>, byte: u8) -> Line {
        self.server.buffer.advance(1);
        let detail = match byte {
            b'S' => "TLS may begin",
            b'G' => "GSSAPI encryption may begin",
            _ => "no encryption",
        };
        let line = self.line(at, From::Server, Some(byte), 1, "answer", detail.to_owned());
        if byte == b'G' {
            self.server.state = State::Encrypted;
            self.client.state = State::Encrypted;
        }
        line
    }

    /// A message with a type.
    fn message(&mut self, at: Option<Duration>, from: From) -> Option<Line> {
        let side = self.side(from);
        let tag = *side.buffer.first()?;
        if name_of(from, tag).is_none() {
            let who = if from == From::Client { "client" } else { "server" };
            return Some(self.lose(at, from, &format!("\"{}\" begins no message of a {who}", tag.escape_ascii())));
        }
        let before = side.buffer.len();
        let frame = match read_frame(&mut side.buffer, MAX_FRAME) {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(error) => return Some(self.lose(at, from, &error.to_string())),
        };
        let length = (before - self.side(from).buffer.len()) as u64;
        let name = name_of(from, tag).unwrap_or_default();
        let (detail, inside) = match from {
            From::Client => self.said_by_client(frame),
            From::Server => self.said_by_server(frame),
        };
        let mut line = self.line(at, from, Some(tag), length, name, detail);
        line.inside = inside;
        Some(line)
    }

    fn said_by_client(&mut self, frame: Frame) -> (String, Vec<String>) {
        let detail = match FrontendMessage::decode(frame) {
            Err(error) => error.to_string(),
            Ok(FrontendMessage::Query(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.copying.command();
                text
            }
            Ok(FrontendMessage::Password(data)) => format!("{} bytes, not shown", data.len()),
            Ok(FrontendMessage::CopyData(data)) => self.copying.client_data(data),
            Ok(FrontendMessage::CopyFail(reason)) => reason,
            Ok(FrontendMessage::Parse(body)) => {
                extended::Parse::decode(body).map(|parse| parse.query).unwrap_or_default()
            }
            Ok(
                FrontendMessage::CopyDone | FrontendMessage::Terminate | FrontendMessage::Sync | FrontendMessage::Flush,
            ) => String::new(),
            Ok(other) => self::extended(&other),
        };
        (detail, Vec::new())
    }

    fn said_by_server(&mut self, frame: Frame) -> (String, Vec<String>) {
        let tag = frame.tag;
        let message = match BackendMessage::decode(frame) {
            Ok(message) => message,
            // What replication never sends has a name, and nothing more is said of it.
            Err(error) if error.message == "backend" => return Default::default(),
            Err(error) => return (error.to_string(), Vec::new()),
        };
        if tag == b'R' {
            self.client.state = if self.client.state == State::Opening { State::Messages } else { self.client.state };
        }
        match &message {
            BackendMessage::ErrorResponse(diagnostic) | BackendMessage::NoticeResponse(diagnostic) => {
                self.copying.hear(&message);
                (diagnostic.summary(), more(diagnostic))
            }
            BackendMessage::CopyData(data) => self.copying.server_data(data.clone()),
            BackendMessage::DataRow(values) => (self.copying.row(values), Vec::new()),
            _ => {
                let remarks = self.copying.hear(&message);
                (message.summary(), remarks)
            }
        }
    }

    /// The line of what was just taken off the front of a buffer.
    fn line(
        &mut self,
        at: Option<Duration>,
        from: From,
        tag: Option<u8>,
        length: u64,
        name: &str,
        detail: String,
    ) -> Line {
        let side = self.side(from);
        let offset = side.offset;
        side.offset += length;
        Line { at, from: Some(from), offset, tag, length, name: name.to_owned(), detail, inside: Vec::new() }
    }

    fn lose(&mut self, at: Option<Duration>, from: From, why: &str) -> Line {
        let side = self.side(from);
        let line = side.lose(at, State::Lost, format!("not understood from byte {} on: {why}", side.offset));
        side.drain();
        line
    }
}

impl Side {
    fn pass(&mut self, bytes: u64) {
        self.passed += bytes;
    }

    /// Passes over what waits.
    fn drain(&mut self) {
        self.passed += self.buffer.len() as u64;
        self.buffer.clear();
    }
}

/// The fields of a diagnostic that have a line of their own.
fn more(diagnostic: &Diagnostic) -> Vec<String> {
    let fields = [("DETAIL", &diagnostic.detail), ("HINT", &diagnostic.hint)];
    fields.iter().filter_map(|(name, text)| Some(format!("{name}: {}", text.as_ref()?))).collect()
}

/// What the other messages of the extended query protocol are about.
fn extended(message: &FrontendMessage) -> String {
    let named = |name: &'static str, body: &Bytes| match extended::Named::decode(name, body.clone()) {
        Ok(extended::Named::Statement(name)) => format!("statement \"{name}\""),
        Ok(extended::Named::Portal(name)) => format!("portal \"{name}\""),
        Ok(extended::Named::Unknown(kind)) => format!("of kind {kind}"),
        Err(error) => error.to_string(),
    };
    match message {
        FrontendMessage::Bind(body) => match extended::Bind::decode(body.clone()) {
            Ok(bind) => format!("statement \"{}\", {} parameters", bind.statement, bind.parameters.len()),
            Err(error) => error.to_string(),
        },
        FrontendMessage::Describe(body) => named("Describe", body),
        FrontendMessage::Close(body) => named("Close", body),
        FrontendMessage::Execute(body) => match extended::Execute::decode(body.clone()) {
            Ok(execute) => format!("portal \"{}\"", execute.portal),
            Err(error) => error.to_string(),
        },
        _ => String::new(),
    }
}

/// The message's name in PostgreSQL's protocol documentation. None for what is no type.
fn name_of(from: From, tag: u8) -> Option<&'static str> {
    Some(match (from, tag) {
        (From::Client, b'Q') => "Query",
        (From::Client, b'p') => "Password",
        (From::Client, b'f') => "CopyFail",
        (From::Client, b'X') => "Terminate",
        (From::Client, b'S') => "Sync",
        (From::Client, b'H') => "Flush",
        (From::Client, b'P') => "Parse",
        (From::Client, b'B') => "Bind",
        (From::Client, b'D') => "Describe",
        (From::Client, b'E') => "Execute",
        (From::Client, b'C') => "Close",
        (From::Client, b'F') => "FunctionCall",
        (_, b'd') => "CopyData",
        (_, b'c') => "CopyDone",
        (From::Server, b'R') => "Authentication",
        (From::Server, b'S') => "ParameterStatus",
        (From::Server, b'K') => "BackendKeyData",
        (From::Server, b'Z') => "ReadyForQuery",
        (From::Server, b'T') => "RowDescription",
        (From::Server, b'D') => "DataRow",
        (From::Server, b'C') => "CommandComplete",
        (From::Server, b'I') => "EmptyQueryResponse",
        (From::Server, b'E') => "ErrorResponse",
        (From::Server, b'N') => "NoticeResponse",
        (From::Server, b'1') => "ParseComplete",
        (From::Server, b'2') => "BindComplete",
        (From::Server, b'3') => "CloseComplete",
        (From::Server, b'n') => "NoData",
        (From::Server, b't') => "ParameterDescription",
        (From::Server, b's') => "PortalSuspended",
        (From::Server, b'G') => "CopyInResponse",
        (From::Server, b'H') => "CopyOutResponse",
        (From::Server, b'W') => "CopyBothResponse",
        (From::Server, b'v') => "NegotiateProtocolVersion",
        (From::Server, b'A') => "NotificationResponse",
        (From::Server, b'V') => "FunctionCallResponse",
        _ => return None,
    })
}
