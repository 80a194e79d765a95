use proptest::prelude::*;

use crate::version::ServerVersion;

use super::*;

#[path = "recorded.rs"]
mod recorded;

use recorded::RECORDED;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn recorded_records_are_read_and_written_back() {
    for &(version, name, hex) in RECORDED {
        let content = bytes(hex);
        let raw = XLogRecord::decode(&content).unwrap_or_else(|error| panic!("{version} {name}: {error}"));
        assert!(raw.encode() == content, "{version} {name}");
        let record = Record::decode(version, &raw).unwrap();
        assert_eq!(record.name(), name, "{version}");
        if !matches!(record, Record::Other { .. }) {
            assert!(record.encode(version, raw.xid, raw.prev).encode() == content, "{version} {name}");
        }
    }
}

#[test]
fn every_kind_was_recorded_for_every_release() {
    for version in ServerVersion::ALL.into_iter().filter(|version| version.has_current_wal_format()) {
        let mut kinds: Vec<_> = RECORDED.iter().filter(|row| row.0 == version).map(|row| row.1).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.retain(|&kind| kind != "OTHER");
        assert_eq!(kinds.len(), if version.has_checkpoint_redo_record() { 10 } else { 9 }, "{version}: {kinds:?}");
    }
}

#[test]
fn lengths_are_those_of_postgresql() {
    let version = ServerVersion::V18;
    let checkpoint = CheckPoint::initial(version, crate::timeline::TimelineId(1));
    let length = |record: Record| record.encode(version, 0, Lsn(0)).header().total_length;
    assert_eq!(length(Record::CheckpointOnline(checkpoint)), 114);
    assert_eq!(length(Record::RunningXacts(RunningXacts::idle(750))), 50);
    assert_eq!(length(Record::FullPageWrites(true)), 27);
    assert_eq!(length(Record::Switch), 24);
    assert_eq!(length(Record::Noop(vec![0; 255])), 24 + 2 + 255);
    assert_eq!(length(Record::Noop(vec![0; 256])), 24 + 5 + 256);
}

proptest! {
    #[test]
    fn noops_round_trip(data in proptest::collection::vec(any::<u8>(), 0..600), xid: u32, prev: u64) {
        let raw = Record::Noop(data.clone()).encode(ServerVersion::V15, xid, Lsn(prev));
        let again = XLogRecord::decode(&raw.encode()).unwrap();
        prop_assert_eq!(&again, &raw);
        prop_assert_eq!(Record::decode(ServerVersion::V15, &again), Ok(Record::Noop(data)));
    }

    #[test]
    fn a_flipped_byte_is_refused(which in 0..RECORDED.len(), at: prop::sample::Index, flip in 1_u8..) {
        let mut content = bytes(RECORDED[which].2);
        let at = at.index(content.len());
        content[at] ^= flip;
        prop_assert!(XLogRecord::decode(&content).is_err());
    }

    #[test]
    fn any_body_is_safe(body in proptest::collection::vec(any::<u8>(), 0..120), info: u8, manager in 0_u8..10, which in 8_usize..15) {
        let raw = XLogRecord { xid: 0, prev: Lsn(0), info, resource_manager: manager, body: body.clone() };
        let _ = Record::decode(ServerVersion::ALL[which], &raw);
        let around = XLogRecord::around(0, Lsn(0), manager, info, &body);
        let _ = Record::decode(ServerVersion::ALL[which], &around);
        let _ = XLogRecord::decode(&body);
    }
}
