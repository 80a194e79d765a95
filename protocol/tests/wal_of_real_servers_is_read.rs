//! What PostgreSQL itself writes is read to the end, and every record found where `pg_waldump` finds it, with the same
//! links, lengths and blocks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::reader::{ReadRecord, WalReader, WalReaderConfig, WalTail};
use backstop_protocol::wal::record::block::{BlockImage, BlockReference};
use backstop_protocol::wal_file::WalFileName;
use backstop_scenarios::postgres::{Installation, Postgres};

/// Some of everything: every index, images of every compression, subtransactions, messages, switches.
const WORK: [&str; 20] = [
    "CREATE TABLE t (n int PRIMARY KEY, a int[], p point, v text)",
    "INSERT INTO t SELECT n, ARRAY[n % 7, n % 11], point(n % 91, n % 37), repeat(md5(n::text), n % 50)
         FROM generate_series(1, 3000) AS n",
    "CREATE INDEX ON t USING hash (n); CREATE INDEX ON t USING gin (a); CREATE INDEX ON t USING gist (p);
         CREATE INDEX ON t USING spgist (p); CREATE INDEX ON t USING brin (n); CREATE SEQUENCE s",
    "CHECKPOINT",
    "UPDATE t SET v = v || 'x' WHERE n % 3 = 0; DELETE FROM t WHERE n % 5 = 0; SELECT nextval('s')",
    "VACUUM t",
    "CHECKPOINT",
    "CREATE DATABASE d",
    "ANALYZE t",
    "BEGIN; INSERT INTO t VALUES (10001); SAVEPOINT a; INSERT INTO t VALUES (10002); SAVEPOINT b;
         INSERT INTO t VALUES (10003); ROLLBACK TO a; SELECT n FROM t WHERE n = 1 FOR UPDATE; COMMIT",
    "BEGIN; INSERT INTO t VALUES (10004); PREPARE TRANSACTION 'p'",
    "COMMIT PREPARED 'p'",
    "SELECT pg_logical_emit_message(false, 'prefix', repeat('m', 20000))",
    "SELECT pg_create_restore_point('here')",
    "SELECT pg_switch_wal()",
    "UPDATE t SET v = repeat('large', 2000) WHERE n < 20",
    "DROP DATABASE d",
    "TRUNCATE t",
    "DROP TABLE t",
    "DROP SEQUENCE s",
];

/// How `pg_waldump` prints a record, but for what it says of its meaning.
fn line(read: &ReadRecord) -> String {
    let total = read.header.total_length;
    let manager = read.header.resource_manager_name().expect("a built-in resource manager");
    let rest = total - read.layout.image_bytes();
    let mut line = format!("{manager} {rest}/{total} {} {} {}", read.header.xid, read.start, read.header.prev);
    for BlockReference { id, tag, image, .. } in &read.layout.blocks {
        let locator = tag.locator;
        let _ = write!(line, ", blkref #{id}: rel {}/{}/{}", locator.tablespace, locator.database, locator.relation);
        if let Some(fork) = [None, Some("fsm"), Some("vm"), Some("init")].get(usize::from(tag.fork)).copied().flatten()
        {
            let _ = write!(line, " fork {fork}");
        }
        let _ = write!(line, " blk {}", tag.block);
        match image {
            Some(BlockImage { apply: true, .. }) => line.push_str(" FPW"),
            Some(BlockImage { apply: false, .. }) => line.push_str(" FPW for WAL verification"),
            None => {}
        }
    }
    line
}

/// `rmgr: Heap  len (rec/tot):  54/  150, tx:  735, lsn: 0/014F3F00, prev 0/014F3EC8, desc: …, blkref #0: …` in our form.
fn told(text: &str) -> String {
    let field = |name: &str, end: &str| {
        let rest = text.split_once(name).unwrap_or_else(|| unreachable!("{text}")).1;
        rest.split_once(end).map_or(rest, |field| field.0).trim()
    };
    let lengths: String = field("len (rec/tot):", ",").split_whitespace().collect();
    let position = |text: &str| text.parse::<Lsn>().expect("a position");
    let blocks = text.find(", blkref #").and_then(|at| text.get(at..)).unwrap_or_default();
    let manager = text.split_whitespace().nth(1).unwrap_or_default();
    let (xid, lsn, prev) = (field("tx:", ","), position(field("lsn: ", ",")), position(field("prev ", ",")));
    format!("{manager} {lengths} {xid} {lsn} {prev}{blocks}")
}

/// Reads `pg_wal` from its first segment to the end of WAL.
fn read(data: &Path, control: &ControlFile) -> (WalReader, Vec<String>, Vec<ReadRecord>) {
    let size = control.wal_segment_size;
    let mut reader = WalReader::new(WalReaderConfig {
        version: control.version,
        system_identifier: Some(control.system_identifier),
        segment_size: size,
        timeline: TimelineId(1),
        history: None,
        start: size.start_of(1),
    });
    let (mut names, mut records) = (Vec::new(), Vec::new());
    for segment in 1.. {
        let name = WalFileName::new(TimelineId(1), segment, size).to_string();
        let Ok(content) = fs::read(data.join("pg_wal").join(&name)) else { break };
        reader.push_with(&content, |read| records.push(read)).expect("valid WAL");
        names.push(name);
        if reader.tail() == WalTail::Zero {
            break;
        }
    }
    (reader, names, records)
}

fn agrees(major: u16, compressions: &[&str]) {
    let Some(installation) = Installation::find_release(major, "WAL of a real server") else { return };
    let scratch = installation.scratch();
    let settings =
        ["wal_level = logical", "wal_keep_size = '1GB'", "max_prepared_transactions = 5", "wal_log_hints = on"];
    let server = Postgres::new(&installation, scratch.path(), &settings);
    for (round, compression) in compressions.iter().enumerate() {
        let consistency = if round == 0 { "all" } else { "" };
        server.sql(&format!("ALTER SYSTEM SET wal_compression = '{compression}'"));
        server.sql(&format!("ALTER SYSTEM SET wal_consistency_checking = '{consistency}'"));
        server.sql("SELECT pg_reload_conf()");
        for statements in WORK {
            server.sql(statements);
        }
    }
    server.stop();

    let control = ControlFile::decode(&fs::read(server.data().join("global/pg_control")).expect("a control file"));
    let control = control.expect("a control file");
    let (reader, names, records) = read(server.data(), &control);
    assert_eq!(reader.last_record(), Some(control.checkpoint), "the shutdown checkpoint is the last record");
    let mut command = installation.tool("pg_waldump");
    command.arg("-p").arg(server.data().join("pg_wal")).args(["-s", &control.wal_segment_size.start_of(1).to_string()]);
    command.args(["-e", &reader.valid_to().to_string()]).args([names.first(), names.last()].into_iter().flatten());
    let output = command.output().expect("pg_waldump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Vec<String> = text.lines().filter(|line| line.starts_with("rmgr: ")).map(told).collect();
    let ours: Vec<String> = records.iter().map(line).collect();
    for (told, ours) in told.iter().zip(&ours) {
        assert_eq!(told, ours);
    }
    assert_eq!(told.len(), ours.len());
    // The work was not in vain.
    let images = || records.iter().flat_map(|read| &read.layout.blocks).filter_map(|block| block.image);
    assert!(images().any(|image| !image.apply) && images().any(|image| image.hole_length > 0));
    let mut methods: Vec<_> = images().map(|image| format!("{:?}", image.compression).to_lowercase()).collect();
    methods.sort_unstable();
    methods.dedup();
    assert_eq!(methods.len(), 1 + compressions.len(), "{methods:?}");
    assert!(records.iter().any(|read| read.layout.toplevel_xid.is_some()));
}

#[test]
fn of_postgresql_15() {
    agrees(15, &["pglz", "lz4", "zstd"]);
}

#[test]
fn of_postgresql_16() {
    agrees(16, &["pglz"]);
}

#[test]
fn of_postgresql_18() {
    agrees(18, &["pglz"]);
}
