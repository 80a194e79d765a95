use proptest::prelude::*;

use super::*;

/// `pg_control` of real servers after a clean shutdown on their second timeline, up to the CRC.
#[rustfmt::skip]
const RECORDED: [(ServerVersion, &str); 7] = [
    (ServerVersion::V12, "5450345b28fa006bb1040000dce3080c010000000000000029fa006b00000000b03e000300000000b03e00030000000002000000020000000100000000000000e901000000000000034000000100000000000000df0100000100000001000000010000000000000029fa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000101000001000000bbb0acb241ff1d62e74d005f7f776b5b1e9a4a10783ffdd8a18068e0f0b25471581e1d16"),
    (ServerVersion::V13, "83f0b5812afa006b14050000a1620a0c01000000000000002bfa006b00000000b03e000300000000b03e00030000000002000000020000000100000000000000e801000000000000034000000100000000000000de010000010000000100000001000000000000002bfa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000100000001000000fbe06d85df5fee34b9ceadd9db559ea5bb3397d7d42c4dfb17a3ba59bf4a85c99d974ff8"),
    (ServerVersion::V14, "b2b0357e2cfa006b140500002de90b0c01000000000000002dfa006b00000000003d000300000000003d00030000000002000000020000000100000000000000e002000000000000034000000100000000000000d6020000010000000100000001000000000000002dfa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc07000000080000010000000100000067541ab88a23cd9a6ae0de64fbe08cdfe4c382639c7e96d556f99fb8194e117695ad5bbe"),
    (ServerVersion::V15, "e1d062b82efa006b1405000025770d0c01000000000000002ffa006b00000000503b000300000000503b00030000000002000000020000000100000000000000d702000000000000034000000100000000000000cc020000010000000100000001000000000000002ffa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000100000001000000ce8b84c38c5ee192b79dc6fd4ec73774eb24d13ef255729374d313297fa4bda9eb21d08a"),
    (ServerVersion::V16, "0e21e3aa30fa006b14050000fff50e0c010000000000000031fa006b00000000a039000300000000a03900030000000002000000020000000100000000000000dd02000000000000034000000100000000000000d20200000100000001000000010000000000000031fa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000100000001000000c8cb68e7c5f7171b7806c8f20425a95da86f66bb6f6c49d228dbaa0dec2ac4ff3c1d2644"),
    (ServerVersion::V17, "3ba1179b32fa006ba40600008979100c010000000000000033fa006b00000000b839000300000000b83900030000000002000000020000000100000001000000e502000000000000034000000100000000000000da0200000100000001000000010000000000000033fa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000100000001000000dc4263f21c2a3fb8e2b116a62f7c1a21100ff01904d43c13417d3e6199d9644b3c177c79"),
    (ServerVersion::V18, "6801b58d34fa006b080700003300120c010000000000000035fa006b00000000b839000300000000b83900030000000002000000020000000100000001000000f302000000000000034000000100000000000000e80200000100000001000000010000000000000035fa006b0000000000000000000000000000000000000000e8030000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000640000000800000005000000000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000cc070000000800000100000001000000010a2fd343c67aec68cce4a4aea641e52a20df5887724879efdd36950ab694625a0000002c2b35c0"),
];

fn recorded(hex: &str) -> Vec<u8> {
    let mut content: Vec<u8> =
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    content.resize(CONTROL_FILE_SIZE, 0);
    content
}

#[test]
fn recorded_files_are_read_and_written_back() {
    for (version, hex) in RECORDED {
        let content = recorded(hex);
        let control = ControlFile::decode(&content).unwrap();
        assert_eq!(control.version, version);
        assert_eq!(control.state, DbState::ShutDown);
        assert_eq!(control.checkpoint, control.checkpoint_copy.redo);
        assert_eq!(control.checkpoint_copy.timeline, TimelineId(2));
        assert!(control.checkpoint_copy.full_page_writes);
        assert_eq!(control.unlogged_lsn, Lsn(1000));
        assert_eq!((control.max_connections, control.max_worker_processes, control.max_wal_senders), (100, 8, 5));
        assert_eq!((control.max_locks_per_transaction, control.data_checksum_version), (64, 1));
        assert_eq!(control.wal_segment_size, WalSegmentSize::DEFAULT);
        assert!(control.encode() == content, "{version}");
    }
}

#[test]
fn reads_the_fields_of_a_recorded_file() {
    let control = ControlFile::decode(&recorded(RECORDED[6].1)).unwrap();
    assert_eq!(control.system_identifier, 7_710_437_665_680_982_376);
    assert_eq!(control.time, 1_795_226_165);
    assert_eq!(control.checkpoint, Lsn(0x300_39B8));
    assert_eq!(control.checkpoint_copy.wal_level, 1);
    assert_eq!(control.checkpoint_copy.next_xid, 0x2F3);
    assert!(control.char_signedness);
}

#[test]
fn refuses_what_a_server_refuses() {
    let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = recorded(RECORDED[3].1);
        change(&mut content);
        ControlFile::decode(&content).unwrap_err().to_string()
    };
    let with_crc = |at: usize, value: u8| {
        refusal(&|content| {
            content[at] = value;
            let crc = crc32c::crc32c(&content[..288]).to_le_bytes();
            content[288..292].copy_from_slice(&crc);
        })
    };
    assert_eq!(refusal(&|c| c.truncate(8191)), "could not read file \"global/pg_control\": read 8191 of 8192");
    assert_eq!(refusal(&|c| c[300] = 1), "unexpected data in control file at offset 300");
    assert!(refusal(&|c| c[0] ^= 1).starts_with("incorrect checksum in control file: calculated "));
    assert!(refusal(&|c| c[8] = 0).starts_with("unknown control file: PG_CONTROL_VERSION 1280 (0x00000500)"));
    assert_eq!(with_crc(16, 7), "invalid state in control file at offset 16: 7");
    assert_eq!(with_crc(172, 3), "invalid wal_level in control file at offset 172: 3");
    assert_eq!(with_crc(228, 1), "invalid xlog_seg_size in control file at offset 228: 16777217");
    assert_eq!(
        with_crc(217, 0x40),
        "database files are incompatible with server: the database cluster was initialized with BLCKSZ 16384"
    );
}

proptest! {
    #[test]
    fn round_trips(which in 0_usize..7, identifier: u64, nonce: [u8; 32], signed: bool, lsn: u64, flags: [bool; 4]) {
        let version = RECORDED[which].0;
        let mut control = ControlFile::new(version, identifier, TimelineId(3));
        control.checkpoint = Lsn(lsn);
        control.checkpoint_copy.redo = Lsn(!lsn);
        control.nonce = nonce;
        control.char_signedness = signed || !version.control_has_char_signedness();
        [control.backup_end_required, control.wal_log_hints, control.track_commit_timestamp, _] = flags;
        prop_assert_eq!(ControlFile::decode(&control.encode()), Ok(control));
    }

    #[test]
    fn a_flipped_byte_is_refused(which in 0_usize..7, at in 0..CONTROL_FILE_SIZE, flip in 1_u8..) {
        let mut content = recorded(RECORDED[which].1);
        content[at] ^= flip;
        prop_assert!(ControlFile::decode(&content).is_err());
    }

    #[test]
    fn any_content_with_a_right_crc_is_safe(which in 0_usize..7, body in proptest::collection::vec(any::<u8>(), 272)) {
        let mut content = recorded(RECORDED[which].1);
        content[16..288].copy_from_slice(&body);
        let at = crc_offset(RECORDED[which].0);
        let crc = crc32c::crc32c(&content[..at]).to_le_bytes();
        content[at..at + 4].copy_from_slice(&crc);
        let _ = ControlFile::decode(&content);
    }
}
