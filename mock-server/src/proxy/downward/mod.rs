//! From the server to the client: bytes go on as they come, and where a fault strikes, otherwise.
//!
//! The server's bytes are read into one buffer. A message in which nothing happens stays there, and a run of such messages is written
//! to the client as it lies; only headers are looked at. A message that a fault is about is taken out, and what replaces it goes
//! through a second buffer.
//!
//! | what | see |
//! |---|---|
//! | messages without data, result sets | `answer` |
//! | archives and the manifest | `archive`, `data`, `tar_cursor` |
//! | streamed WAL | `wal` |
//! | doing what the plan says | `perform` |
//! | the client's side | `outlet` |

mod answer;
mod archive;
mod data;
mod outlet;
mod perform;
mod tar_cursor;
mod wal;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_protocol::backend::{BackendMessage, Diagnostic, Severity, SqlState};
use backstop_protocol::frame::{MAX_FRAME, peek_frame};
use backstop_protocol::version::ServerVersion;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{mpsc, oneshot};

use self::archive::Backup;
pub(super) use self::outlet::Outlet;
use self::perform::Edits;
use self::wal::Streaming;
use super::greeting;
use super::session::{Asked, Ending, Queue, Stop};
use super::shared::{Seat, Shared, lock};
use super::upstream::Link;
use crate::fault::{Action, Moment};
use crate::session::changes::Changes;
use crate::session::throttle::Throttle;
use crate::transcript::{Direction, Said};

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Bytes that wait to be written before the server has to wait for the client.
const OUTPUT_BUFFER: usize = 64 << 10;

/// What faults do at something that the client said.
pub(super) struct Ask {
    pub(super) actions: Vec<Action>,
    /// A command, and not a status update.
    pub(super) is_command: bool,
    /// Whether it goes on to the server.
    pub(super) reply: oneshot::Sender<bool>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on as it is.
    Pass,
    /// What replaces it is in the output.
    Replaced,
}

/// What goes on as it is and was not written yet. Whatever else is said comes behind it.
#[derive(Debug, Default)]
struct Run<'a> {
    /// Whole messages.
    bytes: &'a [u8],
    settled: bool,
    /// The message that is being looked through: what stands before its data, and that.
    head: &'a [u8],
    data: &'a [u8],
    /// What of its data goes on as it is and was not written.
    from: usize,
    at: usize,
    /// Whether it can go on as it came.
    whole: bool,
}

impl<'a> Run<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// A message is going to be looked through.
    fn look(&mut self, head: &'a [u8], data: &'a [u8]) {
        (self.head, self.data, self.from, self.at, self.whole) = (head, data, 0, 0, true);
    }

    /// Data that does not go on as it is: everything before it has been settled.
    fn leave_out(&mut self, bytes: usize) {
        self.whole = false;
        self.at += bytes;
        self.from = self.at;
    }
}

/// What the client is not told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hush {
    /// The rest of an answer, up to ReadyForQuery.
    Answer,
    /// Everything but why the session ends.
    Session,
}

/// The way from the server to the client.
pub(super) struct Downward {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    pub(super) outlet: Outlet,
    queue: Queue,
    /// Whether start-up is over.
    ready: bool,
    /// The server offers to bind a channel that ends here.
    hides_binding: bool,
    hush: Option<Hush>,
    changes: Changes,
    pace: Option<Throttle>,
    /// The most bytes of data in one message.
    piece: Option<usize>,
    /// What changes places with the message after it.
    held: BytesMut,
    /// A result set on its way that a fault is about.
    unit: Option<answer::Unit>,
    backup: Backup,
    streaming: Streaming,
}

impl Downward {
    pub(super) fn new(shared: Arc<Shared>, seat: Arc<Seat>, outlet: Outlet) -> Self {
        Self {
            shared,
            seat,
            outlet,
            queue: Queue::default(),
            ready: false,
            hides_binding: false,
            hush: None,
            changes: Changes::default(),
            pace: None,
            piece: None,
            held: BytesMut::new(),
            unit: None,
            backup: Backup::default(),
            streaming: Streaming::default(),
        }
    }

    /// Start-up: what is asked comes through `queue` from now on.
    pub(super) fn begin(&mut self, queue: Queue, hides_binding: bool) {
        self.queue = queue;
        self.hides_binding = hides_binding;
    }

    /// The release that the server says it is.
    fn version(&self) -> ServerVersion {
        self.seat.version.get().copied().unwrap_or(ServerVersion::NEWEST)
    }

    /// What the server is answering.
    fn asked(&self) -> Asked {
        lock(&self.queue).front().cloned().unwrap_or_default()
    }

    /// Passes on what the server says.
    pub(super) async fn run(&mut self, mut server: ReadHalf<Box<dyn Link>>, mut asks: mpsc::Receiver<Ask>) -> Ending {
        let mut input = BytesMut::with_capacity(2 * BUFFER);
        loop {
            if let Err(ending) = self.pass(&mut input).await {
                return ending;
            }
            if input.capacity() - input.len() < BUFFER / 2 {
                input.reserve(BUFFER);
            }
            tokio::select! {
                biased;
                Some(ask) = asks.recv() => {
                    if let Err(ending) = self.answer_for(ask).await {
                        return ending;
                    }
                }
                read = server.read_buf(&mut input) => match read {
                    Ok(1..) => {}
                    Ok(0) if input.is_empty() => return Ending::Closed,
                    Ok(0) => {
                        let cut = format!("the server closed in the middle of a message, after {} bytes of it", input.len());
                        self.shared.note_as(self.seat.number, "upstream", &cut);
                        self.outlet.output.extend_from_slice(&input);
                        return Ending::Closed;
                    }
                    Err(_) => return Ending::Broken,
                }
            }
        }
    }

    /// Takes every whole message off the front of `input`.
    async fn pass(&mut self, input: &mut BytesMut) -> Result<(), Ending> {
        let (mut done, mut written) = (0, 0);
        loop {
            let rest = input.get(done..).unwrap_or_default();
            let length = match peek_frame(rest, MAX_FRAME) {
                Ok(Some((_, body))) if rest.len() >= 5 + body => 5 + body,
                Ok(Some((_, body))) => {
                    input.reserve((5 + body).min(BUFFER));
                    break;
                }
                Ok(None) => break,
                Err(error) => {
                    self.outlet.output.extend_from_slice(input.get(written..done).unwrap_or_default());
                    return Err(Ending::Fatal(no_protocol(&error.to_string())));
                }
            };
            let frame = rest.get(..length).unwrap_or_default();
            let mut run = Run::of(input.get(written..done).unwrap_or_default());
            let fate = self.frame(frame, &mut run).await?;
            if run.settled {
                written = done;
            }
            done += length;
            if fate == Fate::Replaced {
                written = done;
            }
            if self.outlet.output.len() >= OUTPUT_BUFFER {
                self.outlet.flush().await?;
            }
        }
        self.outlet.flush().await?;
        self.outlet.write(input.get(written..done).unwrap_or_default()).await?;
        input.advance(done);
        Ok(())
    }

    /// One message of the server.
    async fn frame<'a>(&mut self, frame: &'a [u8], run: &mut Run<'a>) -> Result<Fate, Ending> {
        match self.hush {
            None => {}
            Some(Hush::Answer) if frame.first() == Some(&b'Z') => {
                self.hush = None;
                self.end_of_answer();
                self.record_frame(frame);
                return Ok(self.emit_quietly(frame, run));
            }
            Some(Hush::Session) if matches!(frame.first(), Some(b'E' | b'N')) => {
                self.record_frame(frame);
                return Ok(self.emit_quietly(frame, run));
            }
            Some(_) => {
                self.settle(run);
                return Ok(Fate::Replaced);
            }
        }
        let mut edits = Edits::default();
        if self.ready {
            let number = self.seat.messages.fetch_add(1, Ordering::SeqCst) + 1;
            let counted = self.shared.plan(|plan| plan.counts_messages() && !plan.is_spent());
            if counted {
                match self.at_in(Moment::Message(number), run).await {
                    Ok(found) => edits = found,
                    Err(stop) => return self.stopped(stop, frame, run).await,
                }
            }
        }
        let passed = match frame.first() {
            Some(b'd') => self.copy_data(frame, edits, run).await,
            _ => self.message(frame, edits, run).await,
        };
        match passed {
            Ok(fate) => Ok(fate),
            Err(stop) => self.stopped(stop, frame, run).await,
        }
    }

    /// A fault says ERROR in place of `frame` and of what follows it, or ends the connection.
    async fn stopped(&mut self, stop: Stop, frame: &[u8], run: &mut Run<'_>) -> Result<Fate, Ending> {
        self.settle(run);
        let error = match stop {
            Stop::End(ending) => return Err(ending),
            Stop::Hushed => return Ok(Fate::Replaced),
            Stop::Error(error) => error,
        };
        if !self.ready {
            return Err(Ending::Fatal(error));
        }
        self.say(&BackendMessage::ErrorResponse(error));
        if frame.first() == Some(&b'Z') {
            self.end_of_answer();
            self.record_frame(frame);
            return Ok(self.emit_quietly(frame, run));
        }
        // The server is told, too: what it still sends is for nobody.
        self.hush = Some(Hush::Answer);
        self.outlet.flush().await?;
        if let Some((pid, key)) = self.seat.key.get() {
            greeting::cancel(self, *pid, key).await;
        }
        Ok(Fate::Replaced)
    }

    /// Faults at something that the client said.
    async fn answer_for(&mut self, ask: Ask) -> Result<(), Ending> {
        let passes = match self.perform(ask.actions, false).await {
            Ok(edits) => edits.copies() > 0,
            Err(Stop::Hushed) => false,
            Err(Stop::End(ending)) => return Err(ending),
            Err(Stop::Error(error)) => {
                self.say(&BackendMessage::ErrorResponse(error));
                if ask.is_command {
                    self.say(&BackendMessage::ReadyForQuery(backstop_protocol::backend::TransactionStatus::Idle));
                }
                false
            }
        };
        self.outlet.flush().await?;
        // An error: nobody waits for it, because the connection ends.
        let _ = ask.reply.send(passes);
        Ok(())
    }

    /// Asks the plan at a point where no run of messages waits.
    pub(super) async fn at(&mut self, moment: Moment<'_>) -> Result<Edits, Stop> {
        let actions = self.shared.ask(moment, &self.seat);
        self.perform(actions, false).await
    }

    /// Asks the plan, and does what it says behind `run`.
    async fn at_in(&mut self, moment: Moment<'_>, run: &mut Run<'_>) -> Result<Edits, Stop> {
        let actions = self.shared.ask(moment, &self.seat);
        if actions.is_empty() {
            return Ok(Edits::default());
        }
        self.settle(run);
        self.perform(actions, false).await
    }

    /// Puts `run` into the output, so that something can be said behind it.
    fn settle(&mut self, run: &mut Run<'_>) {
        if !run.settled {
            self.outlet.output.extend_from_slice(run.bytes);
            run.settled = true;
        }
        run.whole = false;
        if let Some(piece) = run.data.get(run.from..run.at).filter(|piece| !piece.is_empty()) {
            self.put(run.head, piece);
            run.from = run.at;
        }
    }

    /// A message goes on, whatever faults want.
    fn emit_quietly(&mut self, frame: &[u8], run: &mut Run<'_>) -> Fate {
        self.settle(run);
        self.outlet.output.extend_from_slice(frame);
        Fate::Replaced
    }

    /// A message goes on as often as `edits` say.
    async fn emit(&mut self, frame: &[u8], edits: &Edits, run: &mut Run<'_>) -> Result<Fate, Stop> {
        if edits.copies() == 1 && !edits.swapped && self.held.is_empty() && self.pace.is_none() {
            return Ok(Fate::Pass);
        }
        self.settle(run);
        for _ in 0..edits.copies() {
            self.put_frame(frame, edits.swapped).await?;
        }
        Ok(Fate::Replaced)
    }

    /// Puts a whole message into the output, or aside if it is to change places.
    async fn put_frame(&mut self, frame: &[u8], aside: bool) -> Result<(), Stop> {
        if aside {
            self.held.extend_from_slice(frame);
            return Ok(());
        }
        self.outlet.output.extend_from_slice(frame);
        let after = self.held.split();
        self.outlet.output.extend_from_slice(&after);
        self.keep_pace(frame.len()).await
    }

    /// After so many bytes.
    async fn keep_pace(&mut self, bytes: usize) -> Result<(), Stop> {
        if let Some(until) = self.pace.as_mut().and_then(|pace| pace.sent(bytes)) {
            self.pause(Some(until)).await?;
        } else if self.outlet.output.len() >= OUTPUT_BUFFER {
            self.outlet.flush().await?;
        }
        Ok(())
    }

    /// The server's answer is complete.
    fn end_of_answer(&mut self) {
        if self.ready {
            lock(&self.queue).pop_front();
        }
        self.ready = true;
        self.unit = None;
        self.backup = Backup::default();
        self.streaming = Streaming::default();
    }

    /// Says something that the server did not say.
    fn say(&mut self, message: &BackendMessage) {
        self.record(message.name(), &message.summary(), 0, false);
        message.encode_as(self.version(), &mut self.outlet.output);
    }

    /// The last word before the end.
    pub(super) fn last_words(&mut self, error: Diagnostic) {
        let error = Diagnostic { severity: Severity::Fatal, ..error };
        self.say(&BackendMessage::ErrorResponse(error));
    }

    /// Adds a message to the transcript.
    fn record(&self, message: &'static str, detail: &str, bytes: usize, folds: bool) {
        let said = Said { direction: Direction::Sent, message, detail, bytes: bytes as u64, folds };
        self.shared.record(self.seat.number, &said);
    }
}

/// What a client hears whose server does not speak PostgreSQL's protocol.
fn no_protocol(problem: &str) -> Diagnostic {
    Diagnostic::fatal(
        SqlState::PROTOCOL_VIOLATION,
        format!("the proxy's upstream does not speak PostgreSQL's protocol: {problem}"),
    )
}
