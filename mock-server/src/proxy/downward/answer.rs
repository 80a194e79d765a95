//! Messages without data: start-up, result sets, the beginnings and ends of COPY.

use backstop_protocol::backend::{Authentication, BackendMessage};
use backstop_protocol::frame::Frame;
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};

use super::perform::Edits;
use super::{Downward, Fate, Run};
use crate::fault::Moment;
use crate::proxy::session::{Asked, Stop};

/// The mechanism that ties a password to a TLS connection.
const BOUND: &str = "SCRAM-SHA-256-PLUS";

/// A result set that a fault is about.
#[derive(Debug)]
pub(super) struct Unit {
    edits: Edits,
    /// What came of it, to be said again.
    kept: BytesMut,
}

impl Downward {
    /// A message other than CopyData. `edits` are those of its number.
    pub(super) async fn message(&mut self, frame: &[u8], edits: Edits, run: &mut Run<'_>) -> Result<Fate, Stop> {
        let (Some(&tag), Some(body)) = (frame.first(), frame.get(5..)) else { return Ok(Fate::Pass) };
        let message = BackendMessage::decode(Frame { tag, body: Bytes::copy_from_slice(body) }).ok();
        let backup = matches!(self.asked(), Asked::Backup { .. });
        if let Some(message) = &message {
            self.learn(message);
        }
        let edits = edits.and(match tag {
            b'Z' => self.at_in(Moment::Ready, run).await?,
            b'T' if backup => self.result_set(run).await?,
            b'H' if backup => self.copy_begins(run).await?,
            b'c' if backup => self.copy_ends(run).await?,
            b'W' => self.at_in(Moment::WalBegin, run).await?,
            _ => Edits::default(),
        });
        let changed = self.change(message.clone())?;
        let mut replaced = BytesMut::new();
        let frame = match &changed {
            Some(changed) => {
                changed.encode_as(self.version(), &mut replaced);
                &replaced[..]
            }
            None => frame,
        };
        if edits.copies() > 0 {
            match changed.as_ref().or(message.as_ref()) {
                Some(message) => self.record(message.name(), &message.summary(), 0, false),
                None => self.record("unknown message", &char::from(tag).to_string(), body.len(), false),
            }
        }
        let fate = match self.unit.take() {
            Some(unit) => self.part_of_unit(unit, tag, frame, run).await?,
            None => self.emit(frame, &edits, run).await?,
        };
        if tag == b'Z' {
            self.end_of_answer();
        }
        if fate == Fate::Pass && changed.is_some() {
            self.settle(run);
            self.outlet.output.extend_from_slice(frame);
            return Ok(Fate::Replaced);
        }
        Ok(fate)
    }

    /// What a message tells of the session.
    fn learn(&mut self, message: &BackendMessage) {
        match message {
            BackendMessage::ParameterStatus { name, value } if name == "server_version" => {
                if let Some(version) = ServerVersion::from_announced(value) {
                    // It stays what it is.
                    let _ = self.seat.version.set(version);
                }
            }
            BackendMessage::BackendKeyData { pid, key } => {
                let _ = self.seat.key.set((*pid, key.clone()));
            }
            BackendMessage::DataRow(values) => self.backup.row(values),
            BackendMessage::ErrorResponse(_) => self.unit = None,
            _ => {}
        }
    }

    /// The message as faults, or the two ends of TLS, change it, if they do.
    fn change(&mut self, message: Option<BackendMessage>) -> Result<Option<BackendMessage>, Stop> {
        match message {
            Some(BackendMessage::Authentication(Authentication::Sasl { mut mechanisms }))
                if self.hides_binding && mechanisms.iter().any(|name| name == BOUND) =>
            {
                mechanisms.retain(|name| name != BOUND);
                Ok(Some(BackendMessage::Authentication(Authentication::Sasl { mechanisms })))
            }
            Some(message) if self.changes.wait() => {
                let changed = self.changes.apply(message.clone()).map_err(Stop::Error)?;
                Ok((changed != message).then_some(changed))
            }
            _ => Ok(None),
        }
    }

    /// A result set of BASE_BACKUP begins: the start position, the list of tablespaces, the end position.
    async fn result_set(&mut self, run: &mut Run<'_>) -> Result<Edits, Stop> {
        self.backup.result_sets += 1;
        let moment = match self.backup.result_sets {
            1 => Moment::StartPosition,
            2 => Moment::TablespaceList,
            _ => Moment::EndPosition,
        };
        let edits = self.at_in(moment, run).await?;
        if edits.copies() != 1 || edits.swapped {
            self.unit = Some(Unit { edits, kept: BytesMut::new() });
            return Ok(Edits::default());
        }
        Ok(edits)
    }

    /// A message of a result set that is left out, said again, or changes places with what comes behind it.
    async fn part_of_unit(&mut self, mut unit: Unit, tag: u8, frame: &[u8], run: &mut Run<'_>) -> Result<Fate, Stop> {
        self.settle(run);
        if unit.edits.copies() > 0 {
            self.put_frame(frame, unit.edits.swapped).await?;
            unit.kept.extend_from_slice(frame);
        }
        if tag == b'C' {
            for _ in 1..unit.edits.copies() {
                let again = unit.kept.clone();
                self.put_frame(&again, unit.edits.swapped).await?;
            }
        } else {
            self.unit = Some(unit);
        }
        Ok(Fate::Replaced)
    }

    /// Adds a message that goes on unchanged to the transcript.
    pub(super) fn record_frame(&self, frame: &[u8]) {
        let (Some(&tag), Some(body)) = (frame.first(), frame.get(5..)) else { return };
        if let Ok(message) = BackendMessage::decode(Frame { tag, body: Bytes::copy_from_slice(body) }) {
            self.record(message.name(), &message.summary(), 0, false);
        }
    }
}
