//! Streamed WAL.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::stream::WalMessage;
use bytes::Bytes;

use super::perform::Edits;
use super::{Downward, Fate, Run};
use crate::fault::wire::Garble;
use crate::fault::{Action, Moment, Stop as FaultStop};
use crate::proxy::session::Stop;
use crate::session::output::write_data;
use crate::session::start_replication::mask;

/// What stands before the bytes in XLogData: its kind, the position of the first byte, the server's position, its clock.
const HEAD: usize = 25;

/// How far START_REPLICATION's answer has come.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    /// The positions at which faults may strike, ascending, once WAL has come.
    stops: Option<Vec<FaultStop>>,
}

impl Downward {
    /// A message of the stream: XLogData or a keepalive.
    pub(super) async fn wal_message(
        &mut self,
        payload: &[u8],
        frame: &[u8],
        timeline: Option<TimelineId>,
        edits: Edits,
        run: &mut Run<'_>,
    ) -> Result<Fate, Stop> {
        let what = timeline.map_or_else(|| "w".to_owned(), |timeline| format!("w timeline {timeline}"));
        let start =
            payload.get(1..9).and_then(|start| start.first_chunk()).map(|start| Lsn(u64::from_be_bytes(*start)));
        if let (Some(b'w'), Some(start), Some((head, data))) = (payload.first(), start, payload.split_at_checked(HEAD))
        {
            return self.wal_data(head, start, data, frame, &what, edits, run).await;
        }
        let (detail, edits) = match WalMessage::decode(Bytes::copy_from_slice(payload)) {
            Ok(WalMessage::Keepalive { wal_end, reply_requested, .. }) => {
                let asks = if reply_requested { ", reply requested" } else { "" };
                (format!("k {wal_end}{asks}"), edits.and(self.at_in(Moment::Keepalive, run).await?))
            }
            _ => (String::new(), edits),
        };
        for _ in 0..edits.copies() {
            self.record("CopyData", &detail, if detail.is_empty() { payload.len() } else { 0 }, detail.is_empty());
        }
        self.emit(frame, &edits, run).await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    async fn wal_data(
        &mut self,
        head: &[u8],
        start: Lsn,
        data: &[u8],
        frame: &[u8],
        what: &str,
        edits: Edits,
        run: &mut Run<'_>,
    ) -> Result<Fate, Stop> {
        if self.streaming.stops.is_none() {
            let who = self.seat.identity();
            self.streaming.stops = Some(self.shared.plan(|plan| plan.stops_in_wal(start, &who)));
        }
        let end = start.saturating_add(data.len() as u64);
        let struck = self.streaming.stops.iter().flatten().any(|stop| stop.at < end.0);
        let fits = self.piece.is_none_or(|most| data.len() <= most);
        if edits.copies() != 1 || edits.swapped || (!struck && fits) {
            for _ in 0..edits.copies() {
                self.record("CopyData", what, data.len(), true);
            }
            return self.emit(frame, &edits, run).await;
        }
        self.settle(run);
        let (mut at, mut rest) = (start, data);
        while !rest.is_empty() {
            let (copies, garbled) = self.wal_faults(at).await?;
            let next = self.streaming.stops.iter().flatten().map(|stop| stop.at).find(|stop| *stop > at.0);
            let left = next.map_or(u64::MAX, |next| next - at.0);
            let length =
                usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()).min(self.piece.unwrap_or(usize::MAX));
            let (piece, later) = rest.split_at(length);
            let mut own = head.to_vec();
            own.splice(1..9, at.0.to_be_bytes());
            let mut piece = piece.to_vec();
            if let Some(byte) = piece.first_mut() {
                *byte ^= garbled;
            }
            for _ in 0..copies {
                self.record("CopyData", what, piece.len(), true);
                let mut message = bytes::BytesMut::new();
                write_data(&mut message, &own, &piece);
                self.put_frame(&message, false).await?;
            }
            at = at.saturating_add(length as u64);
            rest = later;
        }
        Ok(Fate::Replaced)
    }

    /// Takes the actions of faults at a position: how often what comes is sent, and which bits of its first byte are flipped.
    async fn wal_faults(&mut self, at: Lsn) -> Result<(usize, u8), Stop> {
        let (mut copies, mut garbled) = (1, 0);
        while let Some(stop) = self.streaming.stops.as_mut().and_then(|stops| {
            let due = stops.first().is_some_and(|stop| stop.at <= at.0);
            due.then(|| stops.remove(0))
        }) {
            let action = self.shared.plan(|plan| plan.reach(stop, &self.seat.identity()));
            let edits = self.perform(action.into_iter().collect(), false).await?;
            copies = if edits.copies() == 0 { 0 } else { copies.max(edits.copies()) };
            for action in edits.archive {
                if let Action::Garble(Garble { bits }) = action {
                    garbled |= mask(bits);
                }
            }
        }
        Ok((copies, garbled))
    }
}
