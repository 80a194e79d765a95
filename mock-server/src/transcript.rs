//! The record of the wire: what was sent and received, in order, in one line each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The most events that a transcript keeps. A run that says more is cut, and says so in its last event, unless somebody
/// [takes](crate::Server::take_transcript) events as they come.
const MAX_EVENTS: usize = 1 << 20;

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The server: `>`.
    Sent,
    /// The client: `<`.
    Received,
    /// Nobody: something that happened inside the server, such as a fault that fired: `!`.
    Note,
}

/// One line of the transcript. Consecutive data messages of one archive member, or of one stream of WAL, are one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Since the server's first connection, on tokio's clock, in microseconds.
    pub at: u64,
    /// The connection's number, from 1. 0 is the server itself.
    pub session: u32,
    /// Who spoke.
    pub direction: Direction,
    /// The message's name in PostgreSQL's protocol documentation.
    pub message: &'static str,
    /// What it said, decoded: a command, a row, a member's name, a position.
    pub detail: String,
    /// How many messages were folded into this event.
    pub count: u64,
    /// Their payload, without frames.
    pub bytes: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.direction {
            Direction::Sent => '>',
            Direction::Received => '<',
            Direction::Note => '!',
        };
        let millis = self.at / 1000;
        write!(f, "{:>5}.{:03} #{} {sign} {}", millis / 1000, millis % 1000, self.session, self.message)?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        match (self.count, self.bytes) {
            (0..=1, 0) => Ok(()),
            (0..=1, bytes) => write!(f, " ({bytes} bytes)"),
            (count, bytes) => write!(f, " ({count} messages, {bytes} bytes)"),
        }
    }
}

/// Collects events.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    events: Vec<Event>,
    /// The index of each session's event that the next message may still join.
    open: BTreeMap<u32, usize>,
}

/// A message as the transcript shows it.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) direction: Direction,
    pub(crate) message: &'static str,
    pub(crate) detail: &'a str,
    /// 0 for messages whose detail says everything.
    pub(crate) bytes: u64,
    /// Whether it joins an event with the same message and detail that stands last.
    pub(crate) folds: bool,
}

impl Recorder {
    pub(crate) fn record(&mut self, at: Duration, session: u32, said: &Said<'_>) {
        if said.folds
            && let Some(last) = self.open.get(&session).and_then(|index| self.events.get_mut(*index))
            && last.direction == said.direction
            && last.message == said.message
            && last.detail == said.detail
        {
            last.count += 1;
            last.bytes += said.bytes;
            return;
        }
        self.open.remove(&session);
        if self.events.len() >= MAX_EVENTS {
            if let Some(last) = self.events.last_mut() {
                "the transcript is full: what follows is not recorded".clone_into(&mut last.detail);
            }
            return;
        }
        if said.folds {
            self.open.insert(session, self.events.len());
        }
        self.events.push(Event {
            at: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            session,
            direction: said.direction,
            message: said.message,
            detail: said.detail.to_string(),
            count: 1,
            bytes: said.bytes,
        });
    }

    /// Takes the events that no message can join any more: all but the last of each session that sends or receives data.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        let open: BTreeSet<usize> = std::mem::take(&mut self.open).into_values().collect();
        let mut complete = Vec::with_capacity(self.events.len());
        for (index, event) in std::mem::take(&mut self.events).into_iter().enumerate() {
            if open.contains(&index) {
                self.open.insert(event.session, self.events.len());
                self.events.push(event);
            } else {
                complete.push(event);
            }
        }
        complete
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_complete() {
        let mut recorder = Recorder::default();
        let say = |recorder: &mut Recorder, session, detail: &str, bytes| {
            let direction = Direction::Sent;
            let said = Said { direction, message: "CopyData", detail, bytes, folds: bytes > 0 };
            recorder.record(Duration::ZERO, session, &said);
        };
        let taken = |recorder: &mut Recorder| -> Vec<_> {
            recorder.take().into_iter().map(|event| (event.detail, event.count)).collect()
        };
        say(&mut recorder, 1, "n", 0);
        say(&mut recorder, 1, "PG_VERSION", 3);
        say(&mut recorder, 2, "n", 0);
        assert_eq!(taken(&mut recorder), [("n".to_owned(), 1), ("n".to_owned(), 1)]);
        say(&mut recorder, 1, "PG_VERSION", 3);
        assert_eq!(taken(&mut recorder), []);
        say(&mut recorder, 1, "PG_VERSION", 0);
        say(&mut recorder, 1, "PG_VERSION", 3);
        assert_eq!(taken(&mut recorder), [("PG_VERSION".to_owned(), 2), ("PG_VERSION".to_owned(), 1)]);
        assert_eq!(recorder.events().len(), 1);
    }

    #[test]
    fn folds_what_is_one_stream_of_data() {
        let mut recorder = Recorder::default();
        let mut say = |millis, session, message, detail: &str, bytes| {
            let said = Said { direction: Direction::Sent, message, detail, bytes, folds: bytes > 0 };
            recorder.record(Duration::from_millis(millis), session, &said);
        };
        say(0, 1, "CopyData", "base/5/1259", 32768);
        say(1, 2, "ReadyForQuery", "I", 0);
        say(2, 1, "CopyData", "base/5/1259", 8192);
        say(12_345, 1, "CopyData", "base/5/12590", 8192);
        let lines: Vec<_> = recorder.events().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
            0.000 #1 > CopyData base/5/1259 (2 messages, 40960 bytes)
            0.001 #2 > ReadyForQuery I
           12.345 #1 > CopyData base/5/12590 (8192 bytes)
        ");
    }
}
