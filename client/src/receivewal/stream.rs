//! One stream of WAL: from START_REPLICATION to its end.

use std::future::ready;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::stream::WalMessage;
use backstop_protocol::wal_file::WalFileName;
use bytes::Bytes;
use tokio::time::Instant;

use super::receiver::{Receiver, asked};
use super::start::Owner;
use super::{Trouble, WalEvent};
use crate::connection::Connection;
use crate::error::ClientError;
use crate::mutation::Mutation;
use crate::wal_check::WalCheck;
use crate::wal_stream::{self, NextTimeline, Status};

impl Receiver<'_> {
    /// Streams one timeline from `position` on. Where it ends the next one is returned, and nothing if we ended the stream.
    pub(super) async fn stream(
        &mut self,
        connection: &mut Connection,
        owner: Owner,
        timeline: TimelineId,
    ) -> Result<Option<NextTimeline>, Trouble> {
        let slot = self.options.slot.as_deref();
        if let Some(next) = wal_stream::start(connection, slot, timeline, self.position).await? {
            return Ok(Some(next));
        }
        let Owner { version, system_identifier, segment_size } = owner;
        let mut check = WalCheck::streamed(version, system_identifier, segment_size, timeline, self.position);
        let mut asked_to_stop = false;
        self.next_status = (!self.options.status_interval.is_zero()).then(Instant::now);
        loop {
            if self.should_stop(timeline, false) {
                return self.end(connection, timeline).await.map(|()| None);
            }
            if self.next_status.is_some_and(|at| at <= Instant::now()) {
                self.status(connection).await?;
            }
            // Everything that has come already, before anything is forced to disk.
            let message = tokio::select! {
                biased;
                message = connection.receive() => Some(message),
                () = ready(()) => None,
            };
            let message = if let Some(message) = message {
                message
            } else {
                if self.options.synchronous && self.flushed < self.position && self.archive.is_open() {
                    self.flush()?;
                    self.status(connection).await?;
                }
                let mut stop = self.stop.clone();
                tokio::select! {
                    biased;
                    () = asked(&mut stop), if !asked_to_stop => {
                        asked_to_stop = true;
                        continue;
                    }
                    () = until(self.next_status) => continue,
                    message = connection.receive() => message,
                }
            };
            match message.map_err(unexpected_end)? {
                BackendMessage::CopyData(payload) => {
                    if self.payload(connection, owner, timeline, &mut check, payload).await? {
                        return self.end(connection, timeline).await.map(|()| None);
                    }
                }
                BackendMessage::CopyDone => {
                    self.leave()?;
                    wal_stream::send_copy_done(connection).await?;
                    return match wal_stream::after_copy_done(connection).await.map_err(unexpected_end)? {
                        BackendMessage::RowDescription(columns) => {
                            let columns = columns.len();
                            let next = wal_stream::next_timeline(connection, timeline, self.position, columns);
                            Ok(Some(next.await?))
                        }
                        _ => self.ended_by_server(timeline),
                    };
                }
                // A shutdown in good order: "COPY 0", and then nothing.
                BackendMessage::CommandComplete(_) => {
                    self.leave()?;
                    return self.ended_by_server(timeline);
                }
                other => return Err(connection.unexpected("CopyData or CopyDone", other.name()).into()),
            }
        }
    }

    fn ended_by_server(&mut self, timeline: TimelineId) -> Result<Option<NextTimeline>, Trouble> {
        if self.should_stop(timeline, false) { Ok(None) } else { Err(wal_stream::terminated().into()) }
    }

    /// Takes one streaming message, and returns whether that was the last that is wanted.
    async fn payload(
        &mut self,
        connection: &mut Connection,
        owner: Owner,
        timeline: TimelineId,
        check: &mut WalCheck,
        payload: Bytes,
    ) -> Result<bool, Trouble> {
        match wal_stream::decode(connection, payload)? {
            WalMessage::XLogData { start, data, .. } => self.write(owner, timeline, check, start, &data),
            WalMessage::Keepalive { reply_requested, .. } => {
                if reply_requested {
                    // At a shutdown the server waits until it hears that all is safe.
                    if self.reports_flushed() && self.flushed < self.position && self.archive.is_open() {
                        self.flush()?;
                    }
                    self.status(connection).await?;
                }
                Ok(false)
            }
        }
    }

    /// Writes WAL to its segments, and returns whether the end lies in what came.
    fn write(
        &mut self,
        owner: Owner,
        timeline: TimelineId,
        check: &mut WalCheck,
        start: Lsn,
        data: &Bytes,
    ) -> Result<bool, Trouble> {
        let size = owner.segment_size;
        if start != self.position && !self.weak(Mutation::AcceptsWalGaps) {
            return Err(
                ClientError::Incomplete(misplaced(start, self.position, size.bytes(), self.archive.is_open())).into()
            );
        }
        let mut rest = data.clone();
        while !rest.is_empty() {
            let room = size.bytes() - size.offset_of(self.position);
            let piece = rest.split_to(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if !self.weak(Mutation::AcceptsWalGaps) && !self.weak(Mutation::AcceptsWalGarbage) {
                check.push(timeline, self.position, &piece)?;
            }
            if !self.archive.is_open() {
                let file = WalFileName::holding(timeline, self.position, size);
                if let Some(event) = self.archive.begin(file, size)? {
                    self.tell(&event);
                }
            }
            self.archive.write(&piece)?;
            self.position = self.position.saturating_add(piece.len() as u64);
            if size.offset_of(self.position) == 0 {
                self.archive.complete()?;
                self.flushed = self.position;
                if self.should_stop(timeline, true) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.archive.flush()?;
        self.flushed = self.position;
        Ok(())
    }

    /// Leaves a segment that is not complete.
    fn leave(&mut self) -> Result<(), Trouble> {
        if let Some(file) = self.archive.leave()? {
            self.flushed = self.position;
            self.tell(&WalEvent::NotRenaming { file });
        }
        Ok(())
    }

    /// Whether the server hears what is safe: it can be waiting for that, as it does for a synchronous standby. So only with a
    /// slot, which keeps WAL until then, or if it was asked for.
    fn reports_flushed(&self) -> bool {
        self.options.slot.is_some() || self.options.synchronous
    }

    /// Tells the server where we are.
    async fn status(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        let interval = self.options.status_interval;
        self.next_status = (!interval.is_zero()).then(|| Instant::now() + interval);
        if self.weak(Mutation::SendsNoStatus) {
            return Ok(());
        }
        let status = Status {
            write: self.position,
            flush: if self.reports_flushed() { self.flushed } else { Lsn::INVALID },
            unix_micros: self.options.clock.unix_micros(),
            // Only with a deadline an answer is needed: it shows that the server is still there.
            reply_requested: self.options.deadlines.silence.is_some(),
        };
        wal_stream::send_status(connection, status).await
    }

    /// Ends the stream from our side. WAL that is still on its way is not wanted.
    async fn end(&mut self, connection: &mut Connection, timeline: TimelineId) -> Result<(), Trouble> {
        self.leave()?;
        wal_stream::send_copy_done(connection).await?;
        loop {
            match connection.receive().await.map_err(unexpected_end)? {
                BackendMessage::CopyData(_) => {}
                BackendMessage::CopyDone => break,
                // It ended the stream, too.
                BackendMessage::CommandComplete(_) => return Ok(()),
                other => return Err(connection.unexpected("CopyDone", other.name()).into()),
            }
        }
        match wal_stream::after_copy_done(connection).await.map_err(unexpected_end)? {
            BackendMessage::RowDescription(columns) => {
                let next = wal_stream::next_timeline(connection, timeline, self.position, columns.len());
                next.await.map(drop).map_err(Trouble::from)
            }
            BackendMessage::CommandComplete(_) => Ok(()),
            other => Err(connection.unexpected("CommandComplete", other.name()).into()),
        }
    }
}

/// What is wrong with WAL at `got` where it should be at `expected`.
fn misplaced(got: Lsn, expected: Lsn, segment_size: u64, open: bool) -> String {
    let (offset, wanted) = (got.0 % segment_size, expected.0 % segment_size);
    if offset == wanted {
        format!("got WAL data at {got}, expected {expected}")
    } else if open {
        format!("got WAL data offset {offset:08x}, expected {wanted:08x}")
    } else {
        format!("received write-ahead log record for offset {offset} with no file open")
    }
}

/// An error that the server reports in the middle of a stream.
fn unexpected_end(error: ClientError) -> ClientError {
    match error {
        ClientError::Server { diagnostic, .. } => {
            ClientError::Server { doing: "unexpected termination of replication stream".to_owned(), diagnostic }
        }
        other => other,
    }
}

/// Sleeps until `deadline`, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misplaced_wal_is_told_as_pg_receivewal_does_where_it_sees_it() {
        let told = |got, expected, open| misplaced(Lsn(got), Lsn(expected), 1 << 20, open);
        insta::assert_snapshot!(told(0x30_0028, 0x30_0000, true), @r#"got WAL data offset 00000028, expected 00000000"#);
        insta::assert_snapshot!(told(0x30_0028, 0x30_0000, false), @r#"received write-ahead log record for offset 40 with no file open"#);
        insta::assert_snapshot!(told(0x40_0000, 0x30_0000, false), @r#"got WAL data at 0/400000, expected 0/300000"#);
    }
}
