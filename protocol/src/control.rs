//! `global/pg_control`: what the server must know before it can read anything else.
//!
//! 8192 bytes, of which those after the CRC are zero. Layouts of 12 to 18 on 64-bit little-endian machines, pinned by
//! recordings; in a base backup of a primary the state is "in production", of a standby "in archive recovery".

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::ServerVersion;
use crate::wal::record::{CheckPoint, WalLevel};
use crate::wal_file::WalSegmentSize;

/// `PG_CONTROL_FILE_SIZE`.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// `DBState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "PostgreSQL's names say it all")]
pub enum DbState {
    Startup,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl DbState {
    const ALL: [Self; 7] = [
        Self::Startup,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::InCrashRecovery,
        Self::InArchiveRecovery,
        Self::InProduction,
    ];
}

/// A control file that cannot be used. The texts are PostgreSQL's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not 8192 bytes.
    #[error("could not read file \"global/pg_control\": read {0} of 8192")]
    Size(usize),
    /// A pair of `pg_control_version` and `catalog_version_no` that no release of the table has.
    #[error(
        "unknown control file: PG_CONTROL_VERSION {control} ({control:#010x}), CATALOG_VERSION_NO {catalog} are of no release from 12 to 18"
    )]
    Version {
        /// At offset 8.
        control: u32,
        /// At offset 12.
        catalog: u32,
    },
    /// The CRC does not match the content.
    #[error("incorrect checksum in control file: calculated {calculated:08X}, expected {expected:08X}")]
    Crc {
        /// Of the content.
        calculated: u32,
        /// What the file says.
        expected: u32,
    },
    /// A field that must hold one certain value, such as `blcksz`.
    #[error("database files are incompatible with server: the database cluster was initialized with {field} {found}")]
    Incompatible {
        /// PostgreSQL's name of the field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A field whose value has no meaning.
    #[error("invalid {field} in control file at offset {offset}: {found}")]
    Field {
        /// PostgreSQL's name of the field.
        field: &'static str,
        /// Where it lies.
        offset: usize,
        /// Its value.
        found: u64,
    },
    /// Something other than zero bytes after the CRC.
    #[error("unexpected data in control file at offset {0}")]
    TrailingData(usize),
}

/// `ControlFileData`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// As IDENTIFY_SYSTEM and the manifest say it.
    pub system_identifier: u64,
    /// The release that wrote it: `pg_control_version` and `catalog_version_no`.
    pub version: ServerVersion,
    /// What the server was doing.
    pub state: DbState,
    /// The last update, in seconds since 1970.
    pub time: i64,
    /// The latest checkpoint record.
    pub checkpoint: Lsn,
    /// A copy of it.
    pub checkpoint_copy: CheckPoint,
    /// `unloggedLSN`.
    pub unlogged_lsn: Lsn,
    /// Replay must reach this position before connections may see the data; the end position of a backup from a standby.
    pub min_recovery_point: Lsn,
    /// Its timeline, 0 if there is no such position.
    pub min_recovery_timeline: TimelineId,
    /// `backupStartPoint`: while a restored backup has not reached its end.
    pub backup_start: Lsn,
    /// `backupEndPoint`.
    pub backup_end: Lsn,
    /// `backupEndRequired`.
    pub backup_end_required: bool,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `MaxConnections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_xacts`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_xact`.
    pub max_locks_per_transaction: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// `xlog_seg_size`.
    pub wal_segment_size: WalSegmentSize,
    /// `data_checksum_version`: 0 off, 1 on.
    pub data_checksum_version: u32,
    /// `default_char_signedness`, since 18; true before.
    pub char_signedness: bool,
    /// `mock_authentication_nonce`.
    pub nonce: [u8; 32],
}

/// `maxAlign`, then `floatFormat`, `blcksz` and so on: what compilation decides, in the order of the file.
const MAX_ALIGN: u32 = 8;
const FLOAT_FORMAT: f64 = 1_234_567.0;
const BEFORE_SEGMENT_SIZE: [(&str, u32); 3] = [("BLCKSZ", 8192), ("RELSEG_SIZE", 131_072), ("XLOG_BLCKSZ", 8192)];
const AFTER_SEGMENT_SIZE: [(&str, u32); 4] =
    [("NAMEDATALEN", 64), ("INDEX_MAX_KEYS", 32), ("TOAST_MAX_CHUNK_SIZE", 1996), ("LOBLKSIZE", 2048)];

/// Where the CRC lies: the content before it, rounded up to its alignment.
fn crc_offset(version: ServerVersion) -> usize {
    if version.control_has_char_signedness() { 292 } else { 288 }
}

/// Reads fields in order and remembers where it is.
struct Fields<'a> {
    bytes: &'a [u8; CONTROL_FILE_SIZE],
    rest: &'a [u8],
}

impl Fields<'_> {
    fn offset(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    fn align(&mut self, alignment: usize) {
        self.rest.advance(self.offset().next_multiple_of(alignment) - self.offset());
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, ControlError> {
        let offset = self.offset();
        match self.rest.get_u8() {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ControlError::Field { field, offset, found: other.into() }),
        }
    }

    fn fixed(&mut self, field: &'static str, expected: u32) -> Result<(), ControlError> {
        let found = self.rest.get_u32_le();
        if found == expected { Ok(()) } else { Err(ControlError::Incompatible { field, found: found.into() }) }
    }

    fn chosen<T>(&mut self, field: &'static str, choose: impl Fn(u32) -> Option<T>) -> Result<T, ControlError> {
        let offset = self.offset();
        let number = self.rest.get_u32_le();
        choose(number).ok_or(ControlError::Field { field, offset, found: number.into() })
    }
}

impl ControlFile {
    /// The control file of a running primary of `version` that has just been initialised: nothing checkpointed yet, no
    /// data checksums, the settings of a fresh `postgresql.conf`.
    pub fn new(version: ServerVersion, system_identifier: u64, timeline: TimelineId) -> Self {
        Self {
            system_identifier,
            version,
            state: DbState::InProduction,
            time: 0,
            checkpoint: Lsn::INVALID,
            checkpoint_copy: CheckPoint::initial(version, timeline),
            unlogged_lsn: Lsn(1000),
            min_recovery_point: Lsn::INVALID,
            min_recovery_timeline: TimelineId(0),
            backup_start: Lsn::INVALID,
            backup_end: Lsn::INVALID,
            backup_end_required: false,
            wal_level: WalLevel::Replica,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            track_commit_timestamp: false,
            wal_segment_size: WalSegmentSize::DEFAULT,
            data_checksum_version: 0,
            char_signedness: true,
            nonce: [0; 32],
        }
    }

    /// Reads a control file of 12 to 18: the size, the release, the CRC, then every field, as strict as the server is when
    /// it starts.
    pub fn decode(content: &[u8]) -> Result<Self, ControlError> {
        let bytes: &[u8; CONTROL_FILE_SIZE] = content.try_into().map_err(|_| ControlError::Size(content.len()))?;
        let mut fields = Fields { bytes, rest: bytes };
        let system_identifier = fields.rest.get_u64_le();
        let control = fields.rest.get_u32_le();
        let catalog = fields.rest.get_u32_le();
        let version = ServerVersion::ALL
            .into_iter()
            .find(|version| version.control_version() == control && version.catalog_version() == catalog)
            .filter(|version| version.has_current_wal_format())
            .ok_or(ControlError::Version { control, catalog })?;
        let (covered, mut after) = bytes.split_at(crc_offset(version));
        let calculated = crc32c::crc32c(covered);
        let expected = after.get_u32_le();
        if calculated != expected {
            return Err(ControlError::Crc { calculated, expected });
        }
        if let Some(position) = after.iter().position(|&byte| byte != 0) {
            return Err(ControlError::TrailingData(covered.len() + 4 + position));
        }

        let state = fields.chosen("state", |number| DbState::ALL.get(usize::try_from(number).ok()?).copied())?;
        fields.align(8);
        let time = fields.rest.get_i64_le();
        let checkpoint = Lsn(fields.rest.get_u64_le());
        let mut copy = [0; CheckPoint::SIZE];
        fields.rest.copy_to_slice(&mut copy);
        let unlogged_lsn = Lsn(fields.rest.get_u64_le());
        let min_recovery_point = Lsn(fields.rest.get_u64_le());
        let min_recovery_timeline = TimelineId(fields.rest.get_u32_le());
        fields.align(8);
        let backup_start = Lsn(fields.rest.get_u64_le());
        let backup_end = Lsn(fields.rest.get_u64_le());
        let backup_end_required = fields.flag("backupEndRequired")?;
        fields.align(4);
        let wal_level = fields.chosen("wal_level", WalLevel::from_number)?;
        let wal_log_hints = fields.flag("wal_log_hints")?;
        fields.align(4);
        let max_connections = fields.rest.get_u32_le();
        let max_worker_processes = fields.rest.get_u32_le();
        let max_wal_senders = fields.rest.get_u32_le();
        let max_prepared_transactions = fields.rest.get_u32_le();
        let max_locks_per_transaction = fields.rest.get_u32_le();
        let track_commit_timestamp = fields.flag("track_commit_timestamp")?;
        fields.align(4);
        fields.fixed("MAXALIGN", MAX_ALIGN)?;
        let float_format = fields.rest.get_u64_le();
        if float_format != FLOAT_FORMAT.to_bits() {
            return Err(ControlError::Incompatible { field: "floatFormat", found: float_format });
        }
        for (field, expected) in BEFORE_SEGMENT_SIZE {
            fields.fixed(field, expected)?;
        }
        let wal_segment_size = fields.chosen("xlog_seg_size", |bytes| WalSegmentSize::new(bytes.into()))?;
        for (field, expected) in AFTER_SEGMENT_SIZE {
            fields.fixed(field, expected)?;
        }
        let by_value: &[&'static str] =
            if version.control_has_float4_by_value() { &["float4ByVal", "float8ByVal"] } else { &["float8ByVal"] };
        for &field in by_value {
            if !fields.flag(field)? {
                return Err(ControlError::Incompatible { field, found: 0 });
            }
        }
        fields.align(4);
        let data_checksum_version = fields.rest.get_u32_le();
        let char_signedness =
            if version.control_has_char_signedness() { fields.flag("default_char_signedness")? } else { true };
        let mut nonce = [0; 32];
        fields.rest.copy_to_slice(&mut nonce);
        Ok(Self {
            system_identifier,
            version,
            state,
            time,
            checkpoint,
            checkpoint_copy: CheckPoint::decode(&copy),
            unlogged_lsn,
            min_recovery_point,
            min_recovery_timeline,
            backup_start,
            backup_end,
            backup_end_required,
            wal_level,
            wal_log_hints,
            max_connections,
            max_worker_processes,
            max_wal_senders,
            max_prepared_transactions,
            max_locks_per_transaction,
            track_commit_timestamp,
            wal_segment_size,
            data_checksum_version,
            char_signedness,
            nonce,
        })
    }

    /// The file's 8192 bytes, in the layout of [`version`](Self::version). Releases before 12 get that of 12 under their
    /// own version numbers.
    pub fn encode(&self) -> Vec<u8> {
        fn align(output: &mut Vec<u8>, alignment: usize) {
            output.resize(output.len().next_multiple_of(alignment), 0);
        }
        let mut output = Vec::with_capacity(CONTROL_FILE_SIZE);
        output.put_u64_le(self.system_identifier);
        output.put_u32_le(self.version.control_version());
        output.put_u32_le(self.version.catalog_version());
        output.put_u32_le(self.state as u32);
        align(&mut output, 8);
        output.put_i64_le(self.time);
        output.put_u64_le(self.checkpoint.0);
        self.checkpoint_copy.encode(&mut output);
        output.put_u64_le(self.unlogged_lsn.0);
        output.put_u64_le(self.min_recovery_point.0);
        output.put_u32_le(self.min_recovery_timeline.0);
        align(&mut output, 8);
        output.put_u64_le(self.backup_start.0);
        output.put_u64_le(self.backup_end.0);
        output.put_u8(u8::from(self.backup_end_required));
        align(&mut output, 4);
        output.put_u32_le(self.wal_level.number());
        output.put_u8(u8::from(self.wal_log_hints));
        align(&mut output, 4);
        output.put_u32_le(self.max_connections);
        output.put_u32_le(self.max_worker_processes);
        output.put_u32_le(self.max_wal_senders);
        output.put_u32_le(self.max_prepared_transactions);
        output.put_u32_le(self.max_locks_per_transaction);
        output.put_u8(u8::from(self.track_commit_timestamp));
        align(&mut output, 4);
        output.put_u32_le(MAX_ALIGN);
        output.put_f64_le(FLOAT_FORMAT);
        for (_, value) in BEFORE_SEGMENT_SIZE {
            output.put_u32_le(value);
        }
        // At most 1 GiB.
        output.put_u32_le(u32::try_from(self.wal_segment_size.bytes()).unwrap_or(u32::MAX));
        for (_, value) in AFTER_SEGMENT_SIZE {
            output.put_u32_le(value);
        }
        output.put_bytes(1, if self.version.control_has_float4_by_value() { 2 } else { 1 });
        align(&mut output, 4);
        output.put_u32_le(self.data_checksum_version);
        if self.version.control_has_char_signedness() {
            output.put_u8(u8::from(self.char_signedness));
        }
        output.put_slice(&self.nonce);
        output.resize(crc_offset(self.version), 0);
        let crc = crc32c::crc32c(&output);
        output.put_u32_le(crc);
        output.resize(CONTROL_FILE_SIZE, 0);
        output
    }
}

#[cfg(test)]
mod tests;
