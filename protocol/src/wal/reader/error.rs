//! Why WAL is not valid, in PostgreSQL's words.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::wal::record::RecordError;

/// WAL that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problem.text(*.at))]
pub struct WalError {
    /// The page or record, or the byte, that is wrong.
    pub at: Lsn,
    /// What is wrong with it.
    pub problem: WalProblem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalProblem {
    /// `xlp_magic` is of another release, or this is no page.
    Magic(u16),
    /// `xlp_info` has unknown bits, lacks the bit of a long header at the start of a segment or has it elsewhere.
    InfoBits(u16),
    /// The page is another one.
    PageAddress(Lsn),
    /// `xlp_tli` is not the timeline that wrote this part of WAL.
    Timeline {
        /// The timeline, or the highest that may come.
        expected: TimelineId,
        /// What the page says.
        got: TimelineId,
    },
    /// The segment belongs to another cluster.
    SystemIdentifier {
        /// The cluster's.
        expected: u64,
        /// What the segment says.
        got: u64,
    },
    /// `xlp_seg_size`.
    SegmentSize(u32),
    /// `xlp_xlog_blcksz`.
    PageSize(u32),
    /// A record goes on here, and the page does not say so.
    NoContrecord,
    /// `xlp_rem_len` is not what is left of the record.
    ContrecordLength {
        /// Bytes left of the record; 0 if none began before.
        expected: u64,
        /// What the page says.
        got: u32,
    },
    /// `xl_tot_len` is less than a header or more than a server can write.
    RecordLength(u32),
    /// WAL goes on behind zero bytes that no SWITCH announced.
    Hole,
    /// `xl_rmid` is of no resource manager.
    ResourceManager(u8),
    /// `xl_prev` is not the record before.
    PrevLink(Lsn),
    /// The CRC does not match.
    Crc,
    /// The record's body is not what its kind must hold.
    Record(RecordError),
    /// Something other than zero bytes behind the end of WAL in a segment.
    NotEmpty,
    /// The input ended within the record.
    Truncated,
}

impl WalProblem {
    fn text(&self, at: Lsn) -> String {
        match self {
            Self::Magic(got) => format!("invalid magic number {got:04X} in WAL page at {at}"),
            Self::InfoBits(got) => format!("invalid info bits {got:04X} in WAL page at {at}"),
            Self::PageAddress(got) => format!("unexpected pageaddr {got} in WAL page at {at}"),
            Self::Timeline { expected, got } => {
                format!("out-of-sequence timeline ID {got} (after {expected}) in WAL page at {at}")
            }
            Self::SystemIdentifier { expected, got } => format!(
                "WAL file is from different database system: WAL file database system identifier is {got}, pg_control \
                 database system identifier is {expected} at {at}"
            ),
            Self::SegmentSize(got) => {
                format!(
                    "WAL file is from different database system: incorrect segment size {got} in page header at {at}"
                )
            }
            Self::PageSize(got) => {
                format!(
                    "WAL file is from different database system: incorrect XLOG_BLCKSZ {got} in page header at {at}"
                )
            }
            Self::NoContrecord => format!("there is no contrecord flag at {at}"),
            Self::ContrecordLength { expected, got } => {
                format!("invalid contrecord length {got} (expected {expected}) at {at}")
            }
            Self::RecordLength(got) => format!("invalid record length at {at}: expected at least 24, got {got}"),
            Self::Hole => format!("invalid record length at {at}: expected at least 24, got 0"),
            Self::ResourceManager(got) => format!("invalid resource manager ID {got} at {at}"),
            Self::PrevLink(got) => format!("record with incorrect prev-link {got} at {at}"),
            Self::Crc => format!("incorrect resource manager data checksum in record at {at}"),
            Self::Record(error) => format!("{error} at {at}"),
            Self::NotEmpty => format!("unexpected data after the end of WAL at {at}"),
            Self::Truncated => format!("record at {at} is not complete"),
        }
    }
}
