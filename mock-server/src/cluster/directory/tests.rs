//! Data directories on disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use backstop_protocol::control::{ControlFile, DbState};
use backstop_protocol::wal::log::{WalLog, WalLogConfig};
use tempfile::TempDir;

use super::super::{Cluster, Entry, EntryKind, ground_truth};
use super::*;
use crate::config::{Config, ConfigError, Role, Source};

const SYSTEM_IDENTIFIER: u64 = 7_710_437_665_680_982_376;

/// A data directory as small as can be: what is checked when it is opened, and its one segment of WAL.
fn stopped(version: ServerVersion) -> TempDir {
    let root = TempDir::new().expect("a directory");
    for directory in ["base/5", "global", "pg_tblspc", "pg_wal"] {
        fs::create_dir_all(root.path().join(directory)).expect("a directory");
    }
    fs::write(root.path().join("PG_VERSION"), format!("{version}\n")).expect("a file");
    let segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB");
    let mut log = WalLog::new(WalLogConfig {
        version,
        system_identifier: SYSTEM_IDENTIFIER,
        timeline: TimelineId(1),
        segment_size,
        start: Lsn(0x10_0028),
        prev: Lsn(0),
        seed: 9,
    })
    .expect("a log");
    log.fill(5000);
    let shutdown = log.shutdown_checkpoint();
    let mut segment = vec![0; 1 << 20];
    log.read_zero_filled(Lsn(0x10_0000), &mut segment).expect("a segment");
    // What follows the last record may be anything.
    let end = usize::try_from(log.insert_position() - Lsn(0x10_0000)).expect("fits");
    segment[end..].fill(0xEE);
    fs::write(root.path().join("pg_wal/000000010000000000000001"), segment).expect("a segment");
    let control = ControlFile {
        state: DbState::ShutDown,
        checkpoint: shutdown.checkpoint,
        checkpoint_copy: shutdown.checkpoint_copy,
        wal_segment_size: segment_size,
        ..ControlFile::new(version, SYSTEM_IDENTIFIER, TimelineId(1))
    };
    write_control(root.path(), &control);
    root
}

fn write_control(root: &Path, control: &ControlFile) {
    fs::write(root.join("global/pg_control"), control.encode()).expect("a control file");
}

fn open(root: &Path) -> Result<Cluster, ConfigError> {
    Cluster::new(&Config { source: Source::Directory(root.to_owned()), ..Config::default() })
}

fn entries(cluster: &Cluster, oid: Option<u32>) -> Vec<Entry> {
    cluster.entries(oid).expect("a walk").map(|entry| entry.expect("an entry")).collect()
}

fn names(cluster: &Cluster, oid: Option<u32>) -> Vec<String> {
    entries(cluster, oid).into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
}

#[test]
fn the_directory_says_what_it_is() {
    let root = stopped(ServerVersion::V15);
    let cluster = open(root.path()).expect("a stopped server");
    assert_eq!(cluster.version(), ServerVersion::V15);
    assert_eq!(cluster.system_identifier(), SYSTEM_IDENTIFIER);
    assert_eq!(cluster.segment_size().bytes(), 1 << 20);
    assert!(!cluster.data_checksums());
    assert_eq!(cluster.show("wal_segment_size"), Some(("wal_segment_size".to_owned(), "1MB".to_owned())));
}

#[test]
fn leaves_out_what_postgresql_leaves_out() {
    let root = stopped(ServerVersion::V15);
    let at = |name: &str| root.path().join(name);
    let empty = ["pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];
    for name in empty {
        fs::create_dir(at(name)).expect("a directory");
        fs::write(at(name).join("content"), "x").expect("a file");
    }
    fs::create_dir(at("pg_wal/archive_status")).expect("a directory");
    fs::create_dir_all(at("user/deep")).expect("a directory");
    for name in [
        "postmaster.pid",
        "postmaster.opts",
        "backup_label",
        "backup_label.old",
        "tablespace_map",
        "backup_manifest",
        "postgresql.auto.conf",
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
        "standby.signal",
        "base/5/pg_internal.init",
        "base/5/pg_internal.init.123",
        "base/5/1259",
        "base/5/t3_16409",
        "base/5/t3_16409_fsm",
        "base/5/16500",
        "base/5/16500.1",
        "base/5/16500_fsm",
        "base/5/16500_init",
        "base/5/165001",
        "base/pgsql_tmp123.0",
        "user/deep/postmaster.pid",
        "user/deep/t3_16409",
        "user/deep/16500",
        "user/deep/16500_init",
    ] {
        fs::write(at(name), name).expect("a file");
    }
    fs::create_dir(at("base/pgsql_tmp")).expect("a directory");
    fs::write(at("base/pgsql_tmp/pgsql_tmp1.0"), "x").expect("a file");
    symlink("/etc", at("user/link")).expect("a link");
    let _socket = UnixListener::bind(at("user/socket")).expect("a socket");
    let cluster = open(root.path()).expect("a stopped server");
    insta::assert_snapshot!(names(&cluster, None).join("\n"), @r"
    PG_VERSION
    backup_label.old
    base/
    base/5/
    base/5/1259
    base/5/165001
    base/5/16500_init
    global/
    pg_dynshmem/
    pg_notify/
    pg_replslot/
    pg_serial/
    pg_snapshots/
    pg_stat_tmp/
    pg_subtrans/
    pg_tblspc/
    pg_wal/
    ./pg_wal/archive_status/
    postgresql.auto.conf
    standby.signal
    user/
    user/deep/
    user/deep/16500
    user/deep/16500_init
    user/deep/t3_16409
    user/link
    user/socket
    ");
    let special: Vec<_> =
        entries(&cluster, None).into_iter().filter(|entry| entry.kind == EntryKind::Special).collect();
    assert_eq!(special.len(), 2);
    assert!(fs::symlink_metadata(at("user/socket")).expect("there").file_type().is_socket());
    let truth = ground_truth(&cluster).expect("a walk").map(|entry| entry.expect("an entry").0);
    assert!(truth.into_iter().all(|path| path != b"user/link" && path != b"user/socket"));
}

#[test]
fn entries_are_the_files_on_disk() {
    let root = stopped(ServerVersion::V18);
    let path = root.path().join("base/5/16384");
    let content: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&path, &content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
    let cluster = open(root.path()).expect("a stopped server");
    let found = entries(&cluster, None).into_iter().find(|entry| entry.name == b"base/5/16384").expect("the file");
    assert_eq!((found.size(), found.mode), (80_000, 0o640));
    let mut bytes = vec![0; 100_000];
    assert_eq!(cluster.read(&found, 100, &mut bytes).expect("readable"), 79_900);
    assert_eq!(bytes[..79_900], content[100..]);
    // It shrinks: no more can be read. It grows: no more than was announced is.
    fs::write(&path, &content[..10]).expect("a file");
    assert_eq!(cluster.read(&found, 0, &mut bytes).expect("readable"), 10);
    fs::write(&path, vec![1; 200_000]).expect("a file");
    assert_eq!(cluster.read(&found, 0, &mut bytes).expect("readable"), 80_000);
    assert!(names(&cluster, None).contains(&"./pg_wal/summaries/".to_owned()));
    fs::remove_file(&path).expect("removed");
    assert!(!names(&cluster, None).contains(&"base/5/16384".to_owned()));
}

#[test]
fn tablespaces_are_followed() {
    let root = stopped(ServerVersion::V15);
    let location = TempDir::new().expect("a directory");
    let version = ServerVersion::V15.tablespace_version_directory();
    for name in [&version, "PG_14_202107181"] {
        fs::create_dir_all(location.path().join(name).join("5")).expect("a directory");
        fs::write(location.path().join(name).join("5/16390"), "x").expect("a file");
        fs::write(location.path().join(name).join("5/t1_16391"), "x").expect("a file");
    }
    symlink(location.path(), root.path().join("pg_tblspc/16400")).expect("a link");
    symlink("/nonexistent", root.path().join("pg_tblspc/16300")).expect("a link");
    fs::create_dir_all(root.path().join("pg_tblspc/16500").join(&version).join("5")).expect("a directory");
    fs::write(root.path().join("pg_tblspc/16500").join(&version).join("5/16391"), "x").expect("a file");
    let cluster = open(root.path()).expect("a stopped server");
    let tablespaces: Vec<_> =
        cluster.tablespaces().into_iter().map(|tablespace| (tablespace.oid, tablespace.in_place)).collect();
    assert_eq!(tablespaces, [(16_300, false), (16_400, false), (16_500, true)]);
    assert_eq!(names(&cluster, Some(16_300)), Vec::<String>::new());
    assert_eq!(names(&cluster, Some(16_400)), ["PG_15_202209061/", "PG_15_202209061/5/", "PG_15_202209061/5/16390"]);
    assert_eq!(names(&cluster, Some(16_500)), ["PG_15_202209061/", "PG_15_202209061/5/", "PG_15_202209061/5/16391"]);
    assert_eq!(cluster.tablespace_size(Some(16_400)), 1);
    let base = entries(&cluster, None);
    let link = base.iter().find(|entry| entry.name == b"pg_tblspc/16400/").expect("the link");
    assert_eq!(link.kind, EntryKind::Symlink { target: location.path().as_os_str().as_encoded_bytes().to_vec() });
    let below = base.iter().filter(|entry| entry.name.starts_with(b"pg_tblspc/16500/"));
    assert_eq!(below.map(|entry| entry.kind.clone()).collect::<Vec<_>>(), [EntryKind::Directory]);
}

#[test]
fn wal_goes_on_behind_the_shutdown_checkpoint() {
    let root = stopped(ServerVersion::V15);
    let cluster = open(root.path()).expect("a stopped server");
    let control =
        ControlFile::decode(&fs::read(root.path().join("global/pg_control")).expect("a file")).expect("valid");
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert_eq!(backup.start, Lsn(0x20_0028));
    let taken = ControlFile::decode(&cluster.control_file().expect("bytes")).expect("valid");
    assert_eq!((taken.state, taken.checkpoint), (DbState::InProduction, backup.checkpoint));
    assert_eq!(taken.checkpoint_copy.next_xid, control.checkpoint_copy.next_xid);
    assert_eq!(cluster.stop_backup(backup).expect("its end").end, Lsn(0x20_0100));
    assert_eq!(cluster.oldest_wal(), Lsn(0x20_0000), "the checkpoint removed the segment on disk");

    let cluster = open(root.path()).expect("a stopped server");
    cluster.switch_wal();
    let mut wal = vec![0; 1 << 20];
    cluster.read_wal(TimelineId(1), Lsn(0x10_0000), &mut wal).expect("readable");
    let on_disk = fs::read(root.path().join("pg_wal/000000010000000000000001")).expect("the segment");
    let end = wal.iter().zip(&on_disk).position(|(ours, theirs)| ours != theirs).expect("a difference");
    assert_eq!(Lsn(0x10_0000 + end as u64), control.checkpoint + 120, "the switch record follows");
    assert_eq!(wal.last(), Some(&0));
}

#[test]
fn a_standby_serves_the_shutdown_checkpoint() {
    let root = stopped(ServerVersion::V15);
    let source = Source::Directory(root.path().to_owned());
    let cluster = Cluster::new(&Config { source, role: Role::Standby, ..Config::default() }).expect("a standby");
    let backup = cluster.start_backup("x", true).expect("a backup");
    assert_eq!(backup.start, backup.checkpoint);
    assert_eq!(cluster.stop_backup(backup).expect("its end").end, cluster.flush_position());
    let mut byte = [0];
    cluster.read_wal(TimelineId(1), Lsn(0x10_0028), &mut byte).expect("readable");
}

#[test]
fn refuses_directories_that_cannot_be_served() {
    let refusal = |root: &TempDir| {
        let text = open(root.path()).expect_err("must be refused").to_string();
        text.replace(&root.path().display().to_string(), "DIR")
    };
    let mut refusals = vec![refusal(&TempDir::new().expect("a directory"))];
    let root = stopped(ServerVersion::V15);
    let control =
        ControlFile::decode(&fs::read(root.path().join("global/pg_control")).expect("a file")).expect("valid");
    for state in [DbState::InProduction, DbState::ShutDownInRecovery] {
        write_control(root.path(), &ControlFile { state, ..control.clone() });
        refusals.push(refusal(&root));
    }
    write_control(root.path(), &control);
    fs::write(root.path().join("PG_VERSION"), "16\n").expect("a file");
    refusals.push(refusal(&root));
    fs::write(root.path().join("PG_VERSION"), "8.4\n").expect("a file");
    refusals.push(refusal(&root));
    fs::write(root.path().join("PG_VERSION"), "15\n".repeat(100)).expect("a file");
    refusals.push(refusal(&root));
    fs::write(root.path().join("PG_VERSION"), "15\n").expect("a file");
    fs::write(root.path().join("global/pg_control"), [1; 8192]).expect("a file");
    refusals.push(refusal(&root));
    write_control(root.path(), &control);
    let segment = root.path().join("pg_wal/000000010000000000000001");
    fs::write(&segment, "short").expect("a file");
    refusals.push(refusal(&root));
    fs::remove_file(&segment).expect("removed");
    refusals.push(refusal(&root));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    could not read DIR/PG_VERSION: No such file or directory (os error 2)
    the server of data directory DIR was not shut down: its state is "in production"
    the server of data directory DIR was not shut down: its state is "shut down in recovery"
    invalid data directory: file DIR/global/pg_control: it belongs to 15, PG_VERSION says 16
    invalid data directory: file DIR/PG_VERSION: unknown PostgreSQL version "8.4": expected one of 9.1 to 9.6, or 10 to 18
    invalid data directory: file DIR/PG_VERSION: larger than 64 bytes
    invalid data directory: file DIR/global/pg_control: unknown control file: PG_CONTROL_VERSION 16843009 (0x01010101), CATALOG_VERSION_NO 16843009 are of no release from 12 to 18
    invalid data directory: file DIR/pg_wal/000000010000000000000001: shorter than 1048576 bytes
    could not read DIR/pg_wal/000000010000000000000001: No such file or directory (os error 2)
    "#);
}
