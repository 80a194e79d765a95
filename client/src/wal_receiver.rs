//! WAL over a second connection while the backup runs (`-X stream`).

use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::command::{Command, CommandOption, CreateSlot, SlotKind};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::WalMessage;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::mutation::Mutation;
use crate::observer::{Observer, Phase};
use crate::options::{BackupOptions, SlotOption};
use crate::receive::Position;
use crate::session;
use crate::sink::WalFiles;
use crate::slot::Creation;
use crate::wal_check::WalCheck;
use crate::wal_stream::{self, NextTimeline, Status};

/// A status interval that does not end: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// What the receiver works with.
pub(crate) struct WalReceiver<'a> {
    pub(crate) connector: &'a dyn Connector,
    pub(crate) options: &'a BackupOptions,
    pub(crate) observer: Arc<dyn Observer>,
    /// What the connection of the backup said: the same server must be on this one.
    pub(crate) system_identifier: u64,
    pub(crate) version: ServerVersion,
    pub(crate) segment_size: WalSegmentSize,
    /// Where the backup starts.
    pub(crate) start: Position,
    pub(crate) files: &'a mut dyn WalFiles,
    pub(crate) check: WalCheck,
    /// Told of the permanent slot that is created.
    pub(crate) creation: &'a Creation,
    /// Where the backup ends, once that is known.
    pub(crate) end: watch::Receiver<Option<Position>>,
}

/// How a timeline's stream ended.
enum Ended {
    /// Everything is there.
    Complete,
    /// The server went on with another timeline.
    NextTimeline(NextTimeline),
}

/// Positions within the current stream.
struct Stream {
    timeline: TimelineId,
    /// Received and written up to here.
    position: Lsn,
    /// Safe on disk up to here.
    flushed: Lsn,
    /// Whether the current segment has a file.
    open: bool,
    slot: bool,
}

impl WalReceiver<'_> {
    /// Whether this client is wrong in this way.
    fn weak(&self, mutation: Mutation) -> bool {
        self.options.weakness.is(mutation)
    }

    /// Whether this client reads the WAL that it stores.
    fn reads_wal(&self) -> bool {
        ![Mutation::AcceptsWalGaps, Mutation::AcceptsWalGarbage].into_iter().any(|mutation| self.weak(mutation))
    }

    /// Receives WAL until the end position is reached, and returns having checked that all of it is there.
    pub(crate) async fn run(self) -> Result<(), ClientError> {
        let late = overdue(self.end.clone(), self.options.deadlines.wal_end);
        let observer = Arc::clone(&self.observer);
        // The order is fixed so that a run on a paused clock is always the same.
        tokio::select! {
            biased;
            received = self.receive() => received,
            () = late => {
                observer.phase(&Phase::WalReceiverFailed);
                Err(ClientError::Timeout { phase: Phase::WaitingForWal })
            }
        }
    }

    async fn receive(mut self) -> Result<(), ClientError> {
        self.observer.phase(&Phase::StartingWalReceiver);
        let (options, observer) = (self.options, Arc::clone(&self.observer));
        let (login, limit) = (&options.login, options.deadlines.connect);
        let opening = Connection::open(self.connector, Purpose::Wal, login, limit, options.weakness, observer);
        let mut connection = opening.await?;
        connection.set_patience(self.options.deadlines.wal_silence, Phase::WaitingForWal);
        if connection.version() != self.version {
            let text = "server versions differ between base backup and streaming connections";
            return Err(ClientError::Incomplete(text.to_owned()));
        }
        session::group_access(&mut connection).await?;
        let slot = self.slot(&mut connection).await?;
        let system = session::identify(&mut connection).await?;
        if system.identifier != self.system_identifier {
            let text = "system identifier does not match between base backup and streaming connections";
            return Err(ClientError::Incomplete(text.to_owned()));
        }
        if system.timeline < self.start.timeline {
            let text = format!("starting timeline {} is not present in the server", self.start.timeline);
            return Err(ClientError::Incomplete(text));
        }

        let (mut timeline, mut position) = (self.start.timeline, self.segment_size.round_down(self.start.lsn));
        loop {
            if timeline > TimelineId::FIRST {
                self.history(&mut connection, timeline).await?;
            }
            let stream = Stream {
                timeline,
                position,
                flushed: if slot.is_some() { position } else { Lsn::INVALID },
                open: false,
                slot: slot.is_some(),
            };
            let ended = self.stream(&mut connection, stream, slot.as_deref()).await;
            if ended.is_err() {
                self.observer.phase(&Phase::WalReceiverFailed);
            }
            match ended? {
                Ended::Complete => break,
                Ended::NextTimeline(NextTimeline { timeline: next, start }) => {
                    timeline = next;
                    position = self.segment_size.round_down(start);
                    if self.reads_wal() {
                        self.check.switch(next, start)?;
                    }
                }
            }
        }
        connection.terminate().await;
        let end = *self.end.borrow();
        let end = end.ok_or_else(|| ClientError::Incomplete("no end position".to_owned()))?;
        if !self.reads_wal() || self.weak(Mutation::IgnoresEndPosition) {
            return Ok(());
        }
        self.check.covers(end.lsn)
    }

    /// Makes the slot, if one is to be made, and returns the name of the one to use.
    async fn slot(&self, connection: &mut Connection) -> Result<Option<String>, ClientError> {
        let (slot, create, temporary) = match &self.options.slot {
            SlotOption::None => return Ok(None),
            SlotOption::Temporary if !self.version.has_temporary_slots() => return Ok(None),
            SlotOption::Temporary => {
                (format!("pg_basebackup_{}", connection.pid().cast_unsigned()), true, !self.weak(Mutation::LeaksSlot))
            }
            SlotOption::Named { name, create } => (name.clone(), *create, false),
        };
        if create {
            let options = vec![CommandOption::flag("reserve_wal")];
            let create = CreateSlot { slot: slot.clone(), temporary, kind: SlotKind::Physical, options };
            let command = Command::CreateReplicationSlot(create).to_sql(self.version);
            if temporary {
                connection.command(&command).await?;
            } else {
                self.creation.ask();
                let answer = connection.command(&command).await;
                self.creation.answer(answer.is_ok().then(|| slot.clone()));
                answer?;
            }
            self.observer.phase(&Phase::CreatedSlot { name: slot.clone(), temporary });
        }
        Ok(Some(slot))
    }

    /// Fetches the history file of `timeline`.
    async fn history(&mut self, connection: &mut Connection, timeline: TimelineId) -> Result<(), ClientError> {
        let content = wal_stream::history(connection, timeline).await?;
        self.files.history(&timeline.history_file_name(), &content, self.options.sync)
    }

    /// Streams one timeline.
    async fn stream(
        &mut self,
        connection: &mut Connection,
        mut stream: Stream,
        slot: Option<&str>,
    ) -> Result<Ended, ClientError> {
        if let Some(next) = wal_stream::start(connection, slot, stream.timeline, stream.position).await? {
            return Ok(Ended::NextTimeline(next));
        }
        self.status(connection, &stream).await?;

        let interval = self.options.status_interval;
        let mut ticks = tokio::time::interval(if interval.is_zero() { NEVER } else { interval });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let end = *self.end.borrow_and_update();
            if let Some(end) = end
                && (stream.position >= end.lsn || self.weak(Mutation::IgnoresEndPosition))
            {
                self.close_segment(&mut stream, false)?;
                return stop(connection).await;
            }
            // The order is fixed so that a run on a paused clock is always the same.
            let message = tokio::select! {
                biased;
                changed = self.end.changed(), if end.is_none() => match changed {
                    Ok(()) => continue,
                    // The other connection failed, and tells why itself.
                    Err(_) => return Err(ClientError::Incomplete("the backup ended without an end position".to_owned())),
                },
                _ = ticks.tick() => {
                    self.status(connection, &stream).await?;
                    continue;
                }
                message = connection.receive() => message?,
            };
            match message {
                BackendMessage::CopyData(payload) => self.payload(connection, &mut stream, payload).await?,
                BackendMessage::CopyDone => {
                    self.close_segment(&mut stream, false)?;
                    wal_stream::send_copy_done(connection).await?;
                    return match wal_stream::after_copy_done(connection).await? {
                        BackendMessage::RowDescription(columns) => {
                            let (timeline, position) = (stream.timeline, stream.position);
                            let next = wal_stream::next_timeline(connection, timeline, position, columns.len());
                            next.await.map(Ended::NextTimeline)
                        }
                        _ => Err(wal_stream::terminated()),
                    };
                }
                // Shutdown: "COPY 0", and then nothing.
                BackendMessage::CommandComplete(_) => return Err(wal_stream::terminated()),
                other => return Err(connection.unexpected("CopyData or CopyDone", other.name())),
            }
        }
    }

    /// Takes one streaming message.
    async fn payload(
        &mut self,
        connection: &mut Connection,
        stream: &mut Stream,
        payload: Bytes,
    ) -> Result<(), ClientError> {
        match wal_stream::decode(connection, payload)? {
            WalMessage::XLogData { start, data, .. } => self.write(stream, start, &data),
            WalMessage::Keepalive { reply_requested, .. } => {
                if reply_requested {
                    self.status(connection, stream).await
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes WAL to its segments.
    fn write(&mut self, stream: &mut Stream, start: Lsn, data: &Bytes) -> Result<(), ClientError> {
        if start != stream.position && !self.weak(Mutation::AcceptsWalGaps) {
            let problem = format!("got WAL data at {start}, expected {}", stream.position);
            return Err(ClientError::Wal { at: start, problem });
        }
        let mut rest = data.clone();
        while !rest.is_empty() {
            let size = self.segment_size;
            let room = size.bytes() - size.offset_of(stream.position);
            let piece = rest.split_to(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if self.reads_wal() {
                self.check.push(stream.timeline, stream.position, &piece)?;
            }
            if !stream.open {
                let name = WalFileName::holding(stream.timeline, stream.position, size);
                self.files.begin(&name.to_string(), size.bytes())?;
                stream.open = true;
            }
            self.files.write(&piece)?;
            stream.position = stream.position.saturating_add(piece.len() as u64);
            if size.offset_of(stream.position) == 0 {
                self.close_segment(stream, true)?;
            }
        }
        Ok(())
    }

    /// Ends the file of the current segment.
    fn close_segment(&mut self, stream: &mut Stream, complete: bool) -> Result<(), ClientError> {
        if !std::mem::take(&mut stream.open) {
            return Ok(());
        }
        self.files.end(complete, self.options.sync)?;
        // Without a slot nobody keeps WAL for us, so that nobody needs to know.
        if complete && stream.slot {
            stream.flushed = stream.position;
        }
        Ok(())
    }

    /// Tells the server where we are.
    async fn status(&self, connection: &mut Connection, stream: &Stream) -> Result<(), ClientError> {
        if self.weak(Mutation::SendsNoStatus) {
            return Ok(());
        }
        let flush = if self.weak(Mutation::ConfirmsTooMuch) && stream.slot {
            stream.position.align_up(self.segment_size.bytes())
        } else {
            stream.flushed
        };
        let status = Status {
            write: stream.position,
            flush,
            unix_micros: self.options.clock.unix_micros(),
            // Only with a deadline an answer is needed: it shows that the server is still there.
            reply_requested: self.options.deadlines.wal_silence.is_some(),
        };
        wal_stream::send_status(connection, status).await
    }
}

/// Ends the stream from our side. WAL that is still on its way is not needed.
async fn stop(connection: &mut Connection) -> Result<Ended, ClientError> {
    wal_stream::send_copy_done(connection).await?;
    loop {
        match connection.receive().await? {
            BackendMessage::CopyData(_) => {}
            BackendMessage::CopyDone => break,
            other => return Err(connection.unexpected("CopyDone", other.name())),
        }
    }
    wal_stream::finish_command(connection).await?;
    Ok(Ended::Complete)
}

/// Waits until the end position is known, and then for as long as WAL may take to get there.
async fn overdue(mut end: watch::Receiver<Option<Position>>, limit: Option<Duration>) {
    let known = end.wait_for(Option::is_some).await.is_ok();
    match limit.filter(|_| known) {
        Some(limit) => tokio::time::sleep(limit).await,
        // Without an end position there is another error, which ends this.
        None => std::future::pending().await,
    }
}
