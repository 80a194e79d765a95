//! WAL that was left out of a recording, made up again: valid records from the first position to the last, with the checkpoints from
//! which backups began and the records that ended them at their places.

use std::collections::BTreeMap;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{RecordPlan, WalLog, WalLogConfig};
use backstop_protocol::wal::page::Layout;
use backstop_protocol::wal::record::{CheckPoint, Record, WalLevel};
use backstop_protocol::wal_file::WalSegmentSize;

/// What filler is made of.
const SEED: u64 = 1;

/// A backup, as far as it left something in WAL.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) timeline: TimelineId,
    /// The redo position of its checkpoint.
    pub(super) start: Lsn,
    /// Where the checkpoint's record begins.
    pub(super) checkpoint: Lsn,
    /// What that says, if `pg_control` repeats it.
    pub(super) checkpoint_copy: Option<CheckPoint>,
    /// The end position, if it was told.
    pub(super) end: Option<Lsn>,
    /// A standby writes nothing.
    pub(super) standby: bool,
}

/// A record at its place.
#[derive(Clone, Debug)]
enum Mark {
    Redo,
    Checkpoint(Box<Backup>),
    BackupEnd(Lsn),
    /// A record ends here, whatever it is.
    Border,
}

/// The WAL of all timelines that were seen.
#[derive(Debug, Default)]
pub(super) struct Wal(BTreeMap<TimelineId, WalLog>);

impl Wal {
    /// WAL from the first to the last position of each timeline, at least.
    pub(super) fn new(
        version: ServerVersion,
        system_identifier: u64,
        segment_size: WalSegmentSize,
        backups: &[Backup],
        extents: &BTreeMap<TimelineId, (Lsn, Lsn)>,
    ) -> Self {
        let logs = extents.iter().filter_map(|(timeline, (from, until))| {
            let start = segment_size.round_down(*from);
            let config = WalLogConfig {
                version,
                system_identifier,
                timeline: *timeline,
                segment_size,
                start,
                prev: Lsn(start.0.saturating_sub(segment_size.bytes() / 2)),
                seed: SEED,
            };
            let mut log = WalLog::new(config).ok()?;
            let marks = marks(&log, backups.iter().filter(|backup| backup.timeline == *timeline));
            for (index, (at, mark)) in marks.iter().enumerate() {
                let next = marks.get(index + 1).map(|(at, _)| *at);
                place(&mut log, *at, mark, next);
            }
            log.fill_to(*until);
            Some((*timeline, log))
        });
        Self(logs.collect())
    }

    /// Fills `buffer` with WAL from `position`, as it lies in `pg_wal`: zeros where nothing was written.
    pub(super) fn read(&self, timeline: TimelineId, position: Lsn, buffer: &mut [u8]) -> bool {
        let read = self.0.get(&timeline).map(|log| log.read_zero_filled(position, buffer));
        let known = matches!(read, Some(Ok(())));
        if !known {
            buffer.fill(0);
        }
        known
    }
}

/// What has to stand where, in order.
fn marks<'a>(log: &WalLog, backups: impl Iterator<Item = &'a Backup>) -> Vec<(Lsn, Mark)> {
    let config = log.config();
    let layout = Layout(config.segment_size);
    let mut marks = BTreeMap::new();
    for backup in backups {
        let known = marks.insert(backup.checkpoint, Mark::Checkpoint(Box::new(backup.clone())));
        // A shutdown checkpoint is its own redo position.
        if backup.start < backup.checkpoint && known.is_none() {
            marks.insert(backup.start, Mark::Redo);
        }
        let Some(end) = backup.end else { continue };
        if backup.standby {
            marks.insert(end, Mark::Border);
        } else {
            let record = Record::BackupEnd(backup.start).encode(config.version, 0, Lsn(0)).header().total_length;
            let begin = layout.usable(end).saturating_sub(u64::from(record).next_multiple_of(8));
            marks.insert(layout.start(begin), Mark::BackupEnd(backup.start));
        }
    }
    marks.into_iter().collect()
}

/// How much of the way to a record is left for filler that is made to measure, in bytes: more than a run of filler can pass its end by.
const LAST_STRETCH: u64 = 32 << 10;

/// Appends filler so that the next record begins at exactly `position`; nothing, if none can begin there, or not any more.
fn fill_until(log: &mut WalLog, position: Lsn) -> Option<()> {
    let layout = Layout(log.config().segment_size);
    let target = layout.usable(position);
    if layout.start(target) != position || !position.0.is_multiple_of(8) || position < log.next_record() {
        return None;
    }
    if target - layout.usable(log.next_record()) > 2 * LAST_STRETCH {
        log.fill_to(layout.end(target - LAST_STRETCH));
    }
    match target.checked_sub(layout.usable(log.next_record()))? {
        0 => Some(()),
        room => {
            log.insert(RecordPlan::Noop(data_in(room)?));
            (log.next_record() == position).then_some(())
        }
    }
}

/// How many bytes of main data a NOOP has that takes `room` bytes of WAL, a multiple of 8, padding included. Nothing, if no record is so
/// short: its header has 24 bytes, and data is introduced by 2, beyond 255 bytes by 5.
fn data_in(room: u64) -> Option<u32> {
    let room = u32::try_from(room).ok()?;
    match (room.checked_sub(24)?, room.checked_sub(26), room.checked_sub(29)) {
        (0, ..) => Some(0),
        (_, Some(length @ 1..=255), _) | (_, _, Some(length @ 256..)) => Some(length),
        _ => Some(255),
    }
}

/// Writes what stands at `at`. A recording that does not add up, of a damaged server for instance, gets what fits.
fn place(log: &mut WalLog, at: Lsn, mark: &Mark, next: Option<Lsn>) {
    let reached = fill_until(log, at).is_some();
    match mark {
        Mark::Redo if reached && log.config().version.has_checkpoint_redo_record() => {
            log.insert(Record::CheckpointRedo(WalLevel::Replica.number()));
        }
        Mark::Checkpoint(backup) if reached => {
            let copy = backup.checkpoint_copy.unwrap_or(CheckPoint { redo: backup.start, ..*log.checkpoint() });
            log.insert(if backup.start < backup.checkpoint {
                Record::CheckpointOnline(copy)
            } else {
                Record::CheckpointShutdown(copy)
            });
        }
        Mark::BackupEnd(start) if reached => {
            log.insert(Record::BackupEnd(*start));
            // Unless something else was written to the segment, its rest is empty.
            let size = log.config().segment_size;
            if next.is_none_or(|next| size.segment_of(next) > size.segment_of(at)) {
                log.switch();
            }
        }
        _ if reached => {}
        _ => {
            log.fill_to(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(start: Lsn) -> WalLog {
        let config = WalLogConfig {
            version: ServerVersion::V18,
            system_identifier: 7,
            timeline: TimelineId::FIRST,
            segment_size: WalSegmentSize::DEFAULT,
            start,
            prev: Lsn::INVALID,
            seed: SEED,
        };
        WalLog::new(config).expect("a start")
    }

    proptest! {
        #[test]
        fn filler_ends_where_a_record_has_to_begin(further in prop_oneof![0..50_u64, 0..20_000_u64]) {
            let mut log = log(Lsn(0x200_0000));
            let layout = Layout(WalSegmentSize::DEFAULT);
            let target = layout.start(layout.usable(log.next_record()) + 8 * further);
            let reached = fill_until(&mut log, target);
            // A record has at least its header.
            prop_assert_eq!(reached.is_some(), !(1..3).contains(&further));
            if reached.is_some() {
                prop_assert_eq!(log.next_record(), target);
            }
        }
    }

    #[test]
    fn a_backup_is_in_its_wal() {
        let size = WalSegmentSize::DEFAULT;
        let (start, checkpoint, end) = (Lsn(0x200_0028), Lsn(0x200_0080), Lsn(0x200_0158));
        let timeline = TimelineId::FIRST;
        let backup = Backup { timeline, start, checkpoint, checkpoint_copy: None, end: Some(end), standby: false };
        let extents = [(timeline, (Lsn(0x200_0000), Lsn(0x300_0000)))].into();
        let wal = Wal::new(ServerVersion::V18, 7, size, &[backup], &extents);
        let mut segment = vec![0; 16 << 20];
        assert!(wal.read(timeline, Lsn(0x200_0000), &mut segment));
        let mut reader =
            backstop_protocol::wal::reader::WalReader::new(backstop_protocol::wal::reader::WalReaderConfig {
                version: ServerVersion::V18,
                system_identifier: Some(7),
                segment_size: size,
                timeline,
                history: None,
                start: Lsn(0x200_0000),
            });
        let mut seen = Vec::new();
        reader.push_with(&segment, |record| seen.push((record.start, record.end, record.record.clone()))).expect("WAL");
        let at = |position: Lsn| seen.iter().find(|(from, ..)| *from == position).map(|(.., record)| record);
        assert!(matches!(at(start), Some(Record::CheckpointRedo(_))), "{seen:?}");
        assert!(matches!(at(checkpoint), Some(Record::CheckpointOnline(copy)) if copy.redo == start), "{seen:?}");
        let ended = seen.iter().find(|(.., record)| *record == Record::BackupEnd(start)).map(|(_, until, _)| *until);
        assert_eq!(ended, Some(end));
    }
}
