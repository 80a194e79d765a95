//! WAL records: header, CRC and body, in the format of 9.5 and later.
//!
//! A record is 24 bytes of header (`XLogRecord`) and a body: block references, then the main data, introduced by `FF` and
//! one byte of length or `FE` and four. Its CRC-32C runs over the body first, then over the header up to the CRC. In the log a
//! record begins at a multiple of 8 and is interrupted by page headers; neither padding nor page headers count.

pub mod block;
mod body;
mod checkpoint;
#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;
use crate::version::ServerVersion;

use block::{BodyLayout, LayoutError};

pub use body::{ParameterChange, Record, RunningXacts};
pub use checkpoint::{CheckPoint, WalLevel};

/// `SizeOfXLogRecord`.
pub const RECORD_HEADER_SIZE: usize = 24;

/// `MAXALIGN`: records begin at multiples of this.
pub const RECORD_ALIGNMENT: u64 = 8;

/// No record is larger: `MaxAllocSize`, what a server could assemble. (`XLogRecordMaxSize`, a little less, since 16.)
pub const MAX_RECORD_SIZE: u32 = 0x3FFF_FFFF;

/// `RM_XLOG_ID`.
pub const RM_XLOG: u8 = 0;
/// `RM_STANDBY_ID`.
pub const RM_STANDBY: u8 = 8;
/// `RM_MAX_BUILTIN_ID` of 12 to 18: `RM_LOGICALMSG_ID`.
pub const RM_MAX_BUILTIN: u8 = 21;
/// `RM_MIN_CUSTOM_ID`, since 15.
pub const RM_MIN_CUSTOM: u8 = 128;

/// The built-in resource managers of 12 to 18 by number, as `pg_waldump` prints them.
const RESOURCE_MANAGERS: [&str; RM_MAX_BUILTIN as usize + 1] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The high half of `xl_info` of the records of [`RM_XLOG`] and [`RM_STANDBY`] that this crate knows.
#[expect(missing_docs, reason = "PostgreSQL's names, without XLOG_")]
pub mod info {
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    pub const NOOP: u8 = 0x20;
    pub const NEXTOID: u8 = 0x30;
    pub const SWITCH: u8 = 0x40;
    pub const BACKUP_END: u8 = 0x50;
    pub const PARAMETER_CHANGE: u8 = 0x60;
    pub const RESTORE_POINT: u8 = 0x70;
    pub const FPW_CHANGE: u8 = 0x80;
    pub const END_OF_RECOVERY: u8 = 0x90;
    pub const FPI_FOR_HINT: u8 = 0xA0;
    pub const FPI: u8 = 0xB0;
    pub const CHECKPOINT_REDO: u8 = 0xE0;
    /// Of [`RM_STANDBY`](super::RM_STANDBY).
    pub const RUNNING_XACTS: u8 = 0x10;
    /// `~XLR_INFO_MASK`: the bits that belong to the resource manager.
    pub const MASK: u8 = 0xF0;
}

/// `XLR_BLOCK_ID_DATA_SHORT`, `XLR_BLOCK_ID_DATA_LONG`, `XLR_BLOCK_ID_ORIGIN` and `XLR_BLOCK_ID_TOPLEVEL_XID`.
const DATA_SHORT: u8 = 0xFF;
const DATA_LONG: u8 = 0xFE;
const ORIGIN: u8 = 0xFD;
const TOPLEVEL_XID: u8 = 0xFC;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// `xl_tot_len`: header and body.
    pub total_length: u32,
    /// `xl_xid`.
    pub xid: u32,
    /// `xl_prev`: where the record before begins; `0/0` in the first record of a cluster.
    pub prev: Lsn,
    /// `xl_info`.
    pub info: u8,
    /// `xl_rmid`.
    pub resource_manager: u8,
    /// `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a header. Every content is a header; the CRC is for the caller to compare.
    pub fn decode(bytes: &[u8; RECORD_HEADER_SIZE]) -> Self {
        let mut input = &bytes[..];
        let total_length = input.get_u32_le();
        let xid = input.get_u32_le();
        let prev = Lsn(input.get_u64_le());
        let info = input.get_u8();
        let resource_manager = input.get_u8();
        input.advance(2);
        Self { total_length, xid, prev, info, resource_manager, crc: input.get_u32_le() }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_SIZE] {
        let mut bytes = [0; RECORD_HEADER_SIZE];
        let mut output = &mut bytes[..];
        output.put_u32_le(self.total_length);
        output.put_u32_le(self.xid);
        output.put_u64_le(self.prev.0);
        output.put_u8(self.info);
        output.put_u8(self.resource_manager);
        output.put_u16_le(0);
        output.put_u32_le(self.crc);
        bytes
    }

    /// The header with the CRC that belongs to a body whose CRC-32C is `body_crc`.
    #[must_use]
    pub fn sealed(self, body_crc: u32) -> Self {
        Self { crc: finish_crc(body_crc, &self.encode()), ..self }
    }

    /// The resource manager's name, as `pg_waldump` prints it; nothing for a custom one.
    pub fn resource_manager_name(&self) -> Option<&'static str> {
        RESOURCE_MANAGERS.get(usize::from(self.resource_manager)).copied()
    }

    /// Whether this is the record after which the rest of the segment is empty.
    pub fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.info & info::MASK == info::SWITCH
    }
}

/// The CRC of a record from the CRC-32C of its body and its header, whose own CRC field does not count.
pub fn finish_crc(body_crc: u32, header: &[u8; RECORD_HEADER_SIZE]) -> u32 {
    crc32c::crc32c_append(body_crc, &header[..20])
}

/// Bytes that are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than a header has, or another number than the header says.
    #[error("invalid record length: expected {expected}, got {got}")]
    Length {
        /// What the header says, or at least 24.
        expected: u64,
        /// What there is.
        got: u64,
    },
    /// The CRC does not match.
    #[error("incorrect resource manager data checksum in record: calculated {calculated:08X}, expected {expected:08X}")]
    Crc {
        /// Of the content.
        calculated: u32,
        /// What the header says.
        expected: u32,
    },
    /// What should introduce the data does not.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A body that is not what the kind of record must hold.
    #[error("invalid {kind} record: {length} bytes of data")]
    Body {
        /// PostgreSQL's name of the kind.
        kind: &'static str,
        /// Bytes of main data.
        length: usize,
    },
}

/// A whole record, its length and CRC left to [`encode`](Self::encode).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XLogRecord {
    /// `xl_xid`.
    pub xid: u32,
    /// `xl_prev`.
    pub prev: Lsn,
    /// `xl_info`.
    pub info: u8,
    /// `xl_rmid`.
    pub resource_manager: u8,
    /// Everything after the header.
    pub body: Vec<u8>,
}

impl XLogRecord {
    /// A record without block references around `data`, at most [`MAX_RECORD_SIZE`] less a header.
    pub fn around(xid: u32, prev: Lsn, resource_manager: u8, info: u8, data: &[u8]) -> Self {
        let mut body = main_data_header(data.len());
        body.extend_from_slice(data);
        Self { xid, prev, info, resource_manager, body }
    }

    /// Reads a record of exactly these bytes and verifies its CRC.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let got = bytes.len() as u64;
        let (head, body) = bytes
            .split_first_chunk::<RECORD_HEADER_SIZE>()
            .ok_or(RecordError::Length { expected: RECORD_HEADER_SIZE as u64, got })?;
        let header = RecordHeader::decode(head);
        if u64::from(header.total_length) != got {
            return Err(RecordError::Length { expected: header.total_length.into(), got });
        }
        let calculated = finish_crc(crc32c::crc32c(body), head);
        if calculated != header.crc {
            return Err(RecordError::Crc { calculated, expected: header.crc });
        }
        Ok(Self {
            xid: header.xid,
            prev: header.prev,
            info: header.info,
            resource_manager: header.resource_manager,
            body: body.to_vec(),
        })
    }

    /// The header with length and CRC.
    pub fn header(&self) -> RecordHeader {
        let total_length = u32::try_from(RECORD_HEADER_SIZE + self.body.len()).unwrap_or(u32::MAX);
        let Self { xid, prev, info, resource_manager, .. } = *self;
        RecordHeader { total_length, xid, prev, info, resource_manager, crc: 0 }.sealed(crc32c::crc32c(&self.body))
    }

    /// The record's bytes, without padding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER_SIZE + self.body.len());
        bytes.extend_from_slice(&self.header().encode());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What the body consists of.
    pub fn layout(&self, version: ServerVersion) -> Result<BodyLayout, LayoutError> {
        BodyLayout::decode(version, self.body.len() as u64, &self.body)
    }

    /// The main data, empty if there is none.
    pub fn main_data(&self, layout: &BodyLayout) -> &[u8] {
        let start = self.body.len().saturating_sub(usize::try_from(layout.main_data).unwrap_or(usize::MAX));
        self.body.get(start..).unwrap_or_default()
    }
}

/// What introduces `length` bytes of main data: nothing, `FF` and a byte, or `FE` and four bytes.
pub(crate) fn main_data_header(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(0) => Vec::new(),
        Ok(short) => vec![DATA_SHORT, short],
        Err(_) => {
            let mut header = vec![DATA_LONG];
            header.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
            header
        }
    }
}
