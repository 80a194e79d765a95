//! A real data directory whose WAL the mock goes on writing, with images of its blocks, while `pg_basebackup` copies it and
//! streams that WAL: PostgreSQL replays the copy to the very position at which the backup ended, and finds its pages as
//! they were.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{BLOCK_SIZE, PageHeader};
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig, WalTail};
use backstop_protocol::wal::record::Record;
use backstop_protocol::wal::record::block::{BlockReference, BlockTag};
use backstop_protocol::wal_file::WalFileName;
use backstop_scenarios::postgres::{Installation, Postgres, succeed};
use support::Serving;

const ROWS: i64 = 40_000;

/// `FirstNormalObjectId`: relations from here on are those that a test made. Nobody but replay has touched them.
const FIRST_OWN: u32 = 16_384;

/// A data directory with a table here, one in a tablespace, and an index. Its server has been shut down.
fn make(installation: &Installation, scratch: &Path) -> PathBuf {
    let (data, space) = (scratch.join("data"), scratch.join("space"));
    installation.initdb(&data, &["--wal-segsize=1"]);
    fs::create_dir(&space).expect("a directory");
    installation.give(&space);
    let server = Postgres::start(installation, &data, &scratch.join("s"));
    server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    server.sql(&format!(
        "CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, {ROWS}) AS n;
         CREATE INDEX ON here (n);
         CREATE TABLE there TABLESPACE space AS SELECT * FROM here;
         CREATE UNLOGGED TABLE volatile AS SELECT * FROM here"
    ));
    server.stop();
    data
}

fn take(installation: &Installation, mock: &Serving, scratch: &Path) -> PathBuf {
    let copy = scratch.join("copy");
    let mut command = installation.tool("pg_basebackup");
    command.args(["-h", "127.0.0.1", "-p", &mock.port.to_string(), "-U", "x", "-c", "fast", "-X", "stream"]);
    // As fast as WAL grows: about as much of it as of data.
    command.args(["-r", "32M"]);
    command.arg("-T").arg(format!("{}={}", scratch.join("space").display(), scratch.join("copied space").display()));
    succeed(command.arg("-D").arg(&copy));
    succeed(installation.tool("pg_verifybackup").arg(&copy));
    copy
}

/// What the streamed WAL holds from the start of the backup on.
#[derive(Default)]
struct Streamed {
    /// Where the last record begins.
    last: Lsn,
    /// The end of each block's last image before the end of the backup.
    images: BTreeMap<BlockTag, Lsn>,
    checkpoints: u32,
    backup_ends: Vec<(Lsn, Lsn)>,
}

fn read_wal(copy: &Path, start: Lsn, end: Lsn) -> Streamed {
    let control = ControlFile::decode(&fs::read(copy.join("global/pg_control")).expect("a control file"));
    let control = control.expect("a control file");
    let (size, timeline) = (control.wal_segment_size, control.checkpoint_copy.timeline);
    let mut streamed = Streamed::default();
    let mut reader = WalReader::new(WalReaderConfig {
        version: control.version,
        system_identifier: Some(control.system_identifier),
        segment_size: size,
        timeline,
        history: None,
        start,
    });
    for segment in size.segment_of(start).. {
        let Ok(content) = fs::read(copy.join("pg_wal").join(WalFileName::new(timeline, segment, size).to_string()))
        else {
            break;
        };
        let read = reader.push_with(&content, |read| {
            streamed.last = read.start;
            for block in &read.layout.blocks {
                if let BlockReference { tag, image: Some(_), .. } = block {
                    streamed.images.insert(*tag, read.end);
                }
            }
            match read.record {
                Record::CheckpointOnline(_) => streamed.checkpoints += 1,
                Record::BackupEnd(start) => streamed.backup_ends.push((start, read.end)),
                _ => {}
            }
        });
        // The stream ends wherever the end of the backup was passed, be it within a record.
        if read.is_err() || reader.tail() == WalTail::Zero {
            break;
        }
    }
    assert!(reader.valid_to() >= end, "WAL from {start} ends at {} before {end}", reader.valid_to());
    streamed
}

fn read_block(root: &Path, version_directory: &str, tag: BlockTag) -> [u8; BLOCK_SIZE] {
    let (database, relation) = (tag.locator.database, tag.locator.relation);
    let path = match tag.locator.tablespace {
        1663 => root.join(format!("base/{database}/{relation}")),
        oid => root.join(format!("pg_tblspc/{oid}/{version_directory}/{database}/{relation}")),
    };
    let mut page = [0; BLOCK_SIZE];
    let file = File::open(&path).unwrap_or_else(|error| unreachable!("{}: {error}", path.display()));
    file.read_exact_at(&mut page, u64::from(tag.block) * BLOCK_SIZE as u64).expect("a whole block");
    page
}

fn replays(major: u16) {
    let Some(installation) = Installation::find_release(major, "generated WAL replayed by a server") else { return };
    let scratch = installation.scratch();
    let data = make(&installation, scratch.path());
    let scenario = format!(
        "summary = \"A data directory\"\nbecause = \"Its WAL goes on\"\n\
         [cluster]\nsource = {{ directory = \"{}\" }}\nwal-rate = \"32MiB/s\"\n",
        data.display()
    );
    let mock = Serving::start(scratch.path(), "directory", &scenario);
    let copy = take(&installation, &mock, scratch.path());
    drop(mock);

    let manifest = Manifest::parse(&fs::read(copy.join("backup_manifest")).expect("a manifest")).expect("a manifest");
    let [range] = &manifest.wal_ranges[..] else { unreachable!("{:?}", manifest.wal_ranges) };
    let (start, end) = (range.start, range.end);
    let streamed = read_wal(&copy, start, end);
    assert_eq!(streamed.backup_ends, [(start, end)]);
    assert!(streamed.checkpoints >= 1);
    let own: Vec<_> = streamed.images.iter().filter(|(tag, _)| tag.locator.relation >= FIRST_OWN).collect();
    assert!(own.iter().any(|(tag, _)| tag.locator.tablespace == 1663), "images of a table and its index");
    assert!(own.iter().any(|(tag, _)| tag.locator.tablespace >= FIRST_OWN), "images of a table in the tablespace");

    // Recovery as from an archive, of which nothing is left to ask for. Nobody touches the tables afterwards.
    fs::write(copy.join("recovery.signal"), "").expect("a file");
    let settings = "restore_command = 'false'\nautovacuum = off\nlog_min_messages = log\n";
    fs::write(copy.join("postgresql.auto.conf"), settings).expect("a file");
    installation.give(&copy);
    installation.give(&scratch.path().join("copied space"));
    let server = Postgres::start(&installation, &copy, &scratch.path().join("r"));
    // The server answers as soon as it is consistent; promoted, it has replayed everything.
    while server.sql("SELECT pg_is_in_recovery()") != "f" {}
    server.sql("CHECKPOINT");
    let log = server.log();
    for expected in [
        format!("redo starts at {start}"),
        format!("consistent recovery state reached at {end}"),
        format!("redo done at {}", streamed.last),
        "selected new timeline ID: 2".to_owned(),
        "archive recovery complete".to_owned(),
    ] {
        assert!(log.contains(&expected), "{expected}:\n{log}");
    }
    let version_directory = version_directory_of(&data);
    for (&tag, &lsn) in own {
        let (original, replayed) =
            (read_block(&data, &version_directory, tag), read_block(&copy, &version_directory, tag));
        // What was allotted and never written has no position, and gets none.
        let expected = if original == [0; BLOCK_SIZE] { Lsn::INVALID } else { lsn };
        assert_eq!(PageHeader::parse(&replayed).lsn, expected, "{tag:?} was restored by its last image");
        // Behind `pd_lsn` and `pd_checksum`.
        assert!(original[10..] == replayed[10..], "{tag:?} is as it was");
    }

    let sum = ROWS * (ROWS + 1) / 2;
    let joined = "SELECT count(*), sum(h.n) FROM here h JOIN there t ON h.n = t.n AND h.text = t.text";
    assert_eq!(server.sql(joined), format!("{ROWS}|{sum}"));
    let indexed = "SET enable_seqscan = off; SELECT text = md5('77') FROM here WHERE n = 77";
    assert_eq!(server.sql(indexed), "t");
    assert_eq!(server.sql("SELECT count(*) FROM volatile"), "0", "an unlogged table is empty after recovery");
    server.stop();
    succeed(installation.tool("pg_checksums").arg("-D").arg(&copy));
}

/// The directory of the release within a tablespace.
fn version_directory_of(data: &Path) -> String {
    let control = ControlFile::decode(&fs::read(data.join("global/pg_control")).expect("a control file"));
    control.expect("a control file").version.tablespace_version_directory()
}

#[test]
fn by_postgresql_15() {
    replays(15);
}

#[test]
fn by_postgresql_16() {
    replays(16);
}

#[test]
fn by_postgresql_18() {
    replays(18);
}
