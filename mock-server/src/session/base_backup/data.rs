//! Bytes of archives and of the manifest, and the faults that strike at one of them.

use std::time::Duration;

use backstop_protocol::base_backup::archive::ArchiveMessage;
use bytes::BytesMut;
use tokio::time::Instant;

use super::super::output::write_data;
use super::super::start_replication::mask;
use super::{Backup, Session, Stop};
use crate::fault::{Action, Moment, Stop as FaultStop};

/// How often progress is reported inside an archive.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What is being sent: one archive, or the manifest.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes of it that came by so far, sent or not.
    pub(super) offset: u64,
    /// Where faults may strike, ascending.
    pub(super) stops: Vec<FaultStop>,
    /// A fault ends it here.
    pub(super) cut: Option<u64>,
    /// Nothing of it is sent: a fault leaves it out, or the backup goes nowhere.
    pub(super) mute: bool,
    pub(super) is_manifest: bool,
}

impl Session {
    /// Sends bytes of the current flow. `what` names the member they belong to.
    pub(super) async fn data(&mut self, backup: &mut Backup, bytes: &[u8], what: &str) -> Result<(), Stop> {
        let mut rest = bytes;
        loop {
            let (copies, garbled) = self.reach_stops(backup, rest, what).await?;
            if rest.is_empty() {
                return Ok(());
            }
            let mut length = rest.len().min(self.piece.unwrap_or(usize::MAX));
            if let Some(stop) = backup.flow.stops.first() {
                length = length.min(usize::try_from(stop.at - backup.flow.offset).unwrap_or(usize::MAX));
            }
            let (piece, later) = rest.split_at(length);
            for _ in 0..copies {
                match garbled {
                    0 => self.piece_of_flow(backup, piece, what).await?,
                    bits => {
                        let mut piece = piece.to_vec();
                        if let Some(byte) = piece.first_mut() {
                            *byte ^= bits;
                        }
                        self.piece_of_flow(backup, &piece, what).await?;
                    }
                }
            }
            backup.flow.offset += length as u64;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes the actions of faults at the present byte: how often the coming piece is sent, and which bits of its first byte
    /// are flipped.
    async fn reach_stops(&mut self, backup: &mut Backup, rest: &[u8], what: &str) -> Result<(usize, u8), Stop> {
        let (mut copies, mut garbled) = (1, 0);
        while let Some(stop) = backup.flow.stops.first().copied().filter(|stop| stop.at <= backup.flow.offset) {
            backup.flow.stops.remove(0);
            let Some(action) = self.shared.plan(|plan| plan.reach(stop, &self.seat.identity())) else { continue };
            let mut pending = BytesMut::new();
            write_data(&mut pending, self.data_head(), rest);
            let edits = self.perform(vec![action], true, &pending).await?;
            copies = if edits.dropped || copies == 0 { 0 } else { copies.max(edits.copies()) };
            if !edits.inserted.is_empty() {
                self.piece_of_flow(backup, &edits.inserted, what).await?;
            }
            for action in edits.archive {
                match action {
                    Action::Garble { bits } => garbled |= mask(bits),
                    Action::Truncate { .. } => backup.flow.cut = Some(backup.flow.offset),
                    _ => {}
                }
            }
        }
        Ok((copies, garbled))
    }

    /// One message of data, unless a fault has ended the flow or the backup goes nowhere.
    pub(super) async fn piece_of_flow(&mut self, backup: &mut Backup, piece: &[u8], what: &str) -> Result<(), Stop> {
        let left = backup.flow.cut.map_or(u64::MAX, |cut| cut.saturating_sub(backup.flow.offset));
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = piece.get(..length).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        let goes_nowhere = !backup.to_client();
        if !backup.flow.mute {
            self.send_data(self.data_head(), piece, what).await?;
        }
        if !backup.flow.is_manifest && (!backup.flow.mute || goes_nowhere) {
            backup.done += piece.len() as u64;
        }
        if let Some(wait) = backup.throttle.as_mut().and_then(|throttle| throttle.sent(piece.len())) {
            self.pause(Some(wait)).await?;
        }
        if !backup.flow.is_manifest && backup.last_progress.elapsed() >= PROGRESS_INTERVAL {
            self.progress(backup).await?;
        }
        Ok(())
    }

    /// Reports progress, which only servers since 15 do.
    pub(super) async fn progress(&mut self, backup: &mut Backup) -> Result<(), Stop> {
        if !self.version.has_archive_stream() {
            return Ok(());
        }
        backup.last_progress = Instant::now();
        let done = backup.done;
        for _ in 0..self.at(Moment::Progress).await?.copies() {
            let message = ArchiveMessage::Progress(i64::try_from(done).unwrap_or(i64::MAX));
            self.archive_message(&message, &format!("p {done}")).await?;
        }
        Ok(())
    }

    /// What stands before the bytes in a message: since 15 the kind of message.
    pub(super) fn data_head(&self) -> &'static [u8] {
        if self.version.has_archive_stream() { b"d" } else { b"" }
    }
}
