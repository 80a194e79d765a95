use proptest::prelude::*;

use super::*;
use crate::wal::log::{WalLog, WalLogConfig};
use crate::wal::page::{FIRST_IS_OVERWRITE_CONTRECORD, WalPageHeader};
use crate::wal::record::{RM_XLOG, XLogRecord};

fn log() -> WalLog {
    WalLog::new(WalLogConfig {
        version: ServerVersion::V15,
        system_identifier: 42,
        timeline: TimelineId(1),
        segment_size: WalSegmentSize::new(1 << 20).unwrap(),
        start: Lsn(0x10_0028),
        prev: Lsn(0x8028),
        seed: 1,
    })
    .unwrap()
}

fn config() -> WalReaderConfig {
    WalReaderConfig {
        version: ServerVersion::V15,
        system_identifier: Some(42),
        segment_size: WalSegmentSize::new(1 << 20).unwrap(),
        timeline: TimelineId(1),
        history: None,
        start: Lsn(0x10_0028),
    }
}

fn filled() -> Vec<u8> {
    let mut log = log();
    log.insert(Record::NextOid(16_384));
    log.fill(40_000);
    let mut bytes = vec![0; usize::try_from(log.insert_position() - log.first()).unwrap()];
    log.read(log.first(), &mut bytes).unwrap();
    bytes
}

fn refusal(config: WalReaderConfig, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = filled();
    change(&mut bytes);
    WalReader::new(config).push(&bytes).unwrap_err().to_string()
}

#[test]
fn says_what_is_wrong_as_postgresql_does() {
    let change = |change: fn(&mut Vec<u8>)| refusal(config(), change);
    assert_eq!(change(|b| b[0] = 0), "invalid magic number D100 in WAL page at 0/100000");
    assert_eq!(change(|b| b[2] = 0), "invalid info bits 0000 in WAL page at 0/100000");
    assert_eq!(change(|b| b[8192 + 2] |= 2), "invalid info bits 0007 in WAL page at 0/102000");
    assert_eq!(change(|b| b[8192 + 3] |= 1), "invalid info bits 0105 in WAL page at 0/102000");
    assert_eq!(change(|b| b[8192 + 10] = 7), "unexpected pageaddr 0/72000 in WAL page at 0/102000");
    assert_eq!(change(|b| b[4] = 9), "out-of-sequence timeline ID 9 (after 1) in WAL page at 0/100000");
    assert_eq!(change(|b| b[8192 + 4] = 0), "out-of-sequence timeline ID 0 (after 1) in WAL page at 0/102000");
    assert_eq!(change(|b| b[8192 + 2] = 4), "there is no contrecord flag at 0/102000");
    assert_eq!(change(|b| b[8192 + 17] = 9), "invalid contrecord length 2372 (expected 68) at 0/102000");
    assert_eq!(change(|b| b[40] = 23), "invalid record length at 0/100028: expected at least 24, got 23");
    assert_eq!(change(|b| b[40 + 17] = 22), "invalid resource manager ID 22 at 0/100028");
    assert_eq!(change(|b| b[72 + 8] = 0), "record with incorrect prev-link 0/100000 at 0/100048");
    assert_eq!(change(|b| b[40 + 27] = 0), "incorrect resource manager data checksum in record at 0/100028");
    assert_eq!(
        change(|b| b[36] = 0xFF),
        "WAL file is from different database system: incorrect XLOG_BLCKSZ 8447 in page header at 0/100000"
    );
    assert_eq!(
        refusal(WalReaderConfig { system_identifier: Some(43), ..config() }, |_| {}),
        "WAL file is from different database system: WAL file database system identifier is 42, pg_control database \
         system identifier is 43 at 0/100000"
    );
    assert_eq!(
        refusal(WalReaderConfig { segment_size: WalSegmentSize::DEFAULT, start: Lsn(0), ..config() }, |_| {}),
        "WAL file is from different database system: incorrect segment size 1048576 in page header at 0/0"
    );
}

#[test]
fn repeats_its_error() {
    let mut reader = WalReader::new(config());
    let error = reader.push(&[1; 100]).unwrap_err();
    assert_eq!(reader.push(&[]), Err(error.clone()));
    assert_eq!(reader.finish(), Err(error));
    assert_eq!(reader.valid_to(), Lsn(0x10_0000));
}

#[test]
fn knows_how_wal_ended() {
    let bytes = filled();
    let mut reader = WalReader::new(config());
    assert_eq!(reader.tail(), WalTail::Open);
    for (until, tail, valid_to) in [
        (20, WalTail::Partial, 0x10_0000),
        (40, WalTail::Open, 0x10_0000),
        (43, WalTail::Partial, 0x10_0000),
        (72, WalTail::Open, 0x10_0048),
        (73, WalTail::Partial, 0x10_0048),
        (bytes.len(), WalTail::Open, 0x10_0000 + bytes.len() as u64),
    ] {
        let from = usize::try_from(reader.position() - Lsn(0x10_0000)).unwrap();
        reader.push(&bytes[from..until]).unwrap();
        assert_eq!((reader.tail(), reader.valid_to()), (tail, Lsn(valid_to)), "{until}");
    }
    assert_eq!(reader.finish(), Ok(()));
    let end = reader.valid_to();
    reader.push(&vec![0; (1 << 20) - bytes.len()]).unwrap();
    assert_eq!((reader.tail(), reader.valid_to()), (WalTail::Zero, end));
    let hole = reader.push(&[0]).unwrap_err().to_string();
    assert_eq!(hole, format!("invalid record length at {end}: expected at least 24, got 0"));
}

#[test]
fn a_record_must_end() {
    let mut reader = WalReader::new(config());
    reader.push(&filled()[..69]).unwrap();
    assert_eq!(reader.finish().unwrap_err().to_string(), "record at 0/100028 is not complete");
}

#[test]
fn nothing_may_follow_a_switch_in_its_segment() {
    let mut log = log();
    log.insert(Record::NextOid(1));
    log.switch();
    log.insert(Record::NextOid(2));
    let mut bytes = vec![0; (1 << 20) + 72];
    log.read(log.first(), &mut bytes).unwrap();
    let mut reader = WalReader::new(config());
    let mut names = Vec::new();
    reader.push_with(&bytes[..1 << 20], |record| names.push(record.record.name())).unwrap();
    assert_eq!((reader.tail(), reader.valid_to()), (WalTail::Switch, Lsn(0x20_0000)));
    reader.push_with(&bytes[1 << 20..], |record| names.push(record.record.name())).unwrap();
    assert_eq!(names, ["NEXTOID", "SWITCH", "NEXTOID"]);
    bytes[0x5000] = 1;
    let error = WalReader::new(config()).push(&bytes).unwrap_err().to_string();
    assert_eq!(error, "unexpected data after the end of WAL at 0/105000");
    // Recovery goes on with the next segment, and so does who reads as it does.
    let mut reader = WalReader::new(config()).passing_over_tails();
    reader.push(&bytes).unwrap();
    assert_eq!(reader.records(), 3);
}

#[test]
fn an_abandoned_record_is_overwritten() {
    let mut log = log();
    log.insert(Record::NextOid(1));
    log.fill(8192);
    let mut bytes = vec![0; 0x2000];
    log.read(log.first(), &mut bytes).unwrap();
    let mut reader = WalReader::new(config());
    reader.push(&bytes).unwrap();
    let last = reader.last_record().unwrap();
    let mut page = WalPageHeader {
        magic: ServerVersion::V15.wal_page_magic(),
        info: FIRST_IS_OVERWRITE_CONTRECORD,
        timeline: TimelineId(1),
        address: Lsn(0x10_2000),
        remaining: 0,
        long: None,
    }
    .encode();
    page.extend(XLogRecord::around(0, last, RM_XLOG, 0xD0, &[0; 16]).encode());
    reader.push(&page).unwrap();
    assert_eq!((reader.last_record(), reader.tail()), (Some(Lsn(0x10_2018)), WalTail::Open));
}

proptest! {
    #[test]
    fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300), pieces in 1_usize..50) {
        let mut reader = WalReader::new(config());
        for piece in bytes.chunks(pieces) {
            let _ = reader.push(piece);
        }
        let _ = (reader.finish(), reader.tail());
    }

    #[test]
    fn any_damage_is_safe(damage in proptest::collection::vec((0_usize..40_000, any::<u8>()), 1..40), size in 1_usize..9000) {
        let mut bytes = filled();
        for (at, value) in damage {
            bytes[at] = value;
        }
        let mut reader = WalReader::new(config());
        for piece in bytes.chunks(size) {
            let _ = reader.push(piece);
        }
        let _ = (reader.finish(), reader.tail());
        prop_assert!(reader.valid_to() <= Lsn(0x10_0000 + bytes.len() as u64));
    }

    /// Records in one piece go another way than those in parts, and those that are told than those that are not.
    #[test]
    fn pieces_and_listeners_change_nothing(damage in proptest::option::of((0_usize..40_000, any::<u8>())), size in 1_usize..9000) {
        let mut bytes = filled();
        if let Some((at, value)) = damage {
            bytes[at] = value;
        }
        let mut whole = WalReader::new(config());
        let result = whole.push(&bytes);
        let mut records = 0;
        let mut told = WalReader::new(config());
        prop_assert_eq!(told.push_with(&bytes, |_| records += 1), result.clone());
        prop_assert_eq!((told.records(), records), (whole.records(), whole.records()));
        let mut parts = WalReader::new(config());
        prop_assert_eq!(bytes.chunks(size).try_for_each(|piece| parts.push(piece)), result.clone());
        prop_assert_eq!(
            (parts.valid_to(), parts.records(), parts.last_record(), parts.finish()),
            (whole.valid_to(), whole.records(), whole.last_record(), whole.finish())
        );
        prop_assert!(result.is_err() || parts.tail() == whole.tail());
    }

    #[test]
    fn any_length_of_any_body_is_safe(info: u8, manager in 0_u8..12, body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = filled();
        bytes.truncate(40);
        bytes.extend(XLogRecord { xid: 0, prev: Lsn(8), info, resource_manager: manager, body }.encode());
        let _ = WalReader::new(config()).push(&bytes);
    }
}
