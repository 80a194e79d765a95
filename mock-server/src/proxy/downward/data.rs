//! CopyData: bytes of archives, of the manifest and of WAL, and the faults that strike at one of them.

use backstop_protocol::base_backup::tar::BLOCK;

use super::perform::Edits;
use super::tar_cursor::{Ahead, TarCursor};
use super::{Downward, Fate, Run};
use crate::fault::Action;
use crate::fault::wire::Garble;
use crate::proxy::session::{Asked, Stop};
use crate::session::output::write_data;
use crate::session::start_replication::mask;

/// The most data in a message that a fault has made: a page of WAL more than a server sends.
const MAX_PIECE: usize = 128 << 10;

impl Downward {
    /// A CopyData of whatever kind. `edits` are those of its number.
    pub(super) async fn copy_data<'a>(
        &mut self,
        frame: &'a [u8],
        edits: Edits,
        run: &mut Run<'a>,
    ) -> Result<Fate, Stop> {
        let payload = frame.get(5..).unwrap_or_default();
        match self.asked() {
            Asked::Backup { .. } if !self.version().has_archive_stream() => {
                self.flow_data(&[], payload, frame, &edits, run).await
            }
            Asked::Backup { .. } => match payload.split_at_checked(1) {
                Some((head @ b"d", data)) => self.flow_data(head, data, frame, &edits, run).await,
                _ => self.archive_message(payload, frame, edits, run).await,
            },
            Asked::Wal(timeline) => self.wal_message(payload, frame, timeline, edits, run).await,
            Asked::Other => {
                self.record("CopyData", "", payload.len(), true);
                self.emit(frame, &edits, run).await
            }
        }
    }

    /// Bytes of an archive or of the manifest.
    async fn flow_data<'a>(
        &mut self,
        head: &'a [u8],
        data: &'a [u8],
        frame: &[u8],
        edits: &Edits,
        run: &mut Run<'a>,
    ) -> Result<Fate, Stop> {
        if self.hoards(data, run) {
            if self.hoards_too_much() {
                self.shared.note(self.seat.number, "manifest-data: the manifest is too large to learn its size");
                self.flow_ends(run).await?;
            }
            return Ok(Fate::Replaced);
        }
        if edits.copies() != 1 || edits.swapped {
            // The message as a whole is another matter than what it carries.
            self.follow(data);
            for _ in 0..edits.copies() {
                self.record_data(data.len());
            }
            return self.emit(frame, edits, run).await;
        }
        run.look(head, data);
        self.look_through(run).await?;
        if run.whole && self.piece.is_none_or(|most| data.len() <= most) {
            run.from = run.at;
            self.record_data(data.len());
            return self.emit(frame, edits, run).await;
        }
        self.settle(run);
        self.keep_pace(frame.len()).await?;
        Ok(Fate::Replaced)
    }

    /// Bytes that were kept back, once more.
    pub(super) async fn data_again(&mut self, data: &[u8]) -> Result<(), Stop> {
        let mut run = Run::default();
        run.look(self.data_head(), data);
        self.look_through(&mut run).await?;
        self.settle(&mut run);
        self.keep_pace(data.len()).await
    }

    /// What stands before the bytes of an archive in a message: since 15 the kind of message.
    fn data_head(&self) -> &'static [u8] {
        if self.version().has_archive_stream() { b"d" } else { b"" }
    }

    /// Walks over the data of `run`: asks the plan at headers and at the bytes where faults wait.
    async fn look_through(&mut self, run: &mut Run<'_>) -> Result<(), Stop> {
        while run.at < run.data.len() {
            let (copies, garbled) = self.reach_stops(run).await?;
            let rest = run.data.get(run.at..).unwrap_or_default();
            let flow = &self.backup.flow;
            let mut length = rest.len() as u64;
            match flow.cursor.as_ref().map(TarCursor::ahead) {
                Some(Ahead::Block(missing)) => {
                    let part = rest.get(..missing).unwrap_or(rest);
                    self.block(part, run).await?;
                    continue;
                }
                Some(Ahead::Inside(left)) => length = length.min(left),
                None => {}
            }
            let borders = flow.stops.first().map(|stop| stop.at).into_iter().chain(flow.cut).chain([flow.muted]);
            for border in borders.filter(|border| *border > flow.offset) {
                length = length.min(border - flow.offset);
            }
            let open = flow.is_open();
            let piece = rest.get(..usize::try_from(length).unwrap_or(rest.len())).unwrap_or_default();
            if !open || copies != 1 || garbled != 0 {
                self.settle(run);
                let mut changed = piece.to_vec();
                if let Some(byte) = changed.first_mut() {
                    *byte ^= garbled;
                }
                for _ in 0..if open { copies } else { 0 } {
                    self.put(run.head, &changed);
                }
                run.leave_out(piece.len());
            } else {
                run.at += piece.len();
            }
            let flow = &mut self.backup.flow;
            flow.offset += piece.len() as u64;
            if let Some(cursor) = &mut flow.cursor {
                cursor.skip(piece.len() as u64);
            }
        }
        Ok(())
    }

    /// A header, a zero block, or a part of one.
    async fn block(&mut self, part: &[u8], run: &mut Run<'_>) -> Result<(), Stop> {
        let Some(mut cursor) = self.backup.flow.cursor.take() else { return Ok(()) };
        let whole = part.len() == BLOCK;
        let found = cursor.take(part);
        let block = *cursor.block();
        self.backup.flow.cursor = Some(cursor);
        if !whole {
            // It comes in parts, which go on together when it is known what they are.
            self.settle(run);
            run.leave_out(part.len());
        }
        if let Some(found) = found {
            let replaced = self.at_block(found, &block, run).await?;
            if whole && replaced.is_none() {
                // It goes on like any other data, with the faults that wait at its bytes.
                if let Some(cursor) = &mut self.backup.flow.cursor {
                    cursor.put_back();
                }
                return Ok(());
            }
            self.settle(run);
            if self.backup.flow.is_open() {
                self.put(run.head, replaced.as_deref().unwrap_or(&block));
            }
            run.leave_out(if whole { BLOCK } else { 0 });
        }
        self.backup.flow.offset += part.len() as u64;
        Ok(())
    }

    /// Bytes pass that nobody asks about.
    fn follow(&mut self, mut data: &[u8]) {
        let flow = &mut self.backup.flow;
        flow.offset += data.len() as u64;
        let Some(cursor) = &mut flow.cursor else { return };
        while !data.is_empty() {
            let length = match cursor.ahead() {
                Ahead::Inside(left) => {
                    let length = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    cursor.skip(length as u64);
                    length
                }
                Ahead::Block(missing) => {
                    let length = data.len().min(missing);
                    cursor.take(data.get(..length).unwrap_or_default());
                    length
                }
            };
            data = data.get(length..).unwrap_or_default();
        }
    }

    /// Takes the actions of faults at the present byte: how often the coming piece is sent, and which bits of its first byte are flipped.
    async fn reach_stops(&mut self, run: &mut Run<'_>) -> Result<(usize, u8), Stop> {
        let (mut copies, mut garbled) = (1, 0);
        while let Some(action) = self.next_stop() {
            self.settle(run);
            let edits = self.perform(vec![action], true).await?;
            copies = if edits.copies() == 0 || copies == 0 { 0 } else { copies.max(edits.copies()) };
            self.put_beside(&edits.inserted, run);
            garbled |= self.at_byte(edits.archive);
        }
        Ok((copies, garbled))
    }

    /// The same at the end of an archive or of the manifest, where no byte follows.
    pub(super) async fn last_stops(&mut self, run: &mut Run<'_>) -> Result<(), Stop> {
        while let Some(action) = self.next_stop() {
            self.settle(run);
            let edits = self.perform(vec![action], true).await?;
            self.put_beside(&edits.inserted, run);
        }
        Ok(())
    }

    /// What a fault does that waits at the present byte.
    fn next_stop(&mut self) -> Option<Action> {
        loop {
            let flow = &mut self.backup.flow;
            let stop = flow.stops.first().copied().filter(|stop| stop.at <= flow.offset)?;
            flow.stops.remove(0);
            let action = self.shared.plan(|plan| plan.reach(stop, &self.seat.identity()));
            if action.is_some() {
                return action;
            }
        }
    }

    /// Which bits of the present byte are flipped.
    fn at_byte(&mut self, actions: Vec<Action>) -> u8 {
        let mut garbled = 0;
        for action in actions {
            match action {
                Action::Garble(Garble { bits }) => garbled |= mask(bits),
                Action::Truncate(_) => self.backup.flow.cut = Some(self.backup.flow.offset),
                _ => {}
            }
        }
        garbled
    }

    /// Bytes that a fault adds: they do not count for the positions of faults.
    pub(super) fn put_beside(&mut self, bytes: &[u8], run: &mut Run<'_>) {
        if !bytes.is_empty() && self.backup.flow.is_open() {
            self.settle(run);
            self.put(self.data_head(), bytes);
        }
    }

    /// Puts data into the output, in messages of at most the size that a fault allows.
    pub(super) fn put(&mut self, head: &[u8], data: &[u8]) {
        for piece in data.chunks(self.piece.unwrap_or(MAX_PIECE).min(MAX_PIECE)) {
            self.record_data(piece.len());
            write_data(&mut self.outlet.output, head, piece);
            let after = self.held.split();
            self.outlet.output.extend_from_slice(&after);
        }
    }

    fn record_data(&self, bytes: usize) {
        self.record("CopyData", &self.backup.flow.member, bytes, true);
    }
}
