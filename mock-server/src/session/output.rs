//! Sending: every message of a session passes [`Session::put`].

use std::fmt::Display;
use std::sync::atomic::Ordering;

use backstop_protocol::backend::{BackendMessage, Column};
use backstop_protocol::frame::write_frame;
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Bytes, BytesMut};

use super::faults::sleep_until;
use super::{Ending, Session, Stop};
use crate::fault::Moment;
use crate::transcript::{Direction, Said};

/// OIDs of types.
pub(super) const BYTEA: u32 = 17;
pub(super) const INT8: u32 = 20;
pub(super) const INT4: u32 = 23;
pub(super) const TEXT: u32 = 25;
pub(super) const OID: u32 = 26;

/// A column with its type's own length.
pub(super) fn column(name: &str, type_oid: u32, type_modifier: i32) -> Column {
    let type_len = match type_oid {
        INT8 => 8,
        INT4 | OID => 4,
        _ => -1,
    };
    Column { name: name.to_owned(), type_oid, type_len, type_modifier, format: 0 }
}

/// A value of a row.
pub(super) fn value(value: impl Display) -> Bytes {
    value.to_string().into()
}

/// A row without NULLs.
pub(super) fn row<const N: usize>(values: [Bytes; N]) -> Vec<Option<Bytes>> {
    values.map(Some).to_vec()
}

impl Session {
    /// Writes what waits.
    pub(super) async fn flush(&mut self) -> Result<(), Ending> {
        let given_up = self.patience.is_some();
        tokio::select! {
            biased;
            written = self.wire.flush() => if written { Ok(()) } else { Err(Ending::Gone) },
            () = sleep_until(self.patience), if given_up => Err(Ending::Close),
        }
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: BackendMessage) -> Result<(), Stop> {
        let message = self.changes.apply(message)?;
        let (detail, version) = (message.summary(), self.version);
        self.put(message.name(), &detail, 0, false, |out| message.encode_as(version, out)).await
    }

    /// Sends what stands at a point of the protocol: faults can leave it out or say it twice.
    /// How often it was said.
    pub(super) async fn emit(&mut self, moment: Moment<'_>, messages: Vec<BackendMessage>) -> Result<usize, Stop> {
        let edits = self.at(moment).await?;
        let held = self.holds;
        self.holds |= edits.swapped;
        let said = self.say(edits.copies(), messages).await;
        self.holds = held;
        said.map(|()| edits.copies())
    }

    async fn say(&mut self, copies: usize, messages: Vec<BackendMessage>) -> Result<(), Stop> {
        for message in std::iter::repeat_n(messages, copies).flatten() {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Sends a CopyData whose payload is `head` and `data`. Only `data` counts as its bytes in the transcript.
    pub(super) async fn send_data(&mut self, head: &[u8], data: &[u8], what: &str) -> Result<(), Stop> {
        self.put("CopyData", what, data.len(), true, |out| write_data(out, head, data)).await
    }

    /// The one way out: counts the message, asks the plan, records, encodes, keeps the pace.
    pub(super) async fn put(
        &mut self,
        name: &'static str,
        detail: &str,
        bytes: usize,
        folds: bool,
        encode: impl Fn(&mut BytesMut),
    ) -> Result<(), Stop> {
        let (mut copies, mut held) = (1, self.holds);
        if self.counts {
            let number = self.seat.messages.fetch_add(1, Ordering::SeqCst) + 1;
            if self.counted {
                let mut frame = BytesMut::new();
                encode(&mut frame);
                let actions = self.shared.ask(Moment::Message(number), &self.seat);
                let edits = self.perform(actions, false, &frame).await?;
                copies = edits.copies();
                held |= edits.swapped;
            }
        }
        let after = if held { BytesMut::new() } else { std::mem::take(&mut self.held) };
        for _ in 0..copies {
            let said = Said { direction: Direction::Sent, message: name, detail, bytes: bytes as u64, folds };
            self.shared.record(self.seat.number, &said);
            if held {
                encode(&mut self.held);
                continue;
            }
            let before = self.wire.output.len();
            encode(&mut self.wire.output);
            let length = self.wire.output.len() - before;
            let wait = self.pace.as_mut().and_then(|pace| pace.sent(length));
            if wait.is_some() {
                self.pause(wait).await?;
            } else if self.wire.is_full() {
                self.flush().await?;
            }
        }
        self.wire.output.extend_from_slice(&after);
        Ok(())
    }

    /// Adds a message without asking the plan: last words, and what faults say.
    pub(super) fn say_unasked(&mut self, message: &BackendMessage) {
        let said = Said {
            direction: Direction::Sent,
            message: message.name(),
            detail: &message.summary(),
            bytes: 0,
            folds: false,
        };
        self.shared.record(self.seat.number, &said);
        message.encode_as(self.version, &mut self.wire.output);
    }

    /// CommandComplete.
    pub(super) async fn complete(&mut self, tag: &str) -> Result<(), Stop> {
        self.send(BackendMessage::CommandComplete(tag.to_owned())).await
    }

    /// RowDescription and its rows.
    pub(super) async fn rows(&mut self, columns: Vec<Column>, rows: Vec<Vec<Option<Bytes>>>) -> Result<(), Stop> {
        self.send(BackendMessage::RowDescription(columns)).await?;
        for row in rows {
            self.send(BackendMessage::DataRow(row)).await?;
        }
        Ok(())
    }

    /// Notes in the transcript what a client said. Passwords are only counted.
    pub(super) fn record_received(&mut self, message: &FrontendMessage) {
        let (name, detail, bytes) = message.told();
        let said = Said {
            direction: Direction::Received,
            message: name,
            detail: &detail,
            bytes: bytes as u64,
            folds: bytes > 0,
        };
        self.shared.record(self.seat.number, &said);
    }

    /// Notes the end of the connection in the transcript.
    pub(super) fn note_end(&mut self, how: &str) {
        let (direction, message) = (Direction::Note, "connection");
        self.shared.record(self.seat.number, &Said { direction, message, detail: how, bytes: 0, folds: false });
    }
}

/// Appends a CopyData message.
pub(crate) fn write_data(out: &mut BytesMut, head: &[u8], data: &[u8]) {
    write_frame(out, b'd', |out| {
        out.extend_from_slice(head);
        out.extend_from_slice(data);
    });
}
