//! Doing what the plan says.

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use tokio::time::Instant;

use super::{Downward, Hush};
use crate::fault::Action;
use crate::fault::ShutdownMode;
use crate::fault::server::{ChangeParameter, ChangeRow, Error, Notice, Shutdown, Terminate};
use crate::fault::wire::{self, Chop, Delay, Insert, Stall};
use crate::proxy::session::{Ending, Stop};
use crate::proxy::shared::Order;
use crate::session::terminated;
use crate::session::throttle::Throttle;

/// What a fault changes of the message at its point.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Edits {
    /// The message is left out.
    dropped: bool,
    /// How often it is said once more.
    repeated: usize,
    /// The message comes after the next one.
    pub(super) swapped: bool,
    /// Bytes that go into the archive or manifest first, where the point is inside one.
    pub(super) inserted: Vec<u8>,
    /// What is about archives, members and bytes, in the order of the plan.
    pub(super) archive: Vec<Action>,
}

impl Edits {
    /// The message is left out.
    pub(super) fn none() -> Self {
        Self { dropped: true, ..Self::default() }
    }

    /// How often the message is said.
    pub(super) fn copies(&self) -> usize {
        if self.dropped { 0 } else { 1 + self.repeated }
    }

    /// Both of two.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.dropped |= other.dropped;
        self.repeated += other.repeated;
        self.swapped |= other.swapped;
        self.inserted.extend(other.inserted);
        self.archive.extend(other.archive);
        self
    }
}

/// Whether all sessions end with it, the one at the point among them.
fn ends_the_server(action: &Action) -> bool {
    match action {
        Action::Crash(_) => true,
        Action::Shutdown(Shutdown { mode }) => *mode != ShutdownMode::Smart,
        _ => false,
    }
}

impl Downward {
    /// Takes `actions`. `inside` says that the point is a byte of an archive or of the manifest.
    pub(super) async fn perform(&mut self, actions: Vec<Action>, inside: bool) -> Result<Edits, Stop> {
        let mut edits = Edits::default();
        for action in actions {
            self.shared.note(self.seat.number, action.name());
            match action {
                Action::Delay(Delay { r#for }) | Action::Stall(Stall { r#for: Some(r#for) }) => {
                    self.pause(Instant::now().checked_add(r#for.0)).await?;
                }
                Action::Stall(Stall { r#for: None }) => self.pause(None).await?,
                Action::Throttle(wire::Throttle { rate }) => self.pace = Some(Throttle::new(rate.0)),
                Action::Chop(Chop { into }) => self.piece = Some(usize::try_from(into.0).unwrap_or(usize::MAX).max(1)),
                Action::Close(_) => return Err(Ending::Close.into()),
                Action::Reset(_) => return Err(Ending::Reset.into()),
                Action::Drop(_) => edits.dropped = true,
                Action::Repeat(_) => edits.repeated += 1,
                Action::Swap(_) => edits.swapped = true,
                Action::ChangeRow(ChangeRow { column, row, to }) => self.changes.change_row(column, row, to),
                Action::ChangeParameter(ChangeParameter { name, to }) => self.changes.change_parameter(name, to),
                Action::Insert(Insert { hex }) if inside => edits.inserted.extend(hex.0),
                Action::Insert(Insert { hex }) => self.outlet.output.extend_from_slice(&hex.0),
                Action::Error(Error { sqlstate, message }) => {
                    return Err(Stop::Error(Diagnostic::error(sqlstate, message)));
                }
                Action::Notice(Notice { severity, message }) => {
                    let code = severity.code();
                    self.say(&BackendMessage::NoticeResponse(Diagnostic::new(severity.into(), code, message)));
                }
                Action::Garble(_)
                | Action::Truncate(_)
                | Action::RenameMember(_)
                | Action::RetypeMember(_)
                | Action::RelinkMember(_)
                | Action::ResizeHeader(_)
                | Action::RemodeMember(_)
                | Action::WriteHeader(_)
                | Action::BreakHeader(_)
                | Action::OmitMember(_)
                | Action::OmitArchive(_)
                | Action::OmitTrailer(_)
                | Action::ExtraMember(_) => edits.archive.push(action),
                action if ends_the_server(&action) => {
                    self.outlet.flush().await?;
                    if self.seat.key.get().is_none() {
                        // No backend has taken the session yet.
                        self.shared.act(&action, Some(&self.seat)).await;
                        return Err(Ending::Close.into());
                    }
                    return Err(self.meanwhile(action));
                }
                Action::Terminate(Terminate { client: None }) if self.seat.key.get().is_none() => {
                    // No backend has taken the session yet.
                    return Err(Ending::Fatal(terminated()).into());
                }
                Action::Terminate(Terminate { client: None }) => {
                    self.outlet.flush().await?;
                    return Err(self.meanwhile(action));
                }
                action => {
                    self.outlet.flush().await?;
                    self.shared.act(&action, Some(&self.seat)).await;
                }
            }
        }
        Ok(edits)
    }

    /// Has the server end the session, and listens to it meanwhile: while it waits to be heard it ends without a word.
    fn meanwhile(&mut self, action: Action) -> Stop {
        let (shared, seat) = (self.shared.clone(), self.seat.clone());
        tokio::spawn(async move {
            if !shared.act(&action, Some(&seat)).await {
                seat.order.send_replace(Some(Order::Close));
            }
        });
        // Its own words come behind what it had sent already.
        self.hush = Some(Hush::Session);
        Stop::Hushed
    }

    /// Says nothing until `until`, or for ever. Ends early with the client, or when its cancel request has gone to the server.
    pub(super) async fn pause(&mut self, until: Option<Instant>) -> Result<(), Stop> {
        self.outlet.flush().await?;
        let seat = self.seat.clone();
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = seat.cancel.notified() => Ok(()),
            () = sleep => Ok(()),
            () = self.outlet.closed() => Err(Ending::Gone.into()),
        }
    }
}
