//! Doing what the plan says.

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use tokio::time::Instant;

use super::throttle::Throttle;
use super::{Ending, Session, Stop, canceled, terminated};
use crate::fault::server::{ChangeParameter, ChangeRow, Error, Notice, Shutdown, Terminate};
use crate::fault::wire::{self, Chop, Delay, Insert, Stall};
use crate::fault::{Action, Moment, ShutdownMode};

/// What a fault changes of the message at its point.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// The message is left out.
    pub(super) dropped: bool,
    /// How often it is said once more.
    repeated: usize,
    /// The message comes after the next one.
    pub(super) swapped: bool,
    /// Bytes that go into the archive or manifest first, where the point is inside one.
    pub(super) inserted: Vec<u8>,
    /// What is about archives and members, in the order of the plan.
    pub(super) archive: Vec<Action>,
}

impl Edits {
    /// How often the message is said.
    pub(super) fn copies(&self) -> usize {
        if self.dropped { 0 } else { 1 + self.repeated }
    }
}

impl Session {
    /// Asks the plan what happens now, does what is not about the message itself, and says what is.
    pub(super) async fn at(&mut self, moment: Moment<'_>) -> Result<Edits, Stop> {
        let actions = self.shared.ask(moment, &self.seat);
        self.perform(actions, false, &[]).await
    }

    /// Takes `actions`. `inside` says that the point is a byte of an archive or of the manifest; `pending` is the message that
    /// comes next, of which a crash leaves a part on the wire.
    pub(super) async fn perform(&mut self, actions: Vec<Action>, inside: bool, pending: &[u8]) -> Result<Edits, Stop> {
        let mut edits = Edits::default();
        for action in actions {
            self.shared.note(self.seat.number, action.name());
            match action {
                Action::Delay(Delay { r#for }) | Action::Stall(Stall { r#for: Some(r#for) }) => {
                    self.pause(Instant::now().checked_add(r#for.0)).await?;
                }
                Action::Stall(Stall { r#for: None }) => self.pause(None).await?,
                Action::Throttle(wire::Throttle { rate }) => self.pace = Some(Throttle::new(rate.0)),
                Action::Chop(Chop { into }) => self.piece = Some(usize::try_from(into.0).unwrap_or(usize::MAX)),
                Action::Close(_) => return Err(Ending::Close.into()),
                Action::Reset(_) => return Err(Ending::Reset.into()),
                Action::Drop(_) => edits.dropped = true,
                Action::Repeat(_) => edits.repeated += 1,
                Action::Swap(_) => edits.swapped = true,
                Action::ChangeRow(ChangeRow { column, row, to }) => self.changes.change_row(column, row, to),
                Action::ChangeParameter(ChangeParameter { name, to }) => self.changes.change_parameter(name, to),
                Action::Insert(Insert { hex }) if inside => edits.inserted.extend(hex.0),
                Action::Insert(Insert { hex }) => self.wire.output.extend_from_slice(&hex.0),
                Action::Error(Error { sqlstate, message }) => return Err(Diagnostic::error(sqlstate, message).into()),
                Action::Notice(Notice { severity, message }) => {
                    let code = severity.code();
                    let notice = Diagnostic::new(severity.into(), code, message);
                    self.say_unasked(&BackendMessage::NoticeResponse(notice));
                }
                Action::Terminate(Terminate { client: None }) => return Err(Ending::Fatal(terminated()).into()),
                Action::Crash(_) | Action::Shutdown(Shutdown { mode: ShutdownMode::Immediate }) => {
                    if self.version.crashes_silently() {
                        let part = pending.get(..pending.len() / 2).unwrap_or_default();
                        self.wire.output.extend_from_slice(part);
                    }
                    self.shared.act(&action);
                    return Err(Ending::Crash.into());
                }
                Action::Garble(_)
                | Action::Truncate(_)
                | Action::RenameMember(_)
                | Action::RetypeMember(_)
                | Action::RelinkMember(_)
                | Action::ResizeHeader(_)
                | Action::RemodeMember(_)
                | Action::WriteHeader(_)
                | Action::RewriteMember(_)
                | Action::ChangeControl(_)
                | Action::BreakHeader(_)
                | Action::OmitMember(_)
                | Action::OmitArchive(_)
                | Action::OmitTrailer(_)
                | Action::ExtraMember(_) => edits.archive.push(action),
                Action::KillClient(_)
                | Action::FillDisk(_)
                | Action::FailFsync(_)
                | Action::ProtectDisk(_)
                | Action::StartClient(_) => self.at_the_client(&action).await?,
                Action::Terminate(Terminate { client: Some(_) })
                | Action::Shutdown(_)
                | Action::Promote(_)
                | Action::RecycleWal(_)
                | Action::SwitchWal(_)
                | Action::DropSlot(_)
                | Action::StartBackup(_)
                | Action::StopBackup(_)
                | Action::AbortBackup(_)
                | Action::AddFile(_)
                | Action::ChangeFile(_)
                | Action::GrowFile(_)
                | Action::RemoveFile(_)
                | Action::ShrinkFile(_) => {
                    self.shared.act(&action);
                    // This session may be among those that are told to end: they end before they say more.
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(edits)
    }

    /// Has something done to a client's machine, and says nothing more before it is done.
    async fn at_the_client(&mut self, action: &Action) -> Result<(), Stop> {
        self.flush().await?;
        let Some(done) = self.shared.order_client(action, Some(&self.seat.identity())) else { return Ok(()) };
        tokio::select! {
            biased;
            // An error: it was dropped, which is how it ends.
            _ = done => Ok(()),
            () = self.wire.closed() => Err(Ending::Gone.into()),
        }
    }

    /// Says nothing until `until`, or for ever. Ends early with the client, or with a cancel request.
    pub(super) async fn pause(&mut self, until: Option<Instant>) -> Result<(), Stop> {
        self.flush().await?;
        let seat = self.seat.clone();
        tokio::select! {
            biased;
            () = seat.cancel.notified() => Err(canceled()),
            () = sleep_until(until) => Ok(()),
            () = self.wire.closed() => Err(Ending::Gone.into()),
        }
    }
}

/// Sleeps until a moment, or for ever.
pub(super) async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
