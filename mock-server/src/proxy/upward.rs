//! From the client to the server: everything goes on as it came, except what faults keep back.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstop_protocol::base_backup::options::{BaseBackupOptions, CompressionAlgorithm, ServerFacts};
use backstop_protocol::command::{self, Command, MAX_COMMAND, StartKind};
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::frame::{Frame, MAX_FRAME, peek_frame};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal::stream::StandbyMessage;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::downward::Ask;
use super::session::{Asked, Ending, Queue};
use super::shared::{Seat, Shared, lock};
use super::upstream::Link;
use crate::capture::Tap;
use crate::fault::{Moment, Role};
use crate::transcript::{Direction, Said};
use crate::transport::Stream;

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Statements and portals that are remembered by name: more than clients have at a time.
const MAX_NAMES: usize = 1000;

/// The way from a client to the server.
pub(super) struct Upward<'a> {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    pub(super) reader: &'a mut ReadHalf<Stream>,
    pub(super) tap: Option<Arc<Tap>>,
    pub(super) writer: WriteHalf<Box<dyn Link>>,
    /// What faults do at what the client says, on the other way.
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) queue: Queue,
    pub(super) gone: watch::Sender<bool>,
    pub(super) bound_twice: bool,
    pub(super) takes_commands: bool,
}

/// The texts behind the names of the extended query protocol.
#[derive(Default)]
struct Names {
    statements: BTreeMap<Bytes, Bytes>,
    portals: BTreeMap<Bytes, Bytes>,
}

impl Upward<'_> {
    /// Passes on what the client says, `input` first. Returns only if the connection has to end.
    pub(super) async fn run(mut self, mut input: BytesMut) -> Ending {
        let mut names = Names::default();
        let mut startup = true;
        loop {
            let (mut done, mut sent) = (0, 0);
            loop {
                let rest = input.get(done..).unwrap_or_default();
                let (tag, body) = match peek_frame(rest, MAX_FRAME) {
                    Ok(Some(frame)) if rest.len() >= 5 + frame.1 => frame,
                    Ok(_) => break,
                    // The server shall see it, and say what it says.
                    Err(_) => {
                        done = input.len();
                        break;
                    }
                };
                let frame = Frame { tag, body: Bytes::copy_from_slice(rest.get(5..5 + body).unwrap_or_default()) };
                startup &= tag == b'p';
                if startup && self.bound_twice && names_a_channel(&frame.body) {
                    return Ending::Fatal(cannot_bind());
                }
                let actions = self.heard(&frame, &mut names);
                if !actions.is_empty() {
                    if !self.forward(input.get(sent..done).unwrap_or_default()).await {
                        return self.wait().await;
                    }
                    sent = done;
                    let (reply, passes) = oneshot::channel();
                    let ask = Ask { actions, is_command: tag != b'd', reply };
                    if self.asks.send(ask).await.is_err() || !passes.await.unwrap_or(false) {
                        done += 5 + body;
                        sent = done;
                        continue;
                    }
                }
                if let Some(asked) = self.asked(&frame) {
                    lock(&self.queue).push_back(asked);
                }
                done += 5 + body;
            }
            if !self.forward(input.get(sent..done).unwrap_or_default()).await {
                return self.wait().await;
            }
            input.advance(done);
            input.reserve(BUFFER);
            let before = input.len();
            match self.reader.read_buf(&mut input).await {
                Ok(1..) => {
                    if let Some(tap) = &self.tap {
                        tap.bytes(Direction::Received, input.get(before..).unwrap_or_default());
                    }
                }
                Ok(0) => {
                    // The server may have last words, which a client that is only half gone still reads.
                    let _ = self.writer.shutdown().await;
                    return self.wait().await;
                }
                Err(_) => return Ending::Gone,
            }
        }
    }

    /// False if the server takes nothing any more.
    async fn forward(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// Nothing goes this way any more: the other way finds its own end.
    async fn wait(&mut self) -> Ending {
        self.gone.send_replace(true);
        std::future::pending().await
    }

    /// Takes note of a message, and asks the plan what happens at it.
    fn heard(&mut self, frame: &Frame, names: &mut Names) -> Vec<crate::fault::Action> {
        self.record(frame);
        let cut = |from: usize| -> Option<(Bytes, Bytes)> {
            let rest = frame.body.slice(from.min(frame.body.len())..);
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some((rest.slice(..end), rest.slice(end + 1..)))
        };
        match frame.tag {
            b'Q' => cut(0).map(|(text, _)| self.at_command(&text)).unwrap_or_default(),
            b'P' | b'B' => {
                let (name, rest) = cut(0).unwrap_or_default();
                let second = cut(frame.body.len() - rest.len()).unwrap_or_default().0;
                let (map, second) = match frame.tag {
                    b'P' => (&mut names.statements, second),
                    _ => (&mut names.portals, names.statements.get(&second).cloned().unwrap_or_default()),
                };
                if map.len() < MAX_NAMES || map.contains_key(&name) {
                    map.insert(name, second);
                }
                Vec::new()
            }
            b'E' => {
                let portal = cut(0).unwrap_or_default().0;
                let text = names.portals.get(&portal).cloned().unwrap_or_default();
                self.at_command(&text)
            }
            b'd' if matches!(StandbyMessage::decode(frame.body.clone()), Ok(StandbyMessage::StatusUpdate { .. })) => {
                self.shared.ask(Moment::StatusUpdate, &self.seat)
            }
            _ => Vec::new(),
        }
    }

    fn at_command(&self, text: &[u8]) -> Vec<crate::fault::Action> {
        let text = String::from_utf8_lossy(text);
        match self.parsed(&text) {
            Some(Command::BaseBackup(_)) => self.seat.identify(|identity| identity.role = Some(Role::Backup)),
            Some(Command::StartReplication(_)) => self.seat.identify(|identity| identity.role = Some(Role::Wal)),
            _ => {}
        }
        self.shared.ask(Moment::Command(&text), &self.seat)
    }

    /// The replication command that `text` is.
    fn parsed(&self, text: &str) -> Option<Command> {
        if !self.takes_commands || text.len() > MAX_COMMAND {
            return None;
        }
        Some(command::parse(text, self.version()).ok()?.command)
    }

    fn version(&self) -> ServerVersion {
        self.seat.version.get().copied().unwrap_or(ServerVersion::NEWEST)
    }

    /// What the server is asked, if it answers with ReadyForQuery.
    fn asked(&self, frame: &Frame) -> Option<Asked> {
        match frame.tag {
            b'Q' => {
                let text = frame.body.split(|byte| *byte == 0).next().unwrap_or_default();
                Some(match self.parsed(&String::from_utf8_lossy(text)) {
                    Some(Command::BaseBackup(options)) => {
                        let facts = ServerFacts {
                            flavour: Flavour::Stock,
                            wal_summaries: true,
                            manifest_uploaded: true,
                            writes_server_files: true,
                            gzip: true,
                            lz4: true,
                            zstd: true,
                        };
                        let options = BaseBackupOptions::from_command(&options, self.version(), &facts);
                        let plain = CompressionAlgorithm::None;
                        let compressed = options.is_ok_and(|options| options.compression.algorithm != plain);
                        Asked::Backup { compressed }
                    }
                    Some(Command::StartReplication(start)) => match start.kind {
                        StartKind::Physical { timeline } => Asked::Wal(timeline),
                        StartKind::Logical { .. } => Asked::Other,
                    },
                    _ => Asked::Other,
                })
            }
            b'S' | b'F' => Some(Asked::Other),
            _ => None,
        }
    }

    /// Notes in the transcript what the client said. Passwords are only counted.
    fn record(&self, frame: &Frame) {
        let message = FrontendMessage::decode(frame.clone()).ok();
        let (name, detail, bytes) =
            message.as_ref().map_or(("unknown message", String::new(), 0), FrontendMessage::told);
        let said = Said {
            direction: Direction::Received,
            message: name,
            detail: &detail,
            bytes: bytes as u64,
            folds: bytes > 0,
        };
        self.shared.record(self.seat.number, &said);
    }
}

/// Whether the first answer of SASL names a channel, or says that the server could have one: a `gs2-cbind-flag` other than `n`.
fn names_a_channel(body: &[u8]) -> bool {
    let Some(end) = body.iter().position(|byte| *byte == 0) else { return false };
    let (mechanism, rest) = body.split_at(end);
    mechanism.starts_with(b"SCRAM-") && matches!(rest.get(5), Some(b'y' | b'p'))
}

fn cannot_bind() -> Diagnostic {
    let code = SqlState::new("28000").unwrap_or(SqlState::INTERNAL_ERROR);
    let message = "channel binding cannot pass a proxy that speaks TLS to both sides";
    let hint = "Set channel_binding=disable on the client, or sslmode=disable in the proxy's --upstream.";
    Diagnostic::fatal(code, message).with_hint(hint)
}
