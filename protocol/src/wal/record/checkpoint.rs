//! `CheckPoint`: the body of a checkpoint record, of which `pg_control` keeps a copy.

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::ServerVersion;

/// `wal_level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Crash recovery only; no base backup.
    Minimal,
    /// What base backups and standbys need (`hot_standby` before 9.6).
    #[default]
    Replica,
    /// Logical decoding, too.
    Logical,
}

impl WalLevel {
    /// The level's number in WAL and in `pg_control` since 9.6.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The level of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Minimal, Self::Replica, Self::Logical].into_iter().find(|level| level.number() == number)
    }

    /// As `SHOW wal_level` prints it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

/// `CheckPoint`, 88 bytes on 64-bit machines since 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckPoint {
    /// Where replay from this checkpoint begins; its own position for a shutdown checkpoint.
    pub redo: Lsn,
    /// `ThisTimeLineID`.
    pub timeline: TimelineId,
    /// `PrevTimeLineID`: differs from `timeline` in the checkpoint that ends a recovery.
    pub previous_timeline: TimelineId,
    /// `fullPageWrites`.
    pub full_page_writes: bool,
    /// `wal_level`, since 17; 0 before.
    pub wal_level: u32,
    /// `nextXid`, the epoch in the high half.
    pub next_xid: u64,
    /// `nextOid`.
    pub next_oid: u32,
    /// `nextMulti`.
    pub next_multi: u32,
    /// `nextMultiOffset`.
    pub next_multi_offset: u32,
    /// `oldestXid`.
    pub oldest_xid: u32,
    /// `oldestXidDB`.
    pub oldest_xid_database: u32,
    /// `oldestMulti`.
    pub oldest_multi: u32,
    /// `oldestMultiDB`.
    pub oldest_multi_database: u32,
    /// `time`: seconds since 1970.
    pub time: i64,
    /// `oldestCommitTsXid`.
    pub oldest_commit_ts_xid: u32,
    /// `newestCommitTsXid`.
    pub newest_commit_ts_xid: u32,
    /// `oldestActiveXid`: 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

impl CheckPoint {
    /// Bytes of the encoded structure.
    pub const SIZE: usize = 88;

    /// What a cluster fresh from `initdb` checkpoints on `timeline`: the counters of a recorded 18 cluster.
    pub fn initial(version: ServerVersion, timeline: TimelineId) -> Self {
        Self {
            redo: Lsn::INVALID,
            timeline,
            previous_timeline: timeline,
            full_page_writes: true,
            wal_level: if version.checkpoint_has_wal_level() { WalLevel::Replica.number() } else { 0 },
            next_xid: 750,
            next_oid: 24_576,
            next_multi: 1,
            next_multi_offset: 0,
            oldest_xid: 744,
            oldest_xid_database: 1,
            oldest_multi: 1,
            oldest_multi_database: 1,
            time: 0,
            oldest_commit_ts_xid: 0,
            newest_commit_ts_xid: 0,
            oldest_active_xid: 0,
        }
    }

    /// Reads the structure; the bytes that only align it are skipped.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut input = &bytes[..];
        let redo = Lsn(input.get_u64_le());
        let timeline = TimelineId(input.get_u32_le());
        let previous_timeline = TimelineId(input.get_u32_le());
        let full_page_writes = input.get_u8() != 0;
        input.advance(3);
        Self {
            redo,
            timeline,
            previous_timeline,
            full_page_writes,
            wal_level: input.get_u32_le(),
            next_xid: input.get_u64_le(),
            next_oid: input.get_u32_le(),
            next_multi: input.get_u32_le(),
            next_multi_offset: input.get_u32_le(),
            oldest_xid: input.get_u32_le(),
            oldest_xid_database: input.get_u32_le(),
            oldest_multi: input.get_u32_le(),
            oldest_multi_database: input.get_u32_le(),
            time: {
                input.advance(4);
                input.get_i64_le()
            },
            oldest_commit_ts_xid: input.get_u32_le(),
            newest_commit_ts_xid: input.get_u32_le(),
            oldest_active_xid: input.get_u32_le(),
        }
    }

    /// Appends the structure's 88 bytes.
    pub fn encode(&self, output: &mut Vec<u8>) {
        output.put_u64_le(self.redo.0);
        output.put_u32_le(self.timeline.0);
        output.put_u32_le(self.previous_timeline.0);
        output.put_u8(u8::from(self.full_page_writes));
        output.put_bytes(0, 3);
        output.put_u32_le(self.wal_level);
        output.put_u64_le(self.next_xid);
        for field in [
            self.next_oid,
            self.next_multi,
            self.next_multi_offset,
            self.oldest_xid,
            self.oldest_xid_database,
            self.oldest_multi,
            self.oldest_multi_database,
            0,
        ] {
            output.put_u32_le(field);
        }
        output.put_i64_le(self.time);
        for field in [self.oldest_commit_ts_xid, self.newest_commit_ts_xid, self.oldest_active_xid, 0] {
            output.put_u32_le(field);
        }
    }
}
