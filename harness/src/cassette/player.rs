//! A server that says what was recorded.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_mock::MemoryStream;
use backstop_mock::proxy::{Later, Opened, Upstream};
use backstop_protocol::frame::{Frame, MAX_FRAME, read_frame, read_startup};
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::wal::stream::StandbyMessage;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::answer::{Answer, refuse, say};
use super::copying::COMPRESSED;
use super::format::FromServer;
use super::matching::Question;
use super::tape::{Exchange, Step, Tape};

/// How much is written at a time, in bytes.
const PIECE: usize = 256 << 10;

/// How often a client that has the last word hears that the server is still there: a third of PostgreSQL's `wal_sender_timeout`.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// `feature_not_supported`: what is not on the cassette.
const NOT_RECORDED: &str = "0A000";

/// How many of the commands that were recorded an error names.
const NAMED: usize = 8;

/// Plays a cassette to whoever connects. Cheap to clone.
///
/// A connection is answered as the recorded one that resembles it most, a command as it was answered in the recording: what was asked
/// several times is answered in the order of the recording, and its last answer again and again.
#[derive(Clone)]
pub struct Player {
    shared: Arc<Shared>,
}

struct Shared {
    tape: Tape,
    played: Mutex<Played>,
}

/// How often each was played.
#[derive(Default)]
struct Played {
    connections: Vec<usize>,
    exchanges: Vec<usize>,
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").field("version", &self.shared.tape.version()).finish_non_exhaustive()
    }
}

impl Player {
    /// A player with this cassette in it.
    pub fn new(tape: Tape) -> Self {
        let played = Played { connections: vec![0; tape.connections.len()], exchanges: vec![0; tape.exchanges.len()] };
        Self { shared: Arc::new(Shared { tape, played: Mutex::new(played) }) }
    }

    /// The cassette.
    pub fn tape(&self) -> &Tape {
        &self.shared.tape
    }

    /// Opens a connection; its session runs on the current runtime, up to the end of the stream.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(&self) -> MemoryStream {
        let (ours, theirs) = MemoryStream::pair();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut session = Session { wire: Wire::new(ours), shared: &shared };
            // How it ended is for whoever listens.
            let _ = session.run().await;
            session.wire.close().await;
        });
        theirs
    }
}

impl Upstream for Player {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        let link = Self::connect(self);
        Box::pin(async { Ok(Opened { link: Box::new(link), encrypted: false }) })
    }
}

impl Shared {
    fn played(&self) -> std::sync::MutexGuard<'_, Played> {
        // Counters are whole after every statement.
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recorded connection that a client's resembles most: a walsender's if it asks for one, of the same name if there is one, and
    /// one that was not played yet.
    fn connection(&self, startup: &Startup) -> Option<usize> {
        let mut played = self.played();
        let kind = |value: Option<&str>| match value {
            None | Some("false" | "off" | "no" | "0") => 0,
            Some("database") => 2,
            Some(_) => 1,
        };
        let candidates = self.tape.connections.iter().enumerate();
        let candidates =
            candidates.filter(|(_, known)| kind(known.parameter("replication")) == kind(startup.get("replication")));
        let index = candidates
            .min_by_key(|(index, known)| {
                let named = known.parameter("application_name") == startup.get("application_name");
                (played.connections.get(*index).copied(), !named)
            })
            .map(|(index, _)| index)?;
        *played.connections.get_mut(index)? += 1;
        Some(index)
    }

    /// The answer to what is asked on a connection that is played as number `connection`.
    fn exchange(&self, question: &Question, connection: usize) -> Option<&Exchange> {
        let mut played = self.played();
        let known = self.tape.exchanges.iter().enumerate();
        let known = known.filter(|(_, exchange)| question.is(&exchange.question, exchange.version));
        let (index, exchange) = known.min_by_key(|(index, exchange)| {
            let times = played.exchanges.get(*index).copied().unwrap_or_default();
            // Of what was played already, the last one.
            let last = if times > 0 { usize::MAX - index } else { *index };
            (times.min(1), exchange.connection != connection, last)
        })?;
        *played.exchanges.get_mut(index)? += 1;
        Some(exchange)
    }

    /// What was asked when the cassette was recorded, as near to `question` as there is something.
    fn recorded(&self, question: &Question) -> String {
        let all = || self.tape.exchanges.iter().map(|exchange| &exchange.question);
        let near: Vec<&Question> = all().filter(|known| known.name() == question.name()).collect();
        let mut told: Vec<String> = Vec::new();
        for known in if near.is_empty() { all().collect() } else { near } {
            let text = format!("\"{}\"", known.told());
            if !told.contains(&text) {
                told.push(text);
            }
        }
        let more = told.len().saturating_sub(NAMED);
        told.truncate(NAMED);
        match (told.is_empty(), more) {
            (true, _) => "no command at all".to_owned(),
            (false, 0) => told.join(", "),
            (false, more) => format!("{} and {more} more", told.join(", ")),
        }
    }
}

/// A connection with its buffers.
struct Wire {
    stream: MemoryStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    fn new(stream: MemoryStream) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    async fn fill(&mut self) -> Option<()> {
        self.input.reserve(4096);
        matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)).then_some(())
    }

    async fn startup(&mut self) -> Option<Bytes> {
        loop {
            match read_startup(&mut self.input) {
                Ok(Some(packet)) => return Some(packet),
                Ok(None) => self.fill().await?,
                Err(_) => return None,
            }
        }
    }

    /// The next message. Can be cancelled without losing a byte.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            match read_frame(&mut self.input, MAX_FRAME) {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => self.fill().await?,
                Err(_) => return None,
            }
        }
    }

    async fn flush(&mut self) -> Option<()> {
        let written = self.stream.write_all(&self.output).await;
        self.output.clear();
        written.ok()
    }

    async fn flush_if_full(&mut self) -> Option<()> {
        if self.output.len() < PIECE { Some(()) } else { self.flush().await }
    }

    async fn close(&mut self) {
        // The client may be gone already, which is an end as well.
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }
}

struct Session<'a> {
    wire: Wire,
    shared: &'a Shared,
}

impl Session<'_> {
    /// Serves a client up to its end, or to where the recording ends; nothing, if the client or the recorded server went first.
    async fn run(&mut self) -> Option<()> {
        let startup = self.start_up().await?;
        let walsender = startup.get("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0"));
        let Some(connection) = self.shared.connection(&startup) else {
            let known = self.shared.tape.connections.iter();
            let known = known.map(|known| known.parameter("replication").unwrap_or("off").to_owned());
            let known: std::collections::BTreeSet<String> = known.collect();
            let known = known.into_iter().map(|value| format!("replication={value}")).collect::<Vec<_>>().join(", ");
            let asked = startup.get("replication").unwrap_or("off");
            let message = format!("the cassette holds no connection with replication={asked}, but {known}");
            refuse("FATAL", NOT_RECORDED, &message, None, &mut self.wire.output);
            return self.wire.flush().await;
        };
        self.greet(connection, &startup).await?;
        let mut refused = false;
        loop {
            let message = FrontendMessage::decode(self.wire.read().await?).ok()?;
            match message {
                FrontendMessage::Query(text) => {
                    let version = self.shared.tape.version();
                    self.answer(&Question::of(&text, version, walsender), connection).await?;
                }
                FrontendMessage::Terminate => return Some(()),
                FrontendMessage::Sync => {
                    refused = false;
                    say(&FromServer::Ready('I'), &mut self.wire.output);
                    self.wire.flush().await?;
                }
                FrontendMessage::CopyData(_) | FrontendMessage::CopyDone | FrontendMessage::CopyFail(_) => {}
                _ if refused => {}
                _ => {
                    refused = true;
                    let message = "the cassette answers no extended queries: the values of their rows were left out";
                    refuse("ERROR", NOT_RECORDED, message, None, &mut self.wire.output);
                    self.wire.flush().await?;
                }
            }
        }
    }

    /// Everything up to the StartupMessage.
    async fn start_up(&mut self) -> Option<Startup> {
        loop {
            match StartupPacket::decode(self.wire.startup().await?).ok()? {
                StartupPacket::Startup(startup) => return Some(startup),
                StartupPacket::SslRequest | StartupPacket::GssEncRequest => {
                    self.wire.output.extend_from_slice(b"N");
                    self.wire.flush().await?;
                }
                StartupPacket::Cancel { .. } => return None,
            }
        }
    }

    /// Says what was said to the recorded client when it came. Nothing, if it was turned away.
    async fn greet(&mut self, connection: usize, startup: &Startup) -> Option<()> {
        let recorded = self.shared.tape.connections.get(connection)?;
        let mut ready = false;
        for said in &recorded.greeting {
            match said {
                // Only its end is on the cassette.
                FromServer::Authentication(kind) if kind != "ok" => continue,
                // It says what the server made of another request.
                FromServer::Negotiate(..) if recorded.protocol != (startup.major, startup.minor) => continue,
                FromServer::Key(pid, _) if startup.minor == 0 => {
                    say(&FromServer::Key(*pid, 4), &mut self.wire.output);
                    continue;
                }
                said => ready |= matches!(said, FromServer::Ready(_)),
            }
            say(said, &mut self.wire.output);
        }
        self.wire.flush().await?;
        ready.then_some(())
    }

    async fn answer(&mut self, question: &Question, connection: usize) -> Option<()> {
        let shared = self.shared;
        let found = shared.exchange(question, connection);
        let compressed = found.and_then(|exchange| {
            exchange.parts.iter().filter_map(|part| part.opaque.as_ref()).find(|why| why.starts_with(COMPRESSED))
        });
        let problem = match (found, compressed) {
            (Some(exchange), None) => return self.play(exchange, question).await,
            (Some(_), Some(why)) => format!(
                "the cassette cannot answer \"{}\": the archives were {why}, so that what is in them was not recorded",
                question.told()
            ),
            (None, _) => format!(
                "the cassette holds no answer to \"{}\": it was recorded with {}",
                question.told(),
                shared.recorded(question)
            ),
        };
        refuse("ERROR", NOT_RECORDED, &problem, None, &mut self.wire.output);
        say(&FromServer::Ready('I'), &mut self.wire.output);
        self.wire.flush().await
    }

    /// Plays an exchange. Nothing, if the connection ends with it.
    async fn play(&mut self, exchange: &Exchange, question: &Question) -> Option<()> {
        let mut answer = Answer::new(&self.shared.tape.facts, exchange, question);
        for step in &exchange.steps {
            match step {
                Step::Say(said) => answer.say(said, &mut self.wire.output),
                Step::Begin(index) => answer.begin(*index),
                Step::Data(sizes) => {
                    for size in sizes.each() {
                        answer.data(size, &mut self.wire.output);
                        self.wire.flush_if_full().await?;
                    }
                }
                Step::Wal(start, sizes, end) => {
                    let mut position = *start;
                    for size in sizes.each() {
                        answer.wal(position, size, *end, &mut self.wire.output);
                        position = position.saturating_add(size.into());
                        self.wire.flush_if_full().await?;
                    }
                }
                Step::Hear => {
                    self.wire.flush().await?;
                    self.hear(&answer).await?;
                }
            }
        }
        self.wire.flush().await?;
        exchange.is_whole().then_some(())
    }

    /// Waits until the client ends its side of a COPY. Nothing, if it ends the connection.
    async fn hear(&mut self, answer: &Answer<'_>) -> Option<()> {
        loop {
            let heard = tokio::time::timeout(KEEPALIVE, self.wire.read()).await;
            let Ok(heard) = heard else {
                answer.keepalive(&mut self.wire.output);
                self.wire.flush().await?;
                continue;
            };
            match FrontendMessage::decode(heard?).ok()? {
                FrontendMessage::CopyDone | FrontendMessage::CopyFail(_) => return Some(()),
                FrontendMessage::Terminate => return None,
                FrontendMessage::CopyData(data) => {
                    let wants = StandbyMessage::decode(data);
                    if matches!(wants, Ok(StandbyMessage::StatusUpdate { reply_requested: true, .. })) {
                        answer.keepalive(&mut self.wire.output);
                        self.wire.flush().await?;
                    }
                }
                _ => {}
            }
        }
    }
}
