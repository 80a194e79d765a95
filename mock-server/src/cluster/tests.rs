//! What clusters do, seen from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop_protocol::page::{self, PageCheck};
use backstop_protocol::timeline::TimelineHistory;
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal_file::WalFileName;
use proptest::prelude::*;

use super::*;
use crate::config::TablespaceConfig;

fn cluster(change: impl FnOnce(&mut Config)) -> Cluster {
    let mut config = Config::default();
    change(&mut config);
    Cluster::new(&config).expect("a valid configuration")
}

fn lsn(text: &str) -> Lsn {
    text.parse().expect("an LSN")
}

fn wal_file(text: &str) -> WalFileName {
    text.parse().expect("a WAL file name")
}

fn names(cluster: &Cluster, oid: Option<u32>) -> Vec<String> {
    let entries = cluster.entries(oid).expect("a walk");
    entries.map(|entry| String::from_utf8(entry.expect("an entry").name).expect("text")).collect()
}

fn content(cluster: &Cluster, entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(entry.size()).expect("fits")];
    assert_eq!(cluster.read(entry, 0, &mut bytes).expect("readable"), bytes.len());
    bytes
}

#[test]
fn backups_begin_and_end_where_recorded_ones_do() {
    for version in ServerVersion::ALL {
        let cluster = cluster(|config| config.version = version);
        let (checkpoint, end) = if version.has_checkpoint_redo_record() { ("80", "120") } else { ("60", "100") };
        for segment in 2..5 {
            let backup = cluster.start_backup("base backup", true).expect("a backup");
            assert_eq!(backup.start, lsn(&format!("0/{segment}000028")), "{version}");
            assert_eq!(backup.checkpoint, lsn(&format!("0/{segment}0000{checkpoint}")), "{version}");
            assert_eq!(cluster.running_backups(), 1);
            let stopped = cluster.stop_backup(backup).expect("its end");
            assert_eq!(stopped.end, lsn(&format!("0/{segment}000{end}")), "{version}");
            assert_eq!(cluster.flush_position(), lsn(&format!("0/{}000000", segment + 1)), "{version}");
            assert_eq!(cluster.running_backups(), 0);
        }
    }
}

#[test]
fn labels_are_exact() {
    let backup =
        cluster(|config| config.version = ServerVersion::V15).start_backup("cap full", true).expect("a backup");
    insta::assert_snapshot!(backup.label_text, @r"
    START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
    CHECKPOINT LOCATION: 0/2000060
    BACKUP METHOD: streamed
    BACKUP FROM: primary
    START TIME: 2026-11-20 16:18:42 UTC
    LABEL: cap full
    START TIMELINE: 1
    ");
    let refusal = cluster(|_| ()).start_backup(&"x".repeat(1025), true).expect_err("too long");
    insta::assert_snapshot!(refusal, @"ERROR:  backup label too long (max 1024 bytes)");
}

#[test]
fn a_dropped_backup_is_aborted() {
    let cluster = cluster(|_| ());
    let first = cluster.start_backup("a", true).expect("a backup");
    let second = cluster.start_backup("b", true).expect("another at the same time");
    assert_eq!(cluster.running_backups(), 2);
    drop(first);
    assert_eq!(cluster.running_backups(), 1);
    cluster.stop_backup(second).expect("its end");
    assert_eq!(cluster.running_backups(), 0);
}

#[test]
fn control_file_holds_what_a_backup_needs() {
    for version in ServerVersion::ALL.into_iter().filter(|version| *version >= ServerVersion::V12) {
        let cluster = cluster(|config| config.version = version);
        let backup = cluster.start_backup("base backup", true).expect("a backup");
        let control = ControlFile::decode(&cluster.control_file().expect("bytes")).expect("a control file");
        assert_eq!(control.version, version);
        assert_eq!(control.state, DbState::InProduction);
        assert_eq!(control.system_identifier, cluster.system_identifier());
        assert_eq!((control.checkpoint, control.checkpoint_copy.redo), (backup.checkpoint, backup.start));
        assert_eq!(control.data_checksum_version, 1);
        assert_eq!(control.wal_segment_size, cluster.segment_size());
    }
}

#[test]
fn a_small_cluster_looks_like_a_data_directory() {
    let cluster = cluster(|config| {
        let location = "/srv/ts1".to_owned();
        config.tablespaces = vec![TablespaceConfig { oid: 16_400, location, size: 1 << 20 }];
    });
    let names = names(&cluster, None);
    for name in [
        "PG_VERSION",
        "base/1/1259",
        "base/5/1259_fsm",
        "base/16384/16385_vm",
        "base/16384/16402_init",
        "global/pg_filenode.map",
        "pg_wal/",
        "./pg_wal/archive_status/",
        "./pg_wal/summaries/",
        "pg_tblspc/16400/",
        "pg_xact/0000",
        "postgresql.conf",
    ] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
    assert!(!names.iter().any(|name| name == "global/pg_control"));
    assert!((60..=140).contains(&names.len()), "{}", names.len());
    for (index, name) in names.iter().enumerate() {
        let parent = name.trim_end_matches('/').rsplit_once('/').map(|(parent, _)| format!("{parent}/"));
        let parent = parent.map(|parent| parent.trim_start_matches("./").to_owned());
        assert!(parent.is_none_or(|parent| names[..index].contains(&parent)), "{name} before its directory");
    }
    let total = cluster.tablespace_size(None);
    assert!(total.abs_diff(8 << 20) < 64 << 10, "{total}");
    let tablespace = cluster.tablespace_size(Some(16_400));
    assert!(tablespace.abs_diff(1 << 20) < 64 << 10, "{tablespace}");
}

#[test]
fn older_releases_have_other_files() {
    let names_of = |version| names(&cluster(|config| config.version = version), None);
    let old = names_of(ServerVersion::V9_1);
    assert!(
        ["pg_xlog/", "./pg_xlog/archive_status/", "pg_clog/0000"]
            .iter()
            .all(|name| old.iter().any(|other| other == name)),
        "{old:?}"
    );
    assert!(!old.iter().any(|name| name == "postgresql.auto.conf" || name == "pg_replslot/"));
    assert!(names_of(ServerVersion::V12).contains(&"base/13395/1259".to_owned()));
    assert!(!names_of(ServerVersion::V16).contains(&"./pg_wal/summaries/".to_owned()));
    assert!(!cluster(|config| config.version = ServerVersion::V9_2).data_checksums());
}

#[test]
fn sizes_are_about_what_was_asked_for() {
    for size in [2 << 20, 64 << 20, 10 << 30, 1 << 40] {
        let total = cluster(|config| config.size = size).tablespace_size(None);
        assert!(total.abs_diff(size) < (size / 50).max(64 << 10), "{total} of {size}");
    }
    // Every catalog has a block at least.
    assert!(cluster(|config| config.size = 0).tablespace_size(None) < 1 << 20);
}

#[test]
fn a_terabyte_is_listed_without_being_held() {
    let cluster = cluster(|config| config.size = 1 << 40);
    let entries = cluster.entries(None).expect("a walk").map(|entry| entry.expect("an entry"));
    let files: BTreeMap<_, _> = entries.map(|entry| (entry.name.clone(), entry)).collect();
    assert!(files.values().all(|entry| entry.size() <= 1 << 30));
    assert!(files.len() > 1000);
    let segment = &files[&b"base/16384/16385.500"[..]];
    assert_eq!(segment.size(), 1 << 30);
    let mut page = [0; page::BLOCK_SIZE];
    assert_eq!(cluster.read(segment, (1 << 30) - 8192, &mut page).expect("readable"), 8192);
    assert_ne!(page::verify(&page, 501 * page::BLOCKS_PER_FILE - 1), PageCheck::New, "or choose another page");
    assert_eq!(page::verify(&page, 501 * page::BLOCKS_PER_FILE - 1), PageCheck::Ok);
    assert_eq!(cluster.read(segment, 1 << 30, &mut page).expect("readable"), 0);
}

#[test]
fn every_page_of_every_relation_is_valid() {
    let cluster = cluster(|config| config.size = 4 << 20);
    let start = cluster.start_backup("x", true).expect("a backup").start;
    let mut pages = 0;
    for entry in cluster.entries(None).expect("a walk").map(|entry| entry.expect("an entry")) {
        if !matches!(entry.origin, Origin::Pages(_)) {
            continue;
        }
        for (block, bytes) in (0..).zip(content(&cluster, &entry).chunks(page::BLOCK_SIZE)) {
            let bytes: &[u8; page::BLOCK_SIZE] = bytes.try_into().expect("whole pages");
            assert!(!matches!(page::verify(bytes, block), PageCheck::Mismatch { .. }));
            assert!(page::PageHeader::parse(bytes).lsn < start, "or its checksum would not be verified");
            pages += 1;
        }
    }
    assert!(pages > 400);
}

proptest! {
    #[test]
    fn reads_do_not_depend_on_how_they_are_made(file: prop::sample::Index, offset in 0..70_000_u64, length in 0..20_000_usize) {
        let cluster = cluster(|config| config.seed = 42);
        let again = super::tests::cluster(|config| config.seed = 42);
        let entries: Vec<_> = cluster.entries(None).expect("a walk").map(|entry| entry.expect("an entry")).collect();
        let entry = file.get(&entries);
        let whole = content(&cluster, entry);
        let mut part = vec![0; length];
        let count = again.read(entry, offset, &mut part).expect("readable");
        let begin = usize::try_from(offset).expect("fits").min(whole.len());
        let end = (begin + length).min(whole.len());
        prop_assert_eq!(&part[..count], &whole[begin..end]);
    }
}

#[test]
fn seeds_decide_everything() {
    let facts = |seed| {
        let cluster = cluster(|config| config.seed = seed);
        let version = cluster.entries(None).expect("a walk").map(|entry| entry.expect("an entry"));
        let file = version.into_iter().find(|entry| entry.name == b"base/16384/16385").expect("the file");
        (cluster.system_identifier(), cluster.epoch(), file.mtime, content(&cluster, &file))
    };
    assert_eq!(facts(1), facts(1));
    let (one, two) = (facts(1), facts(2));
    assert!(one.0 != two.0 && one.1 != two.1 && one.2 != two.2 && one.3 != two.3);
}

#[test]
fn ground_truth_names_files_as_the_manifest_does() {
    let cluster = cluster(|config| {
        let tablespace = |oid, location: &str| TablespaceConfig { oid, location: location.to_owned(), size: 1 << 16 };
        config.tablespaces = vec![tablespace(16_400, "/srv/ts1"), tablespace(16_500, "pg_tblspc/16500")];
    });
    let truth = ground_truth(&cluster).expect("a walk").map(|entry| entry.expect("an entry").0);
    let truth: Vec<_> = truth.map(|path| String::from_utf8(path).expect("text")).collect();
    assert_eq!(truth[0], "pg_tblspc/16400/PG_18_202506291");
    for path in
        ["pg_tblspc/16500/PG_18_202506291/16384/16501", "PG_VERSION", "pg_wal/archive_status", "pg_tblspc/16400"]
    {
        assert!(truth.iter().any(|other| other == path), "{path}");
    }
    assert_eq!(names(&cluster, Some(16_400))[0], "PG_18_202506291/");
    assert_eq!(names(&cluster, Some(99_999)), Vec::<String>::new());
    let link = |oid: &str| {
        let entries = cluster.entries(None).expect("a walk").map(|entry| entry.expect("an entry"));
        entries.into_iter().find(|entry| entry.name == format!("pg_tblspc/{oid}/").as_bytes()).expect("the link").kind
    };
    assert_eq!(link("16400"), EntryKind::Symlink { target: b"/srv/ts1".to_vec() });
    assert_eq!(link("16500"), EntryKind::Directory);
}

#[test]
fn refuses_clusters_that_cannot_be() {
    let refusal = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        Cluster::new(&config).expect_err("must be refused").to_string()
    };
    let tablespace = |oid, location: &str| vec![TablespaceConfig { oid, location: location.to_owned(), size: 0 }];
    let refusals = [
        refusal(&|config| config.size = 1 << 50),
        refusal(&|config| config.wal_start = Some(Lsn(0x28))),
        refusal(&|config| config.wal_start = Some(Lsn(0x200_0030))),
        refusal(&|config| config.wal_start = Some(Lsn(0x200_0101))),
        refusal(&|config| config.timeline = TimelineId(0)),
        refusal(&|config| config.tablespaces = tablespace(1663, "/srv/ts1")),
        refusal(&|config| config.tablespaces = tablespace(16_400, "srv/ts1")),
        refusal(&|config| {
            config.version = ServerVersion::V14;
            config.tablespaces = tablespace(16_400, "pg_tblspc/16400");
        }),
        refusal(&|config| config.tablespaces = [tablespace(16_400, "/a"), tablespace(16_400, "/b")].concat()),
        refusal(&|config| config.tablespaces = [tablespace(16_400, "/a"), tablespace(16_401, "/a")].concat()),
        refusal(&|config| drop(config.settings.insert("max_replication_slots".to_owned(), "many".to_owned()))),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    invalid cluster.size: more than 32TiB
    invalid cluster.wal-start: the WAL of a cluster begins in segment 1
    invalid cluster.wal-start: no record can begin at 0/2000030
    invalid cluster.wal-start: no record can begin at 0/2000101
    invalid server.timeline: expected 1 to 1000
    invalid cluster.tablespace 1663: its OID is not that of a user's object, which begin at 16384
    invalid cluster.tablespace 16400: tablespace location must be an absolute path
    invalid cluster.tablespace 16400: tablespaces in place exist since 15
    invalid cluster.tablespace 16400: its OID is another tablespace's
    invalid cluster.tablespace 16401: its location is another tablespace's
    invalid settings.max_replication_slots: "many" is not a whole number
    "#);
}

/// All WAL of the current timeline from `from` on parses, and reading it in pieces gives the same.
fn assert_wal_is_valid(cluster: &Cluster, from: Lsn) {
    let timeline = cluster.timeline();
    let to = cluster.flush_position();
    let mut bytes = vec![0; usize::try_from(to - from).expect("fits")];
    cluster.read_wal(timeline, from, &mut bytes).expect("readable");
    let mut again = vec![0; bytes.len()];
    for (index, piece) in again.chunks_mut(50_001).enumerate() {
        cluster.read_wal(timeline, from + 50_001 * index as u64, piece).expect("readable");
    }
    assert!(bytes == again, "WAL does not depend on how it is read");
    let mut reader = WalReader::new(WalReaderConfig {
        version: cluster.version(),
        system_identifier: Some(cluster.system_identifier()),
        segment_size: cluster.segment_size(),
        timeline,
        history: Some(cluster.history(timeline).unwrap_or_default()),
        start: from,
    });
    reader.push(&bytes).expect("valid WAL");
    reader.finish().expect("whole records");
    assert_eq!(reader.valid_to(), to);
}

#[test]
fn wal_begins_where_it_is_told_to() {
    for text in ["0/1000028", "0/2000000", "0/2000028", "0/2000100", "0/3ABCDE8", "5/FF000028", "0/20000A8"] {
        let cluster = cluster(|config| config.wal_start = Some(lsn(text)));
        let position = cluster.flush_position();
        let expected = match text {
            // There must be a checkpoint first.
            "0/1000028" => lsn("0/10000A0"),
            "0/2000028" => lsn("0/2000000"),
            "5/FF000028" => lsn("5/FF000000"),
            other => lsn(other),
        };
        assert_eq!(position, expected, "{text}");
        assert_wal_is_valid(&cluster, cluster.oldest_wal());
    }
}

#[test]
fn reads_past_the_end_fail_and_files_are_padded() {
    let cluster = cluster(|config| config.wal_start = Some(lsn("0/2000100")));
    let mut byte = [1];
    assert!(matches!(cluster.read_wal(TimelineId(1), lsn("0/2000100"), &mut byte), Err(WalReadError::NotThere)));
    assert!(matches!(cluster.read_wal(TimelineId(2), lsn("0/2000000"), &mut byte), Err(WalReadError::NotThere)));
    let file = wal_file("000000010000000000000002");
    cluster.read_wal_file(file, 0x100, &mut byte).expect("readable");
    assert_eq!(byte, [0]);
    let size = cluster.segment_size().bytes();
    cluster.read_wal_file(file, size - 1, &mut byte).expect("readable");
    assert!(cluster.read_wal_file(file, size, &mut byte).is_err());
    assert!(cluster.read_wal_file(file, u64::MAX, &mut byte).is_err());
}

#[test]
fn checkpoints_remove_what_nothing_needs() {
    let cluster = cluster(|config| config.wal_segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB"));
    assert_eq!(cluster.oldest_wal(), lsn("0/100000"));
    cluster.create_slot("keeps", false, true, 1).expect("a slot");
    cluster.create_slot("idle", false, false, 1).expect("a slot");
    cluster.grow_wal(5 << 20);
    cluster.checkpoint();
    assert_eq!(cluster.oldest_wal(), lsn("0/100000"), "the slot needs it");
    cluster.confirm_flush("keeps", lsn("0/300000"));
    cluster.checkpoint();
    assert_eq!(cluster.oldest_wal(), lsn("0/300000"));
    let backup = cluster.start_backup("x", true).expect("a backup");
    cluster.grow_wal(3 << 20);
    cluster.confirm_flush("keeps", cluster.flush_position());
    cluster.checkpoint();
    assert_eq!(cluster.oldest_wal(), lsn("0/800000"), "the running backup needs it");
    let start = backup.start;
    drop(backup);
    cluster.checkpoint();
    assert!(cluster.oldest_wal() > start, "nothing needs it any more");
    let removed = cluster.wal_files(start, cluster.flush_position());
    assert!(
        matches!(removed, Err(WalReadError::Removed(name)) if name == wal_file("000000010000000000000008")),
        "{removed:?}"
    );
}

#[test]
fn settings_keep_wal_and_limit_slots() {
    let with = |name: &str, value: &str| {
        cluster(|config| {
            config.wal_segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB");
            config.settings.insert(name.to_owned(), value.to_owned());
        })
    };
    let kept = with("wal_keep_size", "3MB");
    kept.grow_wal(8 << 20);
    kept.checkpoint();
    assert_eq!(kept.segment_size().segment_of(kept.oldest_wal()), 7);

    let limited = with("max_slot_wal_keep_size", "2MB");
    limited.create_slot("slow", false, true, 1).expect("a slot");
    limited.grow_wal(8 << 20);
    limited.checkpoint();
    assert_eq!(limited.segment_size().segment_of(limited.oldest_wal()), 8);
    let slot = limited.read_slot("slow").expect("the slot");
    assert_eq!((slot.invalidation_reason, slot.restart_lsn), (Some(InvalidationReason::WalRemoved), None));
    assert_eq!(limited.wal_status(&slot), Some(WalStatus::Lost));
}

#[test]
fn recycling_takes_what_is_needed_too() {
    let cluster = cluster(|_| ());
    cluster.create_slot("s", false, true, 1).expect("a slot");
    let backup = cluster.start_backup("x", true).expect("a backup");
    let lost = cluster.recycle_wal(wal_file("000000010000000000000002"));
    assert_eq!(lost.len(), 1);
    assert_eq!(cluster.oldest_wal(), lsn("0/3000000"));
    let refusal = cluster.read_wal(TimelineId(1), backup.start, &mut [0]).expect_err("gone");
    assert_eq!(refusal.to_string(), "requested WAL segment 000000010000000000000002 has already been removed");
    let end = cluster.stop_backup(backup).expect("its end").end;
    assert!(cluster.wal_files(lsn("0/2000028"), end).is_err());
    assert_eq!(cluster.recycle_wal(wal_file("0000000100000000FFFFFFFF")), [], "no such segment");
}

#[test]
fn the_wal_of_a_backup_is_its_segments() {
    let cluster = cluster(|_| ());
    let backup = cluster.start_backup("x", true).expect("a backup");
    cluster.grow_wal(20 << 20);
    let start = backup.start;
    let end = cluster.stop_backup(backup).expect("its end").end;
    let files = cluster.wal_files(start, end).expect("files");
    assert_eq!(files, [wal_file("000000010000000000000002"), wal_file("000000010000000000000003")]);
    assert!(matches!(cluster.wal_files(start, Lsn(u64::MAX)), Err(WalReadError::NotThere)));
    assert_wal_is_valid(&cluster, cluster.oldest_wal());
}

#[test]
fn a_standby_serves_its_restartpoint() {
    let cluster = cluster(|config| {
        config.role = Role::Standby;
        config.version = ServerVersion::V15;
    });
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert_eq!((backup.start, backup.checkpoint), (lsn("0/2000028"), lsn("0/2000028")));
    assert!(backup.label_text.contains("BACKUP FROM: standby\n"));
    let control = ControlFile::decode(&cluster.control_file().expect("bytes")).expect("a control file");
    assert_eq!(control.state, DbState::InArchiveRecovery);
    assert_eq!(control.min_recovery_point, lsn("0/20000A0"));
    assert_eq!(cluster.stop_backup(backup).expect("its end").end, lsn("0/20000A0"));
    assert_eq!(cluster.flush_position(), lsn("0/20000A0"), "a standby writes nothing");
    assert_eq!(cluster.show("IN_HOT_STANDBY"), Some(("in_hot_standby".to_owned(), "on".to_owned())));
    assert!(names(&cluster, None).iter().any(|name| name == "standby.signal"));
}

#[test]
fn the_backup_of_a_standby_ends_where_its_files_are_consistent() {
    let cluster = cluster(|config| {
        config.role = Role::Standby;
        config.version = ServerVersion::V15;
    });
    cluster.grow_wal(1 << 20);
    let replayed = cluster.flush_position();
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert!(backup.start < replayed, "the restartpoint lies back");
    cluster.grow_wal(1 << 20);
    let control = ControlFile::decode(&cluster.control_file().expect("bytes")).expect("a control file");
    assert_eq!(control.min_recovery_point, replayed);
    let end = cluster.stop_backup(backup).expect("its end");
    assert_eq!((end.end, end.timeline), (replayed, TimelineId(1)));
    // A restartpoint writes what was replayed since.
    let backup = cluster.start_backup("x", true).expect("a backup");
    cluster.grow_wal(1 << 20);
    cluster.checkpoint();
    let restartpoint = cluster.flush_position();
    cluster.grow_wal(1 << 20);
    assert_eq!(cluster.stop_backup(backup).expect("its end").end, restartpoint);
}

#[test]
fn the_backup_of_a_standby_can_end_on_another_timeline() {
    let cluster = cluster(|config| config.role = Role::Standby);
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert_eq!(cluster.follow_promotion(), Ok(TimelineId(2)));
    assert!(cluster.in_recovery());
    let start = backup.timeline;
    let end = cluster.stop_backup(backup).expect("its end");
    assert_eq!((start, end.timeline, end.end), (TimelineId(1), TimelineId(2), cluster.flush_position()));
    assert_eq!(cluster.history_timelines(), [TimelineId(2)]);
    assert_wal_is_valid(&cluster, cluster.segment_size().round_down(end.end));
    assert!(super::tests::cluster(|_| ()).follow_promotion().is_err(), "a primary follows nobody");
}

#[test]
fn a_standby_refuses_backups_without_full_page_images() {
    for (version, since, during) in [
        (
            ServerVersion::V12,
            "WAL generated with full_page_writes=off was replayed since last restartpoint",
            "WAL generated with full_page_writes=off was replayed during online backup",
        ),
        (
            ServerVersion::V18,
            "WAL generated with \"full_page_writes=off\" was replayed since last restartpoint",
            "WAL generated with \"full_page_writes=off\" was replayed during online backup",
        ),
    ] {
        let cluster = cluster(|config| {
            config.role = Role::Standby;
            config.version = version;
        });
        let backup = cluster.start_backup("x", true).expect("a backup");
        cluster.set("full_page_writes", "off").expect("a setting");
        assert_eq!(cluster.stop_backup(backup).expect_err("cannot be cured").message, during);
        let refusal = cluster.start_backup("x", true).expect_err("still in doubt");
        assert_eq!(refusal.message, since);
        let primary = if version < ServerVersion::V14 { "the master" } else { "the primary" };
        assert!(refusal.hint.is_some_and(|hint| hint.contains(&format!("run CHECKPOINT on {primary},"))));
        cluster.checkpoint();
        assert!(cluster.start_backup("x", true).is_err(), "the checkpoint was written without, too");
        cluster.set("full_page_writes", "on").expect("a setting");
        assert!(cluster.start_backup("x", true).is_err(), "no checkpoint yet");
        cluster.checkpoint();
        cluster.start_backup("x", true).expect("safe again");
        assert_wal_is_valid(&cluster, cluster.oldest_wal());
    }
    let primary = cluster(|config| drop(config.settings.insert("full_page_writes".to_owned(), "off".to_owned())));
    primary.start_backup("x", true).expect("a backup of a primary forces them");
}

#[test]
fn wal_goes_on_behind_every_kind_of_end() {
    for version in ServerVersion::ALL.into_iter().filter(|version| *version >= ServerVersion::V12) {
        let cluster = cluster(|config| config.version = version);
        cluster.grow_wal(1 << 20);
        let backup = cluster.start_backup("x", true).expect("a backup");
        cluster.crash();
        drop(backup);
        cluster.start_up().expect("recovered");
        cluster.grow_wal(1 << 20);
        cluster.shut_down();
        let shut_down = cluster.flush_position();
        cluster.start_up().expect("started");
        assert_eq!(cluster.flush_position(), shut_down, "nothing to recover");
        cluster.set("full_page_writes", "off").expect("a setting");
        cluster.checkpoint();
        assert_wal_is_valid(&cluster, cluster.oldest_wal());
    }
}

#[test]
fn removed_wal_of_an_ended_timeline_is_that_of_its_successor() {
    let cluster = cluster(|config| config.role = Role::Standby);
    cluster.promote().expect("a standby");
    cluster.switch_wal();
    cluster.recycle_wal(wal_file("000000020000000000000002"));
    let gone =
        |timeline, at: &str| cluster.read_wal(TimelineId(timeline), lsn(at), &mut [0]).expect_err("gone").to_string();
    let removed = |name: &str| format!("requested WAL segment {name} has already been removed");
    assert_eq!(gone(1, "0/2000000"), removed("000000020000000000000002"));
    assert_eq!(gone(1, "0/1000000"), removed("000000010000000000000001"));
    assert_eq!(gone(2, "0/2000000"), removed("000000020000000000000002"));
}

#[test]
fn promotion_begins_a_timeline_and_fails_backups() {
    for (version, after) in [(ServerVersion::V15, "0/2000180"), (ServerVersion::V18, "0/20001A8")] {
        let cluster = cluster(|config| {
            config.role = Role::Standby;
            config.version = version;
        });
        let backup = cluster.start_backup("x", true).expect("a backup");
        backup.check().expect("still a standby");
        assert_eq!(cluster.promote(), Ok(TimelineId(2)));
        assert_eq!(cluster.flush_position(), lsn(after), "as far on as recorded");
        assert!(!cluster.in_recovery());
        let history = cluster.history(TimelineId(2)).expect("a history file");
        assert_eq!(history.to_string(), "1\t0/20000A0\tno recovery target specified\n");
        assert_eq!(cluster.history(TimelineId(1)), None);
        assert_eq!(cluster.history_timelines(), [TimelineId(2)]);
        insta::allow_duplicates! {
            insta::assert_snapshot!(cluster.stop_backup(backup).expect_err("corrupt"), @r"
            ERROR:  the standby was promoted during online backup
            HINT:  This means that the backup being taken is corrupt and should not be used. Try taking another online backup.
            ");
        }
        assert_eq!(cluster.running_backups(), 0);
        assert!(cluster.promote().is_err(), "not twice");

        // The old timeline ends at the switch point; the segment that both share begins alike.
        assert!(matches!(cluster.read_wal(TimelineId(1), lsn("0/2000099"), &mut [0; 8]), Err(WalReadError::NotThere)));
        let mut old = vec![0; 0xA0];
        cluster.read_wal(TimelineId(1), lsn("0/2000000"), &mut old).expect("readable");
        let mut new = vec![0; 0xA0];
        cluster.read_wal(TimelineId(2), lsn("0/2000000"), &mut new).expect("readable");
        assert_eq!(old, new);
        let missing = cluster.read_wal(TimelineId(2), lsn("0/1000000"), &mut [0]).expect_err("of timeline 1");
        assert_eq!(missing.to_string(), "requested WAL segment 000000020000000000000001 has already been removed");
        let files = cluster.wal_files(lsn("0/1000028"), cluster.flush_position()).expect("files");
        assert_eq!(files, [wal_file("000000010000000000000001"), wal_file("000000020000000000000002")]);

        cluster.grow_wal(1 << 20);
        assert_wal_is_valid(&cluster, lsn("0/2000000"));
        let next = cluster.start_backup("y", true).expect("a backup of a primary");
        assert_eq!((next.start, next.timeline), (lsn("0/3000028"), TimelineId(2)));
    }
}

#[test]
fn later_timelines_have_a_past() {
    let cluster = cluster(|config| config.timeline = TimelineId(3));
    assert_eq!(cluster.timeline(), TimelineId(3));
    let history = cluster.history(TimelineId(3)).expect("a history file");
    assert_eq!(history.switches.len(), 2);
    assert_eq!(TimelineHistory::parse(&history.to_string()), Ok(history));
    assert_eq!(cluster.history_timelines(), [TimelineId(2), TimelineId(3)]);
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert_eq!(backup.start, lsn("0/2000028"));
    assert!(backup.label_text.contains("(file 000000030000000000000002)"));
}

#[tokio::test(start_paused = true)]
async fn wal_grows_at_its_rate() {
    let cluster = cluster(|config| config.wal_rate = 1 << 20);
    let begin = cluster.flush_position();
    let grows = cluster.run_wal();
    let waits = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let grown = cluster.flush_position() - begin;
        assert!(grown.abs_diff(10 << 20) < 200 << 10, "{grown}");
        let target = cluster.flush_position() + 1;
        assert!(cluster.flushed_beyond(target).await > target);
    };
    tokio::select! { () = grows => {}, () = waits => {} }
    super::tests::cluster(|_| ()).run_wal().await;
}

/// A gigabyte a second for a quarter of an hour, with backups and promotions on the way.
#[tokio::test(start_paused = true)]
async fn endless_wal_takes_no_memory() {
    let cluster = cluster(|config| {
        config.wal_rate = 1 << 30;
        config.role = Role::Standby;
    });
    let mut longest = 0;
    for minute in 0..15 {
        let growing = cluster.run_wal();
        assert!(tokio::time::timeout(Duration::from_secs(60), growing).await.is_err(), "it never ends");
        if minute == 5 {
            cluster.promote().expect("a standby");
        }
        let backup = cluster.start_backup("x", true).expect("a backup");
        cluster.stop_backup(backup).expect("its end");
        longest = longest.max(cluster.inner.lock().wal.plan_len());
    }
    assert!(cluster.flush_position() > Lsn(900 << 30));
    assert!(longest <= 32, "{longest} entries");
    assert_wal_is_valid(&cluster, cluster.oldest_wal());
}

#[tokio::test(start_paused = true)]
async fn fast_wal_is_recycled_by_checkpoints() {
    let cluster = cluster(|config| {
        config.wal_rate = 16 << 20;
        config.settings.insert("max_wal_size".to_owned(), "64MB".to_owned());
    });
    tokio::select! { () = cluster.run_wal() => {}, () = tokio::time::sleep(Duration::from_secs(60)) => {} }
    let kept = cluster.flush_position() - cluster.oldest_wal();
    assert!((16 << 20..128 << 20).contains(&kept), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_slot_can_wait() {
    let cluster = cluster(|_| ());
    cluster.create_slot("s", false, false, 1).expect("a slot");
    cluster.acquire_slot("s", 1).expect("free");
    assert!(cluster.drop_slot("s", 2, false).await.is_err());
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.release_slot("s", 1);
    };
    let (dropped, ()) = tokio::join!(cluster.drop_slot("s", 2, true), release);
    dropped.expect("dropped once it was free");
    assert_eq!(cluster.slots(), []);
}
