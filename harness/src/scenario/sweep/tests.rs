use backstop_mock::server::Carried;
use proptest::prelude::*;

use super::*;

fn every(before: Option<u64>, step: u64) -> Every {
    let (before, step) = (before.map(Amount::Number), Some(Amount::Number(step)));
    Every { unit: Unit::Message, client: None, archive: None, before, step }
}

#[test]
fn steps_are_numbers_of_units() {
    let steps = |before, step, end| every(before, step).steps(end).collect::<Vec<_>>();
    assert_eq!(steps(None, 1, 4), [1, 2, 3]);
    assert_eq!(steps(None, 2, 7), [1, 3, 5]);
    assert_eq!(steps(Some(3), 1, 7), [1, 2]);
    assert_eq!(steps(Some(30), 1, 3), [1, 2]);
    assert_eq!(steps(None, 1, 0), [] as [u64; 0]);
    assert_eq!(steps(None, 1, 1), [] as [u64; 0]);
}

#[test]
fn commands_are_counted_over_all_sessions_of_a_client_and_in_no_role() {
    let count = |session, name: &str, role, commands| SessionCounts {
        session,
        application_name: Some(name.to_owned()),
        role,
        messages: 100,
        commands,
        carried: Carried::default(),
    };
    let counts = [count(1, "parallel", None, 5), count(2, "other", Some("backup"), 7), count(3, "parallel", None, 11)];
    let last = |client: &str| {
        let every = Every { unit: Unit::Command, client: Some(client.to_owned()), ..every(None, 1) };
        Sweep { fault: 0, every, wal_begin: Lsn::INVALID }.end(&counts) - 1
    };
    assert_eq!(["parallel", "#2", "#3", "backup"].map(last), [16, 7, 11, 0]);
    let every = Every { unit: Unit::Command, ..every(None, 1) };
    let sweep = Sweep { fault: 0, every, wal_begin: Lsn::INVALID };
    assert_eq!((sweep.end(&counts), sweep.point(4)), (24, Point::Command { client: None, nth: 4, starts_with: None }));
}

#[test]
fn steps_over_bytes_are_offsets() {
    let size = |bytes| Some(Amount::Size(ByteSize(bytes)));
    let every = Every { unit: Unit::Byte, archive: Some("base.tar".to_owned()), step: size(512), ..every(None, 1) };
    assert_eq!(every.steps(1025).collect::<Vec<_>>(), [0, 512, 1024]);
    assert_eq!(every.steps(1024).collect::<Vec<_>>(), [0, 512]);
    let bounded = Every { before: size(512), ..every.clone() };
    assert_eq!(bounded.steps(1024).collect::<Vec<_>>(), [0]);
    let sweep = Sweep { fault: 0, every, wal_begin: Lsn(0x20_0000) };
    assert_eq!(
        sweep.point(512),
        Point::ArchiveData {
            client: None,
            nth: 1,
            archive: Some("base.tar".to_owned()),
            at: Position::Bytes(ByteSize(512))
        }
    );
    let wal = Every { archive: None, client: Some("wal".to_owned()), ..sweep.every.clone() };
    let sweep = Sweep { every: wal, ..sweep };
    let client = Some("wal".to_owned());
    assert_eq!(sweep.point(512), Point::WalData { client, nth: 1, lsn: Lsn(0x20_0200) });
}

proptest! {
    #[test]
    fn steps_stay_inside(before in proptest::option::of(2..1000_u64), step in 1..1000_u64, end in 0..1000_u64) {
        for number in every(before, step).steps(end) {
            prop_assert!((1..end).contains(&number));
            prop_assert!(before.is_none_or(|before| number < before));
            prop_assert_eq!((number - 1) % step, 0);
        }
    }
}
