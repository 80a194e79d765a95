use proptest::prelude::*;

use super::*;
use crate::page::BLOCK_SIZE;
use crate::wal::page::LONG_HEADER_SIZE;
use crate::wal::reader::{ReadRecord, WalReader, WalReaderConfig, WalTail};
use crate::wal::record::block::{BlockImage, BlockReference, BlockTag, RelFileLocator};
use crate::wal::record::{RM_XLOG, info};

pub(crate) const SYSTEM: u64 = 7_710_437_665_680_982_376;

pub(crate) fn config(version: ServerVersion, start: u64, segment_size: u64) -> WalLogConfig {
    WalLogConfig {
        version,
        system_identifier: SYSTEM,
        timeline: TimelineId(1),
        segment_size: WalSegmentSize::new(segment_size).unwrap(),
        start: Lsn(start),
        prev: Lsn(0x8028),
        seed: 7,
    }
}

pub(crate) fn reader(log: &WalLog) -> WalReader {
    WalReader::new(WalReaderConfig {
        version: log.config.version,
        system_identifier: Some(SYSTEM),
        segment_size: log.config.segment_size,
        timeline: log.config.timeline,
        history: Some(crate::timeline::TimelineHistory::default()),
        start: log.first(),
    })
}

pub(crate) fn bytes(log: &WalLog) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(log.insert_position() - log.first()).unwrap()];
    log.read(log.first(), &mut bytes).unwrap();
    bytes
}

fn records(log: &WalLog) -> Vec<ReadRecord> {
    let mut records = Vec::new();
    let mut reader = reader(log);
    reader.push_with(&bytes(log), |record| records.push(record)).unwrap();
    reader.finish().unwrap();
    assert_eq!(reader.valid_to(), log.insert_position());
    records
}

fn current() -> impl Iterator<Item = ServerVersion> {
    ServerVersion::ALL.into_iter().filter(|version| version.has_current_wal_format())
}

#[test]
fn a_fast_backup_lies_where_it_was_recorded() {
    for version in current() {
        let mut log = WalLog::new(config(version, 0x200_0028, 16 << 20)).unwrap();
        let start = log.backup_start();
        let end = log.backup_end(start.redo);
        let redo_record = version.has_checkpoint_redo_record();
        let layout: Vec<_> = records(&log).iter().map(|r| format!("{} {}", r.start, r.record.name())).collect();
        if redo_record {
            let expected = [
                "0/2000028 CHECKPOINT_REDO",
                "0/2000048 RUNNING_XACTS",
                "0/2000080 CHECKPOINT_ONLINE",
                "0/20000F8 BACKUP_END",
                "0/2000120 SWITCH",
            ];
            assert_eq!(layout, expected, "{version}");
        } else {
            let expected =
                ["0/2000028 RUNNING_XACTS", "0/2000060 CHECKPOINT_ONLINE", "0/20000D8 BACKUP_END", "0/2000100 SWITCH"];
            assert_eq!(layout, expected, "{version}");
        }
        assert_eq!(start.redo, Lsn(0x200_0028));
        assert_eq!(end, Lsn(if redo_record { 0x200_0120 } else { 0x200_0100 }));
        assert_eq!(log.insert_position(), Lsn(0x300_0000));
    }
}

/// BACKUP_END and SWITCH of a recorded backup: everything in them follows from their places.
#[test]
fn the_end_of_a_backup_is_a_recorded_one() {
    let hex = |log: &WalLog, at: u64, length| {
        let mut bytes = vec![0; length];
        log.read(Lsn(at), &mut bytes).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let backup = |version| {
        let mut log = WalLog::new(config(version, 0x200_0000, 16 << 20)).unwrap();
        let start = log.backup_start();
        log.backup_end(start.redo);
        log
    };
    let log = backup(ServerVersion::V12);
    assert_eq!(hex(&log, 0x200_00D8, 34), "22000000000000006000000200000000500000009f8abbdbff082800000200000000");
    assert_eq!(hex(&log, 0x200_0100, 24), "1800000000000000d80000020000000040000000d457a805");
    let log = backup(ServerVersion::V18);
    assert_eq!(hex(&log, 0x200_00F8, 34), "22000000000000008000000200000000500000006d9a0144ff082800000200000000");
    assert_eq!(hex(&log, 0x200_0120, 24), "1800000000000000f80000020000000040000000f2e7fb37");
    let header = "18d1020001000000000000020000000000000000000000006801b58d34fa006b0000000100200000";
    assert_eq!(hex(&log, 0x200_0000, LONG_HEADER_SIZE), header);
}

#[test]
fn pages_say_whether_a_backup_is_running() {
    let mut log = WalLog::new(config(ServerVersion::V15, 0x10_0028, 1 << 20)).unwrap();
    let info = |log: &WalLog, at: u64| {
        let mut bits = [0; 2];
        log.read(Lsn(at + 2), &mut bits).unwrap();
        u16::from_le_bytes(bits)
    };
    log.fill(100);
    let start = log.backup_start();
    log.fill(2 * 8192);
    log.backup_end(start.redo);
    log.fill(8192);
    assert_eq!([info(&log, 0x10_0000), info(&log, 0x20_0000), info(&log, 0x30_0000)], [0x6, 0x2, 0x6]);
    assert_eq!(info(&log, 0x20_2000), 0x1);
    assert_eq!(info(&log, 0x20_8000), 0, "no page header behind a switch");
    assert_eq!(info(&log, 0x30_2000), 0x5);
}

#[test]
fn a_terabyte_is_one_entry() {
    let mut log = WalLog::new(config(ServerVersion::V18, 0x100_0028, 16 << 20)).unwrap();
    for _ in 0..1000 {
        log.fill(1 << 30);
    }
    assert_eq!(log.entries.len(), 1);
    let mut segment = vec![0; 1 << 20];
    let from = Lsn(0x40_0100_0000);
    log.read(from, &mut segment).unwrap();
    let config = WalReaderConfig { start: from, ..reader_config(&log) };
    let mut reader = WalReader::new(config);
    reader.push(&segment).unwrap();
    assert!(reader.records() > 1000);
}

/// A server's life at any rate: checkpoints, backups and the removal of what lies before the last redo position.
#[test]
fn a_terabyte_with_removal_keeps_a_plan_of_constant_length() {
    let mut log = WalLog::new(config(ServerVersion::V18, 0x100_0028, 16 << 20)).unwrap();
    let mut longest = 0;
    for round in 0..2048_u32 {
        log.fill(512 << 20);
        let redo = if round % 3 == 0 {
            let start = log.backup_start();
            log.fill(1 << 20);
            log.backup_end(start.redo);
            start.redo
        } else {
            log.online_checkpoint().redo
        };
        log.forget_before(redo);
        longest = longest.max(log.plan_len());
    }
    assert!(log.insert_position() - Lsn(0x100_0000) > 1 << 40);
    assert!(longest <= 16, "{longest} entries");
    let mut reader = reader(&log);
    reader.push(&bytes(&log)).unwrap();
    assert_eq!(reader.valid_to(), log.insert_position());
}

#[test]
fn what_is_forgotten_cannot_be_read() {
    let mut log = WalLog::new(config(ServerVersion::V15, 0x10_0028, 1 << 20)).unwrap();
    log.fill(5 << 19);
    log.forget_before(Lsn(0x2F_FFFF));
    assert_eq!(log.first(), Lsn(0x20_0000), "whole segments");
    let error = log.read_zero_filled(Lsn(0x1F_FFFF), &mut [0]).unwrap_err().to_string();
    assert!(
        error.starts_with("could not read WAL from 0/1FFFFF to 0/200000: there is WAL from 0/200000 to "),
        "{error}"
    );
    log.read(Lsn(0x20_0000), &mut [0]).unwrap();
    log.forget_before(Lsn(0x10_0000));
    assert_eq!(log.first(), Lsn(0x20_0000), "what is gone does not come back");
    log.switch();
    log.forget_before(Lsn(u64::MAX));
    assert_eq!((log.first(), log.plan_len()), (log.insert_position(), 0));
    log.insert(Record::NextOid(1));
    assert_eq!(records(&log).len(), 1);
}

fn reader_config(log: &WalLog) -> WalReaderConfig {
    WalReaderConfig {
        version: log.config.version,
        system_identifier: Some(SYSTEM),
        segment_size: log.config.segment_size,
        timeline: log.config.timeline,
        history: None,
        start: log.first(),
    }
}

#[test]
fn a_record_can_span_segments() {
    let mut log = WalLog::new(config(ServerVersion::V16, 0x10_0028, 1 << 20)).unwrap();
    log.insert(Record::NextOid(1));
    let range = log.insert(RecordPlan::Noop(5 << 19));
    assert!(range.end > Lsn(0x30_0000));
    log.insert(Record::NextOid(2));
    let last = records(&log).pop().unwrap();
    assert_eq!((last.record, last.start), (Record::NextOid(2), range.end));
    // From the middle of it: the rest is skipped, the next record is found.
    let mut tail = vec![0; usize::try_from(log.insert_position() - Lsn(0x20_0000)).unwrap()];
    log.read(Lsn(0x20_0000), &mut tail).unwrap();
    let mut reader = WalReader::new(WalReaderConfig { start: Lsn(0x20_0000), ..reader_config(&log) });
    reader.push(&tail).unwrap();
    assert_eq!((reader.valid_to(), reader.records()), (log.insert_position(), 1));
}

#[test]
fn a_branch_continues_the_segment_on_its_timeline() {
    let mut old = WalLog::new(config(ServerVersion::V17, 0x10_0028, 1 << 20)).unwrap();
    old.fill(10_000);
    let mut new = old.branch(TimelineId(2));
    let at = new.first();
    assert_eq!(at, old.insert_position());
    new.insert(Record::EndOfRecovery {
        time: crate::wal::stream::PgTimestamp(0),
        timeline: TimelineId(2),
        previous_timeline: TimelineId(1),
        wal_level: 1,
    });
    new.fill(20_000);
    let mut segment = bytes(&old);
    segment.extend(bytes(&new));
    let history = crate::timeline::TimelineHistory {
        switches: vec![crate::timeline::TimelineSwitch { parent: TimelineId(1), at, reason: String::new() }],
    };
    for history in [Some(history), None] {
        let config = WalReaderConfig { timeline: TimelineId(2), history, ..reader_config(&old) };
        let mut reader = WalReader::new(config);
        reader.push(&segment).unwrap();
        assert_eq!(reader.valid_to(), new.insert_position());
    }
    let mut strict = WalReader::new(WalReaderConfig {
        timeline: TimelineId(2),
        history: Some(crate::timeline::TimelineHistory::default()),
        ..reader_config(&old)
    });
    let error = strict.push(&segment).unwrap_err().to_string();
    assert_eq!(error, "out-of-sequence timeline ID 1 (after 2) in WAL page at 0/100000");
}

#[test]
fn refuses_reads_of_what_is_not_there() {
    let mut log = WalLog::new(config(ServerVersion::V15, 0x10_4000, 1 << 20)).unwrap();
    log.fill(100);
    let error = log.read(Lsn(0x10_3FFF), &mut [0; 2]).unwrap_err().to_string();
    assert_eq!(error, "could not read WAL from 0/103FFF to 0/104001: there is WAL from 0/104000 to 0/104418");
    assert!(log.read(log.insert_position(), &mut [0; 1]).is_err());
    let mut beyond = [1; 9000];
    log.read_zero_filled(log.insert_position(), &mut beyond).unwrap();
    assert_eq!(beyond, [0; 9000]);
    for start in [0x10_0001, u64::MAX] {
        assert!(WalLog::new(config(ServerVersion::V15, start, 1 << 20)).is_err());
    }
    log.fill(u64::MAX);
    assert!(log.insert_position() > Lsn(1 << 63));
    log.insert(Record::NextOid(1));
    log.switch();
}

/// Blocks with holes of every size, one with something in its hole, one that was never written.
#[derive(Debug)]
struct Pages;

impl Pages {
    fn page(number: u64) -> [u8; BLOCK_SIZE] {
        let mut page = [0; BLOCK_SIZE];
        if number == 0 {
            return page;
        }
        page.fill(u8::try_from(number % 251).unwrap() + 1);
        let lower = u16::try_from(24 + number % 600).unwrap();
        let upper = u16::try_from(8192 - (number * 97) % 7500).unwrap();
        page[12..14].copy_from_slice(&lower.to_le_bytes());
        page[14..16].copy_from_slice(&upper.to_le_bytes());
        if lower < upper && !number.is_multiple_of(7) {
            page[usize::from(lower)..usize::from(upper)].fill(0);
        }
        page
    }
}

impl Blocks for Pages {
    fn count(&self) -> u64 {
        1000
    }

    fn read(&self, number: u64, page: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag> {
        *page = Self::page(number);
        let locator = RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 };
        Ok(BlockTag { locator, fork: 0, block: u32::try_from(number).unwrap() })
    }
}

/// What replay makes of an image: the bytes of a record that follow its layout.
fn restored(image: BlockImage, bytes: &[u8]) -> Vec<u8> {
    let (before, after) = bytes.split_at(image.hole_offset.into());
    [before, &vec![0; image.hole_length.into()], after].concat()
}

#[test]
fn images_restore_the_blocks_they_are_of() {
    for version in current() {
        let mut log = WalLog::new(config(version, 0x20_0028, 1 << 20)).unwrap();
        log.set_blocks(Arc::new(Pages));
        log.fill(2_000_000);
        log.insert(Record::NextOid(1));
        log.fill(1_000_000);
        assert_eq!(log.plan_len(), 3);
        let whole = bytes(&log);
        let (mut images, mut holes) = (0, 0);
        for read in records(&log) {
            let [BlockReference { tag, image: Some(image), .. }] = read.layout.blocks[..] else { continue };
            assert_eq!((read.header.resource_manager, read.header.info), (RM_XLOG, info::FPI));
            // Its bytes without the page headers between them.
            let from = log.layout.usable(read.start) + u64::from(read.header.total_length - u32::from(image.length));
            let offset = |usable| usize::try_from(log.layout.start(usable) - log.first()).unwrap();
            let bytes: Vec<_> = (from..).take(image.length.into()).map(|usable| whole[offset(usable)]).collect();
            assert_eq!(restored(image, &bytes), Pages::page(tag.block.into()), "block {}", tag.block);
            images += 1;
            holes += usize::from(image.hole_length > 0);
        }
        assert!(images > 150 && holes > 50 && holes < images, "{holes} of {images}");
    }
}

#[derive(Debug)]
struct Unreadable;

impl Blocks for Unreadable {
    fn count(&self) -> u64 {
        1
    }

    fn read(&self, _: u64, _: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn a_block_that_cannot_be_read_is_an_error() {
    let mut log = WalLog::new(config(ServerVersion::V15, 0x20_0028, 1 << 20)).unwrap();
    log.set_blocks(Arc::new(Unreadable));
    log.fill(100);
    let error = log.read(log.first(), &mut [0; 100]).unwrap_err().to_string();
    assert_eq!(error, "could not read the block of a full-page image: entity not found");
}

#[test]
fn filler_reaches_positions_within_page_headers() {
    for begin in [0x20_0000, 0x20_1FC0] {
        for bytes in 0..100 {
            let mut log = WalLog::new(config(ServerVersion::V18, begin, 1 << 20)).unwrap();
            let target = log.insert_position() + bytes;
            assert!(log.fill(bytes) >= target, "{bytes} from {begin:X}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Record),
    Noop(u32),
    Fill(u64),
    Switch,
    Checkpoint,
    Shutdown,
    Backup(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u32>().prop_map(|oid| Step::Insert(Record::NextOid(oid))),
        any::<bool>().prop_map(|on| Step::Insert(Record::FullPageWrites(on))),
        proptest::collection::vec(any::<u8>(), 0..400).prop_map(|data| Step::Insert(Record::Noop(data))),
        (0_u32..30_000).prop_map(Step::Noop),
        (0_u64..60_000).prop_map(Step::Fill),
        Just(Step::Switch),
        Just(Step::Checkpoint),
        Just(Step::Shutdown),
        (0_u64..20_000).prop_map(Step::Backup),
    ]
}

/// A log that holds `steps`, on a segment of 1 MiB.
fn build(version: ServerVersion, images: bool, steps: &[Step]) -> WalLog {
    let mut log = WalLog::new(config(version, 0x20_0028, 1 << 20)).unwrap();
    if images {
        log.set_blocks(Arc::new(Pages));
    }
    for step in steps {
        match step {
            Step::Insert(record) => drop(log.insert(record.clone())),
            Step::Noop(length) => drop(log.insert(RecordPlan::Noop(*length))),
            Step::Fill(bytes) => {
                let target = log.insert_position() + *bytes;
                let end = log.fill(*bytes);
                let more = if images { 11 << 10 } else { 2 << 10 };
                assert!(target <= end && end < target + more, "{end} for {target}");
            }
            Step::Switch => drop(log.switch()),
            Step::Checkpoint => drop(log.online_checkpoint()),
            Step::Shutdown => drop(log.shutdown_checkpoint()),
            Step::Backup(bytes) => {
                let start = log.backup_start();
                log.fill(*bytes);
                log.backup_end(start.redo);
            }
        }
    }
    log
}

fn version() -> impl Strategy<Value = ServerVersion> {
    proptest::sample::select(current().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_log_is_valid_and_reads_the_same_in_pieces(
        version in version(),
        images: bool,
        steps in proptest::collection::vec(step(), 1..8),
        pieces in proptest::collection::vec(1_usize..20_000, 1..12),
    ) {
        let log = build(version, images, &steps);
        let whole = bytes(&log);
        let mut reader = reader(&log);
        let mut at = 0;
        for size in pieces.iter().cycle() {
            if at == whole.len() {
                break;
            }
            let mut piece = vec![0xAA; (*size).min(whole.len() - at)];
            log.read(log.first() + at as u64, &mut piece).unwrap();
            prop_assert!(piece == whole[at..at + piece.len()], "at {at}");
            reader.push(&piece).map_err(|error| TestCaseError::fail(error.to_string()))?;
            at += piece.len();
        }
        prop_assert!(reader.finish().is_ok());
        prop_assert_eq!(reader.valid_to(), log.insert_position());
        prop_assert!(matches!(reader.tail(), WalTail::Open | WalTail::Switch));
        if log.insert_position() > log.first() {
            prop_assert_eq!(reader.last_record(), Some(log.last_record()));
        }
    }

    #[test]
    fn what_is_not_forgotten_stays_as_it_was(
        version in version(),
        images: bool,
        steps in proptest::collection::vec(step(), 1..12),
        which: prop::sample::Index,
    ) {
        let mut log = build(version, images, &steps);
        let whole = bytes(&log);
        prop_assume!(!whole.is_empty());
        let before = log.first();
        log.forget_before(before + which.index(whole.len() + 1) as u64);
        let offset = usize::try_from(log.first() - before).unwrap();
        prop_assert!(bytes(&log) == whole[offset..]);
    }

    #[test]
    fn a_damaged_record_is_refused(
        version in version(),
        images: bool,
        steps in proptest::collection::vec(step(), 1..5),
        which: prop::sample::Index,
        within: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let log = build(version, images, &steps);
        let mut whole = bytes(&log);
        let all = records(&log);
        prop_assume!(!all.is_empty());
        let victim = &all[which.index(all.len())];
        // Of the bytes from its start to its end without the padding: page headers in between count, too.
        let usable = log.layout.usable(victim.start) + within.index(victim.header.total_length as usize) as u64;
        let offset = usize::try_from(log.layout.start(usable) - log.first()).unwrap();
        whole[offset] ^= flip;
        let mut reader = reader(&log);
        let refused = reader.push(&whole).is_err() || reader.finish().is_err();
        prop_assert!(refused || reader.valid_to() <= victim.start, "{:?} at {}", victim, offset);
        prop_assert!(reader.valid_to() <= victim.start);
    }
}
