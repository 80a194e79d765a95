//! The payloads of CopyData while WAL is streamed, as they are since 9.3.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode::{Fields, MessageError};
use crate::lsn::Lsn;

/// `TimestampTz`: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Microseconds from the Unix epoch to PostgreSQL's.
    const EPOCH: i64 = 946_684_800 * 1_000_000;

    /// From microseconds since 1970-01-01 UTC.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(Self::EPOCH))
    }

    /// Microseconds since 1970-01-01 UTC.
    pub fn to_unix_micros(self) -> i64 {
        self.0.saturating_add(Self::EPOCH)
    }
}

/// What a walsender sends after CopyBothResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalMessage {
    /// XLogData, `w`. At most 128 KiB, not across the end of a segment.
    XLogData {
        /// The position of the first byte of `data`.
        start: Lsn,
        /// The end of flushed WAL that the server knew of.
        wal_end: Lsn,
        /// The server's clock.
        sent_at: PgTimestamp,
        /// Bytes of WAL.
        data: Bytes,
    },
    /// Primary keepalive message, `k`.
    Keepalive {
        /// The end of WAL on the server.
        wal_end: Lsn,
        /// The server's clock.
        sent_at: PgTimestamp,
        /// Whether the server drops the connection if no answer comes soon.
        reply_requested: bool,
    },
}

impl WalMessage {
    /// Decodes the payload of a CopyData from a walsender.
    pub fn decode(payload: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("WAL stream", payload);
        match fields.u8()? {
            b'w' => Ok(Self::XLogData {
                start: Lsn(fields.u64()?),
                wal_end: Lsn(fields.u64()?),
                sent_at: PgTimestamp(fields.i64()?),
                data: fields.remainder(),
            }),
            b'k' => {
                let wal_end = Lsn(fields.u64()?);
                let sent_at = PgTimestamp(fields.i64()?);
                let reply_requested = fields.u8()? != 0;
                fields.end().map(|()| Self::Keepalive { wal_end, sent_at, reply_requested })
            }
            _ => Err(fields.error("unrecognized streaming header")),
        }
    }

    /// Appends the payload of a CopyData.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::XLogData { start, wal_end, sent_at, data } => {
                out.put_u8(b'w');
                out.put_u64(start.0);
                out.put_u64(wal_end.0);
                out.put_i64(sent_at.0);
                out.put_slice(data);
            }
            Self::Keepalive { wal_end, sent_at, reply_requested } => {
                out.put_u8(b'k');
                out.put_u64(wal_end.0);
                out.put_i64(sent_at.0);
                out.put_u8(u8::from(*reply_requested));
            }
        }
    }
}

/// What a client sends after CopyBothResponse. Positions are those of the last byte plus one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandbyMessage {
    /// Standby status update, `r`.
    StatusUpdate {
        /// Received and written.
        write: Lsn,
        /// Safe on disk; a slot's `restart_lsn` follows it.
        flush: Lsn,
        /// Replayed; 0/0 from clients that do not replay.
        apply: Lsn,
        /// The client's clock.
        sent_at: PgTimestamp,
        /// Whether the server shall answer at once.
        reply_requested: bool,
    },
    /// Hot standby feedback message, `h`.
    HotStandbyFeedback {
        /// The client's clock.
        sent_at: PgTimestamp,
        /// The oldest transaction that the standby needs, 0 for none, and its epoch.
        xmin: (u32, u32),
        /// The same for catalogs (since 10).
        catalog_xmin: (u32, u32),
    },
}

impl StandbyMessage {
    /// Decodes the payload of a CopyData to a walsender.
    pub fn decode(payload: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("standby", payload);
        let message = match fields.u8()? {
            b'r' => Self::StatusUpdate {
                write: Lsn(fields.u64()?),
                flush: Lsn(fields.u64()?),
                apply: Lsn(fields.u64()?),
                sent_at: PgTimestamp(fields.i64()?),
                reply_requested: fields.u8()? != 0,
            },
            b'h' => {
                let sent_at = PgTimestamp(fields.i64()?);
                let xmin = (fields.u32()?, fields.u32()?);
                let catalog_xmin = if fields.is_empty() { (0, 0) } else { (fields.u32()?, fields.u32()?) };
                Self::HotStandbyFeedback { sent_at, xmin, catalog_xmin }
            }
            _ => return Err(fields.error("unexpected standby message type")),
        };
        fields.end().map(|()| message)
    }

    /// Appends the payload of a CopyData.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::StatusUpdate { write, flush, apply, sent_at, reply_requested } => {
                out.put_u8(b'r');
                for position in [write, flush, apply] {
                    out.put_u64(position.0);
                }
                out.put_i64(sent_at.0);
                out.put_u8(u8::from(*reply_requested));
            }
            Self::HotStandbyFeedback { sent_at, xmin, catalog_xmin } => {
                out.put_u8(b'h');
                out.put_i64(sent_at.0);
                for number in [xmin.0, xmin.1, catalog_xmin.0, catalog_xmin.1] {
                    out.put_u32(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wal_message() -> impl Strategy<Value = WalMessage> {
        let data = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<i64>(), data).prop_map(|(start, end, at, data)| WalMessage::XLogData {
                start: Lsn(start),
                wal_end: Lsn(end),
                sent_at: PgTimestamp(at),
                data
            }),
            (any::<u64>(), any::<i64>(), any::<bool>()).prop_map(|(end, at, reply_requested)| WalMessage::Keepalive {
                wal_end: Lsn(end),
                sent_at: PgTimestamp(at),
                reply_requested
            }),
        ]
    }

    fn standby_message() -> impl Strategy<Value = StandbyMessage> {
        prop_oneof![
            (any::<[u64; 3]>(), any::<i64>(), any::<bool>()).prop_map(
                |([write, flush, apply], at, reply_requested)| {
                    let sent_at = PgTimestamp(at);
                    StandbyMessage::StatusUpdate {
                        write: Lsn(write),
                        flush: Lsn(flush),
                        apply: Lsn(apply),
                        sent_at,
                        reply_requested,
                    }
                }
            ),
            (any::<i64>(), any::<(u32, u32)>(), any::<(u32, u32)>()).prop_map(|(at, xmin, catalog_xmin)| {
                StandbyMessage::HotStandbyFeedback { sent_at: PgTimestamp(at), xmin, catalog_xmin }
            }),
        ]
    }

    #[test]
    fn timestamps_count_from_2000() {
        assert_eq!(PgTimestamp::from_unix_micros(946_684_800_000_000), PgTimestamp(0));
        assert_eq!(PgTimestamp(1).to_unix_micros(), 946_684_800_000_001);
    }

    #[test]
    fn messages_have_their_documented_lengths() {
        let length = |payload: BytesMut| payload.len();
        let mut keepalive = BytesMut::new();
        WalMessage::Keepalive { wal_end: Lsn(1), sent_at: PgTimestamp(2), reply_requested: true }
            .encode(&mut keepalive);
        assert_eq!(length(keepalive), 18);
        let mut status = BytesMut::new();
        let at = Lsn(1);
        StandbyMessage::StatusUpdate {
            write: at,
            flush: at,
            apply: at,
            sent_at: PgTimestamp(0),
            reply_requested: false,
        }
        .encode(&mut status);
        assert_eq!(length(status), 34);
    }

    #[test]
    fn feedback_of_a_release_before_10_has_no_catalog_fields() {
        let message =
            StandbyMessage::decode(Bytes::from_static(b"h\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0")).expect("17 bytes");
        assert!(matches!(message, StandbyMessage::HotStandbyFeedback { xmin: (7, 0), catalog_xmin: (0, 0), .. }));
    }

    proptest! {
        #[test]
        fn wal_messages_round_trip(message in wal_message()) {
            let mut payload = BytesMut::new();
            message.encode(&mut payload);
            prop_assert_eq!(WalMessage::decode(payload.freeze()), Ok(message));
        }

        #[test]
        fn standby_messages_round_trip(message in standby_message()) {
            let mut payload = BytesMut::new();
            message.encode(&mut payload);
            prop_assert_eq!(StandbyMessage::decode(payload.freeze()), Ok(message));
        }

        #[test]
        fn any_bytes_are_safe(payload: Vec<u8>) {
            let _ = WalMessage::decode(payload.clone().into());
            let _ = StandbyMessage::decode(payload.into());
        }
    }
}
