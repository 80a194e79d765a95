//! Bytes of archives and of the manifest, and the faults that strike at one of them.
//!
//! Positions of faults, and what they change there, are those of the tar archive, before compression; what slows down or cuts
//! messages is about what is sent.

use std::io;
use std::time::Duration;

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use bytes::BytesMut;
use tokio::time::Instant;

use super::super::output::write_data;
use super::super::start_replication::mask;
use super::compress::Compressor;
use super::{Backup, Session, Stop};
use crate::fault::wire::Garble;
use crate::fault::{Action, Moment, Stop as FaultStop};

/// How often progress is reported inside an archive: `PROGRESS_REPORT_MILLISECOND_THRESHOLD`.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The time is looked at after so many bytes: `PROGRESS_REPORT_BYTE_INTERVAL`.
const PROGRESS_BYTES: u64 = 65536;

/// What is being sent: one archive, or the manifest.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes of it that came by so far, sent or not.
    pub(super) offset: u64,
    /// Where faults may strike, ascending.
    pub(super) stops: Vec<FaultStop>,
    /// A fault ends it here.
    pub(super) cut: Option<u64>,
    /// A fault leaves it out.
    pub(super) mute: bool,
    pub(super) is_manifest: bool,
    /// Between the archive and what is sent of it.
    pub(super) compressor: Option<Compressor>,
    /// As the client knows the archive: with the suffix of its compression.
    pub(super) name: String,
}

impl Flow {
    /// What the client will be sent next of `rest`, which comes next in the archive.
    fn pending<'a>(&'a self, rest: &'a [u8]) -> &'a [u8] {
        self.compressor.as_ref().map_or(rest, Compressor::staged)
    }
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
            let whole = backup.flow.compressor.is_some();
            let mut length = rest.len().min(self.piece.filter(|_| !whole).unwrap_or(usize::MAX));
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
            write_data(&mut pending, self.data_head(), backup.flow.pending(rest));
            let edits = self.perform(vec![action], true, &pending).await?;
            copies = if edits.dropped || copies == 0 { 0 } else { copies.max(edits.copies()) };
            if !edits.inserted.is_empty() {
                self.piece_of_flow(backup, &edits.inserted, what).await?;
            }
            for action in edits.archive {
                match action {
                    Action::Garble(Garble { bits }) => garbled |= mask(bits),
                    Action::Truncate(_) => backup.flow.cut = Some(backup.flow.offset),
                    _ => {}
                }
            }
        }
        Ok((copies, garbled))
    }

    /// Bytes that go into the archive or the manifest, unless a fault has ended it or leaves it out.
    pub(super) async fn piece_of_flow(&mut self, backup: &mut Backup, piece: &[u8], what: &str) -> Result<(), Stop> {
        let left = backup.flow.cut.map_or(u64::MAX, |cut| cut.saturating_sub(backup.flow.offset));
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = piece.get(..length).unwrap_or_default();
        if piece.is_empty() || backup.flow.mute {
            return Ok(());
        }
        if !backup.flow.is_manifest {
            backup.done += piece.len() as u64;
        }
        let Some(compressor) = &mut backup.flow.compressor else { return self.deliver(backup, piece, what).await };
        let mut ready = Vec::new();
        compressor.write(piece, &mut ready).map_err(|error| not_compressed(&error))?;
        self.deliver_compressed(backup, ready).await
    }

    /// Ends the compressed stream of an archive.
    pub(super) async fn end_compression(&mut self, backup: &mut Backup) -> Result<(), Stop> {
        let Some(compressor) = backup.flow.compressor.take() else { return Ok(()) };
        let mut ready = Vec::new();
        compressor.finish(&mut ready).map_err(|error| not_compressed(&error))?;
        self.deliver_compressed(backup, ready).await
    }

    async fn deliver_compressed(&mut self, backup: &mut Backup, ready: Vec<Vec<u8>>) -> Result<(), Stop> {
        let name = backup.flow.name.clone();
        for message in ready {
            self.deliver(backup, &message, &name).await?;
        }
        Ok(())
    }

    /// The last of the way: no faster than the client allows, to where the backup goes, and progress.
    async fn deliver(&mut self, backup: &mut Backup, bytes: &[u8], what: &str) -> Result<(), Stop> {
        if self.version.has_archive_stream() {
            self.throttle(backup, bytes.len()).await?;
        }
        if let Some(store) = &mut backup.store {
            store.write(bytes)?;
        }
        if backup.to_client() {
            for piece in bytes.chunks(self.piece.unwrap_or(usize::MAX).max(1)) {
                self.send_data(self.data_head(), piece, what).await?;
            }
        }
        if !backup.flow.is_manifest && backup.done >= backup.done_at_last_check + PROGRESS_BYTES {
            backup.done_at_last_check = backup.done;
            if backup.last_progress.elapsed() >= PROGRESS_INTERVAL {
                self.progress(backup).await?;
            }
        }
        Ok(())
    }

    /// Keeps to MAX_RATE. Since 15 every byte that leaves the server counts, after compression and before it is sent; up to
    /// 14 only the contents of files, once they were sent.
    pub(super) async fn throttle(&mut self, backup: &mut Backup, bytes: usize) -> Result<(), Stop> {
        match backup.throttle.as_mut().and_then(|throttle| throttle.sent(bytes)) {
            Some(wait) => self.pause(Some(wait)).await,
            None => Ok(()),
        }
    }

    /// Reports progress, which only servers since 15 do.
    pub(super) async fn progress(&mut self, backup: &mut Backup) -> Result<(), Stop> {
        if !self.version.has_archive_stream() {
            return Ok(());
        }
        (backup.last_progress, backup.done_at_last_check) = (Instant::now(), backup.done);
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

/// What a server says whose compressor fails.
pub(super) fn not_compressed(error: &io::Error) -> Diagnostic {
    Diagnostic::error(SqlState::INTERNAL_ERROR, format!("could not compress data: {error}"))
}
