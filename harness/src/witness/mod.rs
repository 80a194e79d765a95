//! A witness of what clients and a server say to each other, for servers that tell nothing of themselves.
//!
//! The mock knows what it did. Of any other server the harness knows what passed on the wire: a [`Witness`] takes it down like a
//! [capture](backstop_mock::capture::Capture) and understands it as it passes. What it tells in the end is what a
//! [`Record`](crate::record::Record) holds: the transcript, the backups, what each session was sent, the errors. Memory does not
//! grow with what is copied.

pub(crate) mod framing;
mod members;
pub mod said;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use backstop_mock::capture::Capture;
use backstop_mock::transcript::{Direction, Event};
use backstop_mock::{BackupOutcome, BackupRecord, SessionCounts};
use backstop_protocol::version::ServerVersion;

use self::framing::Framing;
use self::said::Said;
use self::session::Session;

/// The most events that are kept. What is said after that is not taken down.
const MAX_EVENTS: usize = 1 << 20;

/// Listens to all connections of one server.
#[derive(Debug)]
pub struct Witness {
    version: ServerVersion,
    sessions: BTreeMap<u32, (Framing, Session)>,
    book: Book,
}

/// What all sessions write into.
#[derive(Debug, Default)]
struct Book {
    events: Vec<Event>,
    backups: Vec<BackupRecord>,
    commands: Vec<String>,
    errors: Vec<(u32, String)>,
}

/// What was heard.
#[derive(Debug, Default)]
pub struct Testimony {
    /// What was said, in order, in the form of the mock's transcripts.
    pub events: Vec<Event>,
    /// In the order in which they began.
    pub backups: Vec<BackupRecord>,
    /// Every command of every session.
    pub commands: Vec<String>,
    /// Connection and SQLSTATE of every error.
    pub errors: Vec<(u32, String)>,
    /// What each session was sent, in the order of the connections.
    pub counts: Vec<SessionCounts>,
    /// What each session said and was told, message by message.
    pub said: BTreeMap<u32, Vec<Said>>,
}

impl Witness {
    /// Listens to a server of `version`.
    pub fn new(version: ServerVersion) -> Self {
        Self { version, sessions: BTreeMap::new(), book: Book::default() }
    }

    /// What was heard. Nothing is left to tell after that.
    pub fn testify(&mut self) -> Testimony {
        let Book { events, backups, commands, errors } = std::mem::take(&mut self.book);
        let (mut counts, mut said) = (Vec::new(), BTreeMap::new());
        for (number, (_, session)) in std::mem::take(&mut self.sessions) {
            counts.push(session.counts(number));
            said.insert(number, session.into_said());
        }
        Testimony { events, backups, commands, errors, counts, said }
    }
}

impl Capture for Witness {
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        let Self { version, sessions, book } = self;
        let (framing, session_) =
            sessions.entry(session).or_insert_with(|| (Framing::default(), Session::new(*version)));
        framing.push(direction, bytes, |passed| session_.hear(&mut Hearing { at, session, book }, passed));
    }

    fn end(&mut self, session: u32) {
        if let Some((_, session)) = self.sessions.get_mut(&session)
            && let Some(backup) = session.backup().and_then(|index| self.book.backups.get_mut(index))
            && backup.ended == BackupOutcome::Running
        {
            backup.ended = BackupOutcome::Failed("the connection ended".to_owned());
        }
    }
}

/// A moment in a session, and the book to write into.
struct Hearing<'a> {
    at: Duration,
    session: u32,
    book: &'a mut Book,
}

/// A message as the transcript shows it.
struct Line<'a> {
    direction: Direction,
    message: &'static str,
    detail: &'a str,
    /// 0 for messages whose detail says everything.
    bytes: u64,
    /// Whether it joins an event with the same message and detail that stands last.
    folds: bool,
}

impl Hearing<'_> {
    /// Takes down an event; `last` is the index of the session's event that it may join.
    fn take_down(&mut self, last: &mut Option<usize>, line: &Line<'_>) {
        if let Some(event) = last.filter(|_| line.folds).and_then(|index| self.book.events.get_mut(index))
            && event.direction == line.direction
            && event.message == line.message
            && event.detail == line.detail
        {
            event.count += 1;
            event.bytes += line.bytes;
            return;
        }
        if self.book.events.len() >= MAX_EVENTS {
            return;
        }
        *last = line.folds.then_some(self.book.events.len());
        self.book.events.push(Event {
            at: u64::try_from(self.at.as_micros()).unwrap_or(u64::MAX),
            session: self.session,
            direction: line.direction,
            message: line.message,
            detail: line.detail.to_owned(),
            count: 1,
            bytes: line.bytes,
        });
    }
}
