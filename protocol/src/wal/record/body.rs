//! What the records hold that a base backup, a recovery or a synthetic log consists of.

use bytes::{Buf, BufMut};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::ServerVersion;
use crate::wal::stream::PgTimestamp;

use super::{CheckPoint, RM_STANDBY, RM_XLOG, RecordError, XLogRecord, info};

/// `xl_parameter_change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "PostgreSQL's settings")]
pub struct ParameterChange {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
    pub wal_level: u32,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
    /// Bytes that only align the structure and hold whatever was there.
    pub padding: [u8; 2],
}

/// `xl_running_xacts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningXacts {
    /// `xcnt`: how many of `xids` are transactions; the rest are subtransactions.
    pub transactions: u32,
    /// `subxid_overflow`.
    pub overflowed: bool,
    /// Bytes that only align the structure and hold whatever was there.
    pub padding: [u8; 3],
    /// `nextXid`.
    pub next_xid: u32,
    /// `oldestRunningXid`.
    pub oldest_running_xid: u32,
    /// `latestCompletedXid`.
    pub latest_completed_xid: u32,
    /// Transactions, then subtransactions.
    pub xids: Vec<u32>,
}

impl RunningXacts {
    /// What a server without transactions writes when `next_xid` is the next to be given.
    pub fn idle(next_xid: u32) -> Self {
        Self {
            transactions: 0,
            overflowed: false,
            padding: [0; 3],
            next_xid,
            oldest_running_xid: next_xid,
            latest_completed_xid: next_xid.wrapping_sub(1),
            xids: Vec::new(),
        }
    }
}

/// A record by its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// CHECKPOINT_SHUTDOWN: nothing was running.
    CheckpointShutdown(CheckPoint),
    /// CHECKPOINT_ONLINE: replay begins at its redo position.
    CheckpointOnline(CheckPoint),
    /// NOOP: skipped by replay, whatever it holds.
    Noop(Vec<u8>),
    /// NEXTOID.
    NextOid(u32),
    /// SWITCH: the rest of the segment is empty.
    Switch,
    /// BACKUP_END of the backup that started at this redo position.
    BackupEnd(Lsn),
    /// PARAMETER_CHANGE.
    ParameterChange(ParameterChange),
    /// RESTORE_POINT.
    RestorePoint {
        /// When.
        time: PgTimestamp,
        /// Ends at the first NUL; what follows it holds whatever was there.
        name: [u8; 64],
    },
    /// FPW_CHANGE: `full_page_writes` was switched.
    FullPageWrites(bool),
    /// END_OF_RECOVERY: the first record of a new timeline after a promotion.
    EndOfRecovery {
        /// When.
        time: PgTimestamp,
        /// The new timeline.
        timeline: TimelineId,
        /// The one it left.
        previous_timeline: TimelineId,
        /// Since 17; 0 before.
        wal_level: u32,
    },
    /// CHECKPOINT_REDO with `wal_level`, since 17: the redo position of the checkpoint that follows.
    CheckpointRedo(u32),
    /// RUNNING_XACTS.
    RunningXacts(RunningXacts),
    /// Any other.
    Other {
        /// `xl_rmid`.
        resource_manager: u8,
        /// `xl_info`.
        info: u8,
    },
}

impl Record {
    /// PostgreSQL's name of the kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CheckpointShutdown(_) => "CHECKPOINT_SHUTDOWN",
            Self::CheckpointOnline(_) => "CHECKPOINT_ONLINE",
            Self::Noop(_) => "NOOP",
            Self::NextOid(_) => "NEXTOID",
            Self::Switch => "SWITCH",
            Self::BackupEnd(_) => "BACKUP_END",
            Self::ParameterChange(_) => "PARAMETER_CHANGE",
            Self::RestorePoint { .. } => "RESTORE_POINT",
            Self::FullPageWrites(_) => "FPW_CHANGE",
            Self::EndOfRecovery { .. } => "END_OF_RECOVERY",
            Self::CheckpointRedo(_) => "CHECKPOINT_REDO",
            Self::RunningXacts(_) => "RUNNING_XACTS",
            Self::Other { .. } => "OTHER",
        }
    }

    /// The meaning of `record`, written by a server of `version`. Records of other resource managers, and kinds that are
    /// not listed here, are [`Other`](Self::Other); a body that no server writes and a known kind with a body of another size
    /// are errors.
    pub fn decode(version: ServerVersion, record: &XLogRecord) -> Result<Self, RecordError> {
        let XLogRecord { resource_manager, info, .. } = *record;
        let other = Self::Other { resource_manager, info };
        let layout = record.layout(version)?;
        let data = record.main_data(&layout);
        let meaning = match resource_manager {
            RM_XLOG => Self::decode_xlog(version, info & info::MASK, data)?,
            RM_STANDBY if info & info::MASK == info::RUNNING_XACTS => Some(Self::RunningXacts(running_xacts(data)?)),
            _ => None,
        };
        Ok(meaning.unwrap_or(other))
    }

    fn decode_xlog(version: ServerVersion, info: u8, mut data: &[u8]) -> Result<Option<Self>, RecordError> {
        let length = data.len();
        let exactly = |kind, size| if length == size { Ok(()) } else { Err(RecordError::Body { kind, length }) };
        let checkpoint = |kind| {
            let bytes = data.try_into().map_err(|_| RecordError::Body { kind, length })?;
            Ok::<_, RecordError>(CheckPoint::decode(bytes))
        };
        Ok(Some(match info {
            info::CHECKPOINT_SHUTDOWN => Self::CheckpointShutdown(checkpoint("CHECKPOINT_SHUTDOWN")?),
            info::CHECKPOINT_ONLINE => Self::CheckpointOnline(checkpoint("CHECKPOINT_ONLINE")?),
            info::NOOP => Self::Noop(data.to_vec()),
            info::NEXTOID => {
                exactly("NEXTOID", 4)?;
                Self::NextOid(data.get_u32_le())
            }
            info::SWITCH => {
                exactly("SWITCH", 0)?;
                Self::Switch
            }
            info::BACKUP_END => {
                exactly("BACKUP_END", 8)?;
                Self::BackupEnd(Lsn(data.get_u64_le()))
            }
            info::PARAMETER_CHANGE => {
                exactly("PARAMETER_CHANGE", 28)?;
                Self::ParameterChange(ParameterChange {
                    max_connections: data.get_u32_le(),
                    max_worker_processes: data.get_u32_le(),
                    max_wal_senders: data.get_u32_le(),
                    max_prepared_transactions: data.get_u32_le(),
                    max_locks_per_transaction: data.get_u32_le(),
                    wal_level: data.get_u32_le(),
                    wal_log_hints: data.get_u8() != 0,
                    track_commit_timestamp: data.get_u8() != 0,
                    padding: [data.get_u8(), data.get_u8()],
                })
            }
            info::RESTORE_POINT => {
                exactly("RESTORE_POINT", 72)?;
                let time = PgTimestamp(data.get_i64_le());
                let mut name = [0; 64];
                data.copy_to_slice(&mut name);
                Self::RestorePoint { time, name }
            }
            info::FPW_CHANGE => {
                exactly("FPW_CHANGE", 1)?;
                Self::FullPageWrites(data.get_u8() != 0)
            }
            info::END_OF_RECOVERY => {
                let with_level = version.end_of_recovery_has_wal_level();
                exactly("END_OF_RECOVERY", if with_level { 24 } else { 16 })?;
                Self::EndOfRecovery {
                    time: PgTimestamp(data.get_i64_le()),
                    timeline: TimelineId(data.get_u32_le()),
                    previous_timeline: TimelineId(data.get_u32_le()),
                    wal_level: if with_level { data.get_u32_le() } else { 0 },
                }
            }
            info::CHECKPOINT_REDO if version.has_checkpoint_redo_record() => {
                exactly("CHECKPOINT_REDO", 4)?;
                Self::CheckpointRedo(data.get_u32_le())
            }
            _ => return Ok(None),
        }))
    }

    /// The record as a server of `version` writes it. [`Other`](Self::Other) gets an empty body.
    pub fn encode(&self, version: ServerVersion, xid: u32, prev: Lsn) -> XLogRecord {
        let mut data = Vec::new();
        let mut manager = RM_XLOG;
        let info = match self {
            Self::CheckpointShutdown(checkpoint) => {
                checkpoint.encode(&mut data);
                info::CHECKPOINT_SHUTDOWN
            }
            Self::CheckpointOnline(checkpoint) => {
                checkpoint.encode(&mut data);
                info::CHECKPOINT_ONLINE
            }
            Self::Noop(content) => {
                data.extend_from_slice(content);
                info::NOOP
            }
            Self::NextOid(oid) => {
                data.put_u32_le(*oid);
                info::NEXTOID
            }
            Self::Switch => info::SWITCH,
            Self::BackupEnd(start) => {
                data.put_u64_le(start.0);
                info::BACKUP_END
            }
            Self::ParameterChange(change) => {
                data.put_u32_le(change.max_connections);
                data.put_u32_le(change.max_worker_processes);
                data.put_u32_le(change.max_wal_senders);
                data.put_u32_le(change.max_prepared_transactions);
                data.put_u32_le(change.max_locks_per_transaction);
                data.put_u32_le(change.wal_level);
                data.put_u8(u8::from(change.wal_log_hints));
                data.put_u8(u8::from(change.track_commit_timestamp));
                data.put_slice(&change.padding);
                info::PARAMETER_CHANGE
            }
            Self::RestorePoint { time, name } => {
                data.put_i64_le(time.0);
                data.put_slice(name);
                info::RESTORE_POINT
            }
            Self::FullPageWrites(on) => {
                data.put_u8(u8::from(*on));
                info::FPW_CHANGE
            }
            Self::EndOfRecovery { time, timeline, previous_timeline, wal_level } => {
                data.put_i64_le(time.0);
                data.put_u32_le(timeline.0);
                data.put_u32_le(previous_timeline.0);
                if version.end_of_recovery_has_wal_level() {
                    data.put_u32_le(*wal_level);
                    data.put_u32_le(0);
                }
                info::END_OF_RECOVERY
            }
            Self::CheckpointRedo(wal_level) => {
                data.put_u32_le(*wal_level);
                info::CHECKPOINT_REDO
            }
            Self::RunningXacts(running) => {
                manager = RM_STANDBY;
                let all = u32::try_from(running.xids.len()).unwrap_or(u32::MAX);
                let transactions = running.transactions.min(all);
                data.put_u32_le(transactions);
                data.put_u32_le(all - transactions);
                data.put_u8(u8::from(running.overflowed));
                data.put_slice(&running.padding);
                data.put_u32_le(running.next_xid);
                data.put_u32_le(running.oldest_running_xid);
                data.put_u32_le(running.latest_completed_xid);
                for &xid in &running.xids {
                    data.put_u32_le(xid);
                }
                info::RUNNING_XACTS
            }
            Self::Other { resource_manager, info } => {
                manager = *resource_manager;
                *info
            }
        };
        XLogRecord::around(xid, prev, manager, info, &data)
    }
}

fn running_xacts(mut data: &[u8]) -> Result<RunningXacts, RecordError> {
    let error = RecordError::Body { kind: "RUNNING_XACTS", length: data.len() };
    if data.len() < 24 {
        return Err(error);
    }
    let transactions = data.get_u32_le();
    let subtransactions = data.get_u32_le();
    let overflowed = data.get_u8() != 0;
    let padding = [data.get_u8(), data.get_u8(), data.get_u8()];
    let next_xid = data.get_u32_le();
    let oldest_running_xid = data.get_u32_le();
    let latest_completed_xid = data.get_u32_le();
    if (u64::from(transactions) + u64::from(subtransactions)) * 4 != data.len() as u64 {
        return Err(error);
    }
    let xids = data.chunks_exact(4).map(|mut xid| xid.get_u32_le()).collect();
    Ok(RunningXacts { transactions, overflowed, padding, next_xid, oldest_running_xid, latest_completed_xid, xids })
}
