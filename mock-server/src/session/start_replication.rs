//! START_REPLICATION.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::command::{StartKind, StartReplication};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::stream::{StandbyMessage, WalMessage};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::faults::sleep_until;
use super::output::{INT8, TEXT, column, row, value, write_data};
use super::wire::Received;
use super::{Ending, Session, Stop, canceled};
use crate::cluster::{WalReadError, parse_span};
use crate::fault::wire::Garble;
use crate::fault::{Action, Moment, Stop as FaultStop};
use crate::phase::Phase;

/// `MAX_SEND_SIZE`: 16 pages of WAL in one message.
const MAX_SEND_SIZE: u64 = 128 << 10;

/// `XLOG_BLCKSZ`.
const PAGE: u64 = 8192;

/// `MAX_COMMAND` is for queries; what a standby sends is small.
const MAX_REPLY: usize = 64 << 10;

/// A stream of WAL.
#[derive(Debug)]
struct Streaming {
    slot: Option<String>,
    timeline: TimelineId,
    /// Everything before it was sent.
    sent: Lsn,
    /// Where the timeline ended, if it is not the current one.
    end: Option<Lsn>,
    /// What the client reported last.
    write: Lsn,
    flush: Lsn,
    /// CopyDone was sent, and received.
    done_sending: bool,
    done_receiving: bool,
    /// When the client was last heard, and whether it was asked for an answer since.
    last_reply: Instant,
    waiting_for_reply: bool,
    /// `wal_sender_timeout`.
    timeout: Option<Duration>,
    /// During a shutdown: when the postmaster tells that the shutdown checkpoint is written (SIGUSR2).
    finish_at: Option<Instant>,
    /// Positions of faults, ascending.
    stops: Vec<FaultStop>,
}

impl Session {
    /// Streams WAL until either side ends the COPY.
    pub(super) async fn start_replication(&mut self, start: StartReplication) -> Result<(), Stop> {
        let StartKind::Physical { timeline } = start.kind else {
            return Err(self.start_logical(start.slot.as_deref().unwrap_or_default()));
        };
        if let Some(slot) = &start.slot
            && self.shared.cluster.acquire_slot(slot, self.seat.pid)?.logical.is_some()
        {
            self.shared.cluster.release_slot(slot, self.seat.pid);
            let message = "cannot use a logical replication slot for physical replication";
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
        }
        let streamed = self.stream(start.slot.clone(), timeline, start.start).await;
        self.shared.note_streaming(&self.seat, false);
        if let Some(slot) = &start.slot {
            self.shared.cluster.release_slot(slot, self.seat.pid);
        }
        let next = streamed?;
        // `got_STOPPING`: the stream was all that kept the process.
        if self.shared.life.borrow().phase.stops_walsenders() {
            return Err(Ending::Close.into());
        }
        if let Some((timeline, position)) = next {
            let columns = vec![column("next_tli", INT8, -1), column("next_tli_startpos", TEXT, -1)];
            self.rows(columns, vec![row([value(timeline), value(position)])]).await?;
        }
        self.complete("START_STREAMING").await
    }

    /// The stream itself. If its timeline has ended, the next one and where that begins.
    async fn stream(
        &mut self,
        slot: Option<String>,
        timeline: Option<TimelineId>,
        start: Lsn,
    ) -> Result<Option<(TimelineId, Lsn)>, Stop> {
        let internal = |message: String| Diagnostic::error(SqlState::INTERNAL_ERROR, message);
        let timeline = timeline.unwrap_or_else(|| self.shared.cluster.timeline());
        let end = self.end_of_timeline(timeline)?;
        if let Some(end) = end.filter(|end| *end < start) {
            let message =
                format!("requested starting point {start} on timeline {timeline} is not in this server's history");
            let detail = format!("This server's history forked from timeline {timeline} at {end}.");
            return Err(internal(message).with_detail(detail).into());
        }
        if end == Some(start) {
            return Ok(self.next_timeline(timeline));
        }
        self.emit(Moment::WalBegin, vec![BackendMessage::CopyBothResponse]).await?;
        let flushed = self.shared.cluster.flush_position();
        if start > flushed {
            let message =
                format!("requested starting point {start} is ahead of the WAL flush position of this server {flushed}");
            return Err(internal(message).into());
        }
        self.shared.note_streaming(&self.seat, true);
        let mut streaming = Streaming {
            slot,
            timeline,
            sent: start,
            end,
            write: Lsn::INVALID,
            flush: Lsn::INVALID,
            done_sending: false,
            done_receiving: false,
            last_reply: Instant::now(),
            waiting_for_reply: false,
            timeout: self.wal_sender_timeout(),
            finish_at: None,
            stops: self.shared.plan(|plan| plan.stops_in_wal(start, &self.seat.identity())),
        };
        let streamed = self.stream_until_done(&mut streaming).await;
        self.patience = None;
        streamed?;
        Ok(streaming.end.and_then(|_| self.next_timeline(timeline)))
    }

    /// Where `timeline` ended, unless it is the current one.
    fn end_of_timeline(&self, timeline: TimelineId) -> Result<Option<Lsn>, Diagnostic> {
        let current = self.shared.cluster.timeline();
        if timeline == current {
            return Ok(None);
        }
        let history = self.shared.cluster.history(current).unwrap_or_default();
        history.end_of(timeline).map(Some).ok_or_else(|| {
            let message = format!("requested timeline {timeline} is not in this server's history");
            Diagnostic::error(SqlState::INTERNAL_ERROR, message)
        })
    }

    fn next_timeline(&self, timeline: TimelineId) -> Option<(TimelineId, Lsn)> {
        let current = self.shared.cluster.timeline();
        let history = self.shared.cluster.history(current)?;
        Some((history.child_of(timeline, current)?, history.end_of(timeline)?))
    }

    async fn stream_until_done(&mut self, streaming: &mut Streaming) -> Result<(), Stop> {
        let mut life = self.shared.life.subscribe();
        while !(streaming.done_sending && streaming.done_receiving) {
            // What the client has said already comes first, as in `ProcessRepliesIfAny`.
            while !streaming.done_receiving
                && let Some(received) = self.poll_received()
            {
                self.reply(streaming, received).await?;
            }
            if streaming.done_sending && streaming.done_receiving {
                break;
            }
            // One that does not even read cannot answer.
            self.patience = streaming.timeout.and_then(|timeout| streaming.last_reply.checked_add(timeout));
            if streaming.end.is_none() {
                streaming.end = self.end_of_timeline(streaming.timeline)?;
            }
            let limit = streaming.end.unwrap_or_else(|| self.shared.cluster.flush_position());
            if !streaming.done_sending && streaming.sent < limit {
                self.send_wal(streaming, limit).await?;
                continue;
            }
            if !streaming.done_sending && streaming.end.is_some() {
                self.send(BackendMessage::CopyDone).await?;
                streaming.done_sending = true;
                continue;
            }
            if life.borrow_and_update().phase == Phase::EndingStreams {
                self.finish_for_shutdown(streaming).await?;
            }
            self.flush().await?;
            let (cluster, seat) = (self.shared.cluster.clone(), self.seat.clone());
            let grows = async {
                if streaming.done_sending {
                    std::future::pending().await
                } else {
                    cluster.flushed_beyond(streaming.sent).await
                }
            };
            let deadline = streaming.deadline();
            tokio::select! {
                biased;
                () = seat.cancel.notified() => return Err(canceled()),
                received = self.wire.read(MAX_REPLY) => self.reply(streaming, received).await?,
                _ = grows => {}
                () = sleep_until(deadline) => self.check_timeout(streaming).await?,
                _ = life.changed() => {}
            }
        }
        Ok(())
    }

    /// A message that has arrived already, if there is one.
    fn poll_received(&mut self) -> Option<Received> {
        match pin!(self.wire.read(MAX_REPLY)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(received) => Some(received),
            Poll::Pending => None,
        }
    }

    /// One XLogData.
    async fn send_wal(&mut self, streaming: &mut Streaming, limit: Lsn) -> Result<(), Stop> {
        let start = streaming.sent;
        let mut copies = 1;
        let mut garbled = 0_u8;
        while let Some(stop) = streaming.stops.first().copied().filter(|stop| stop.at <= start.0) {
            streaming.stops.remove(0);
            let action = self.shared.plan(|plan| plan.reach(stop, &self.seat.identity()));
            let edits = self.perform(action.into_iter().collect(), false, &[]).await?;
            copies = if edits.dropped { 0 } else { copies.max(edits.copies()) };
            for action in edits.archive {
                if let Action::Garble(Garble { bits }) = action {
                    garbled |= mask(bits);
                }
            }
        }
        let segment_size = self.shared.cluster.segment_size();
        let segment_end = segment_size.start_of(segment_size.segment_of(start) + 1);
        let mut end = start.saturating_add(MAX_SEND_SIZE);
        end = if limit <= end { limit } else { end.align_down(PAGE) };
        end = end.min(segment_end);
        if let Some(stop) = streaming.stops.first() {
            end = end.min(Lsn(stop.at));
        }
        if let Some(piece) = self.piece {
            end = end.min(start.saturating_add(piece as u64));
        }
        let mut data = vec![0; usize::try_from(end.0.saturating_sub(start.0)).unwrap_or_default()];
        self.shared.cluster.read_wal(streaming.timeline, start, &mut data).map_err(|error| wal_error(&error))?;
        if let Some(byte) = data.first_mut() {
            *byte ^= garbled;
        }
        let mut head = BytesMut::new();
        let sent_at = self.shared.clock.timestamp();
        WalMessage::XLogData { start, wal_end: limit, sent_at, data: Bytes::new() }.encode(&mut head);
        let what = format!("w timeline {}", streaming.timeline);
        for _ in 0..copies {
            self.send_data(&head, &data, &what).await?;
        }
        self.seat.count(|carried| carried.streamed(start, end));
        streaming.sent = end;
        Ok(())
    }

    /// What the client says during the COPY.
    async fn reply(&mut self, streaming: &mut Streaming, received: Received) -> Result<(), Stop> {
        let message = self.heard(received)?;
        streaming.last_reply = Instant::now();
        streaming.waiting_for_reply = false;
        match message {
            FrontendMessage::CopyData(payload) => match StandbyMessage::decode(payload) {
                Ok(StandbyMessage::StatusUpdate { write, flush, reply_requested, .. }) => {
                    if self.at(Moment::StatusUpdate).await?.dropped {
                        return Ok(());
                    }
                    (streaming.write, streaming.flush) = (write, flush);
                    let sent = streaming.sent;
                    self.seat.count(|carried| carried.confirmed(flush, sent));
                    if let Some(slot) = &streaming.slot
                        && !flush.is_invalid()
                    {
                        self.shared.cluster.confirm_flush(slot, flush);
                    }
                    if reply_requested { self.keepalive(streaming, false).await } else { Ok(()) }
                }
                Ok(StandbyMessage::HotStandbyFeedback { .. }) => Ok(()),
                // The reason goes to the server's log only.
                Err(_) => Err(Ending::Close.into()),
            },
            FrontendMessage::CopyDone => {
                if !streaming.done_sending {
                    self.send(BackendMessage::CopyDone).await?;
                    streaming.done_sending = true;
                }
                streaming.done_receiving = true;
                Ok(())
            }
            FrontendMessage::Terminate => Err(Ending::Terminated.into()),
            other => {
                let message = format!("invalid standby message type \"{}\"", char::from(other.tag()));
                Err(Ending::Fatal(Diagnostic::fatal(SqlState::PROTOCOL_VIOLATION, message)).into())
            }
        }
    }

    async fn keepalive(&mut self, streaming: &Streaming, reply_requested: bool) -> Result<(), Stop> {
        let edits = self.at(Moment::Keepalive).await?;
        let sent_at = self.shared.clock.timestamp();
        let message = WalMessage::Keepalive { wal_end: streaming.sent, sent_at, reply_requested };
        let mut payload = BytesMut::new();
        message.encode(&mut payload);
        let what = if reply_requested { ", reply requested" } else { "" };
        let what = format!("k {}{what}", streaming.sent);
        for _ in 0..edits.copies() {
            self.put("CopyData", &what, 0, false, |out| write_data(out, &payload, &[])).await?;
        }
        Ok(())
    }

    /// `WalSndDone`: everything was sent; the session ends when the client has confirmed it.
    async fn finish_for_shutdown(&mut self, streaming: &mut Streaming) -> Result<(), Stop> {
        let (now, delay) = (Instant::now(), self.version.shutdown_signal_delay());
        if *streaming.finish_at.get_or_insert(now + delay) > now {
            return Ok(());
        }
        let confirmed = if streaming.flush.is_invalid() { streaming.write } else { streaming.flush };
        if confirmed == streaming.sent {
            self.complete("COPY 0").await?;
            return Err(Ending::Close.into());
        }
        if !streaming.waiting_for_reply {
            streaming.waiting_for_reply = true;
            self.keepalive(streaming, true).await?;
        }
        Ok(())
    }

    /// Asks a silent client for an answer, and gives up on one that stays silent.
    async fn check_timeout(&mut self, streaming: &mut Streaming) -> Result<(), Stop> {
        let Some(timeout) = streaming.timeout else { return Ok(()) };
        let silence = streaming.last_reply.elapsed();
        if silence >= timeout {
            return Err(Ending::Close.into());
        }
        if silence < timeout / 2 || streaming.waiting_for_reply {
            return Ok(());
        }
        streaming.waiting_for_reply = true;
        self.keepalive(streaming, true).await
    }

    /// `wal_sender_timeout`: the session's, or the server's. None: for ever.
    fn wal_sender_timeout(&self) -> Option<Duration> {
        let name = "wal_sender_timeout";
        let setting = self.settings.get(name).cloned();
        let setting = setting.or_else(|| self.shared.cluster.show(name).map(|(_, value)| value));
        let timeout = parse_span(setting.as_deref().unwrap_or("60s"), 1).unwrap_or(Duration::from_secs(60));
        (!timeout.is_zero()).then_some(timeout)
    }
}

impl Streaming {
    /// When the client's silence matters next, or the end of a shutdown.
    fn deadline(&self) -> Option<Instant> {
        let silence = self.timeout.and_then(|timeout| {
            self.last_reply.checked_add(if self.waiting_for_reply { timeout } else { timeout / 2 })
        });
        let finish = self.finish_at.filter(|finish| *finish > Instant::now());
        silence.into_iter().chain(finish).min()
    }
}

/// What a server says that cannot read WAL.
pub(super) fn wal_error(error: &WalReadError) -> Diagnostic {
    let code = match error {
        WalReadError::Removed(_) => SqlState::UNDEFINED_FILE,
        WalReadError::NotThere => SqlState::INTERNAL_ERROR,
        WalReadError::Io(_) => SqlState::IO_ERROR,
    };
    Diagnostic::error(code, error.to_string())
}

/// The lowest bits of a byte.
pub(crate) fn mask(bits: u8) -> u8 {
    u8::try_from((1_u16 << bits.min(8)) - 1).unwrap_or(u8::MAX)
}
