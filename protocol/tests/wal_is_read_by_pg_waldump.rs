//! PostgreSQL's own reader accepts the WAL that the synthetic log makes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{Blocks, RecordPlan, WalLog, WalLogConfig};
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal::record::Record;
use backstop_protocol::wal::record::block::{BlockTag, RelFileLocator};
use backstop_protocol::wal::stream::PgTimestamp;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use backstop_scenarios::postgres::Installation;

/// The releases that can be had, oldest first.
const RELEASES: [(u16, ServerVersion); 3] =
    [(15, ServerVersion::V15), (16, ServerVersion::V16), (18, ServerVersion::V18)];

/// Blocks with holes of several sizes.
#[derive(Debug)]
struct Pages;

impl Blocks for Pages {
    fn count(&self) -> u64 {
        10_000
    }

    fn read(&self, number: u64, page: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag> {
        let lower = u16::try_from(24 + number % 500).expect("small");
        let upper = u16::try_from(8192 - number % 7000).expect("small");
        page.fill(u8::try_from(number % 256).expect("small"));
        page[12..14].copy_from_slice(&lower.to_le_bytes());
        page[14..16].copy_from_slice(&upper.to_le_bytes());
        if lower < upper {
            page[usize::from(lower)..usize::from(upper)].fill(0);
        }
        let locator = RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 };
        Ok(BlockTag { locator, fork: 0, block: u32::try_from(number).expect("small") })
    }
}

fn empty(version: ServerVersion, segment_size: WalSegmentSize) -> WalLog {
    let start = segment_size.start_of(2) + 0x28;
    let mut log = WalLog::new(WalLogConfig {
        version,
        system_identifier: 7_710_437_665_680_982_376,
        timeline: TimelineId(1),
        segment_size,
        start,
        prev: Lsn(0x28),
        seed: 15,
    })
    .expect("a valid start");
    log.set_time(1_795_226_165);
    log.set_blocks(Arc::new(Pages));
    log
}

/// Segments of everything that a log can hold: a backup, filler, records over pages and segments, switches.
fn log(version: ServerVersion, segment_size: WalSegmentSize) -> WalLog {
    let mut log = empty(version, segment_size);
    log.shutdown_checkpoint();
    log.insert(Record::EndOfRecovery {
        time: PgTimestamp(0),
        timeline: TimelineId(1),
        previous_timeline: TimelineId(1),
        wal_level: 1,
    });
    log.fill(segment_size.bytes() / 3);
    let backup = log.backup_start();
    log.fill(segment_size.bytes());
    log.insert(Record::NextOid(24_576));
    log.insert(RecordPlan::Noop(u32::try_from(segment_size.bytes()).expect("at most 1 GiB") / 2));
    log.insert(RecordPlan::Noop(0));
    log.insert(RecordPlan::Noop(255));
    log.insert(RecordPlan::Noop(256));
    log.insert(Record::FullPageWrites(false));
    log.backup_end(backup.redo);
    log.fill(100_000);
    log.online_checkpoint();
    // Up to the last eight bytes of a page, so that SWITCH itself is cut.
    let left = 8192 - log.insert_position().0 % 8192;
    log.insert(RecordPlan::Noop(u32::try_from(left).expect("less than a page") - 24 - 5 - 8));
    assert_eq!(log.insert_position().0 % 8192, 8192 - 8);
    log.switch();
    log.fill(20_000);
    log
}

fn check(major: u16, version: ServerVersion, segment_size: WalSegmentSize) {
    let Some(installation) = Installation::find_release(major, "WAL read by pg_waldump") else { return };
    let log = log(version, segment_size);
    let scratch = installation.scratch();
    let directory = scratch.path();
    let mut reader = WalReader::new(WalReaderConfig {
        version,
        system_identifier: None,
        segment_size,
        timeline: TimelineId(1),
        history: None,
        start: log.first(),
    });
    let mut lines = Vec::new();
    let mut names = Vec::new();
    let mut segment = vec![0; usize::try_from(segment_size.bytes()).expect("at most 1 GiB")];
    for number in segment_size.segment_of(log.first())..=segment_size.segment_before(log.insert_position()) {
        let start = segment_size.start_of(number);
        log.read_zero_filled(start, &mut segment).expect("the log's own segment");
        reader
            .push_with(&segment, |read| {
                lines.push(format!("tot {} lsn {} prev {}", read.header.total_length, read.start, read.header.prev));
            })
            .expect("valid WAL");
        let name = WalFileName::new(TimelineId(1), number, segment_size).to_string();
        fs::write(directory.join(&name), &segment).expect("a written segment");
        names.push(name);
    }
    assert_eq!(reader.valid_to(), log.insert_position());
    assert!(names.len() >= 5, "{names:?}");

    let run = |end: Option<Lsn>| {
        let mut command = installation.tool("pg_waldump");
        command.arg("-p").arg(directory).arg("-s").arg((log.first() + 0x28).to_string());
        if let Some(end) = end {
            command.arg("-e").arg(end.to_string());
        }
        command.args([names.first(), names.last()].into_iter().flatten()).output().expect("pg_waldump runs")
    };
    let output = run(Some(log.insert_position()));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    // Every record, where our own reader found it: `… len (rec/tot): 24/ 1024, tx: 0, lsn: 0/02000028, prev 0/00000028, …`.
    let told: Vec<String> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| {
            let field =
                |name: &str, end| line.split_once(name).and_then(|(_, rest)| rest.split_once(end)).map(|f| f.0.trim());
            let position = |text: Option<&str>| text.and_then(|text| text.parse::<Lsn>().ok()).expect("a position");
            let total =
                field("len (rec/tot):", ",").and_then(|lengths| lengths.split_once('/')).expect("lengths").1.trim();
            format!("tot {total} lsn {} prev {}", position(field("lsn: ", ",")), position(field("prev ", ",")))
        })
        .collect();
    assert_eq!(told.len(), lines.len());
    assert_eq!(told, lines);

    // Without an end it finds ours.
    let output = run(None);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = if major >= 16 { "expected at least 24" } else { "wanted 24" };
    let end = format!("invalid record length at {}: {wanted}, got 0", log.insert_position());
    assert!(complaint.trim_end().ends_with(&end), "{complaint}");
}

fn mebibytes(count: u64) -> WalSegmentSize {
    WalSegmentSize::new(count << 20).expect("a valid size")
}

#[test]
fn segments_of_1_mib() {
    for (major, version) in RELEASES {
        check(major, version, mebibytes(1));
    }
}

#[test]
fn segments_of_16_mib() {
    for (major, version) in RELEASES {
        check(major, version, WalSegmentSize::DEFAULT);
    }
}

/// Writes a log of `bytes` into segments, forgetting what is written, and returns its end and how many records our own
/// reader found.
fn write_much(log: &mut WalLog, bytes: u64, directory: &Path) -> (Lsn, u64, Vec<String>) {
    const PIECE: u64 = 1 << 20;
    let WalLogConfig { version, segment_size, .. } = *log.config();
    let first = log.first();
    let mut reader = WalReader::new(WalReaderConfig {
        version,
        system_identifier: None,
        segment_size,
        timeline: TimelineId(1),
        history: None,
        start: first,
    });
    let end = first + bytes;
    let (mut names, mut segment) = (Vec::new(), None::<File>);
    let mut piece = vec![0; usize::try_from(PIECE).expect("small")];
    log.shutdown_checkpoint();
    let (mut at, mut longest, mut backup) = (first, 0, None);
    while at < end {
        // A life of backups, or of checkpoints where the ends of backups would leave segments empty.
        while log.insert_position() < at + PIECE {
            log.fill(bytes / 32);
            match backup.take() {
                None if segment_size.bytes() >= bytes / 32 => drop(log.online_checkpoint()),
                None => backup = Some(log.backup_start().redo),
                Some(start) => drop(log.backup_end(start)),
            }
        }
        if segment_size.offset_of(at) == 0 {
            let name = WalFileName::holding(TimelineId(1), at, segment_size).to_string();
            let file = File::create(directory.join(&name)).expect("a segment");
            // The rest of the last one stays a hole.
            file.set_len(segment_size.bytes()).expect("its size");
            segment = Some(file);
            names.push(name);
        }
        log.read(at, &mut piece).expect("WAL that has been written");
        reader.push(&piece).expect("valid WAL");
        segment.as_mut().expect("a segment").write_all(&piece).expect("a written piece");
        at = at + PIECE;
        log.forget_before(at);
        longest = longest.max(log.plan_len());
    }
    // What lies in one segment is forgotten at once; the largest holds all of the 32 checkpoints, four entries each.
    assert!(longest < 150, "{longest} entries");
    (reader.valid_to(), reader.records(), names)
}

/// What `bytes` of WAL hold, in segments of every size, is what `pg_waldump` counts in it, to the end and without an error.
fn much(bytes: u64) {
    for (major, version) in RELEASES {
        let Some(installation) = Installation::find_release(major, "much WAL read by pg_waldump") else { continue };
        for segment_size in [1, 16, 64, 1024].map(mebibytes) {
            let scratch = installation.scratch();
            let mut log = empty(version, segment_size);
            let (end, records, names) = write_much(&mut log, bytes, scratch.path());
            let mut command = installation.tool("pg_waldump");
            command.arg("--stats").arg("-p").arg(scratch.path());
            command.args(["-s", &(segment_size.start_of(2) + 0x28).to_string(), "-e", &end.to_string()]);
            let output =
                command.args([names.first(), names.last()].into_iter().flatten()).output().expect("pg_waldump runs");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{version}, {}", segment_size.setting());
            assert!(output.status.success());
            let text = String::from_utf8_lossy(&output.stdout);
            let total = text.lines().find_map(|line| line.strip_prefix("Total")).expect("a total");
            let counted = total.split_whitespace().next().and_then(|count| count.parse().ok());
            assert_eq!(counted, Some(records), "{version}, {}: {text}", segment_size.setting());
            assert!(records > bytes / 4096, "{records}");
        }
    }
}

#[test]
fn much_wal_is_read_to_its_end() {
    much(64 << 20);
}

#[test]
#[ignore = "writes a gigabyte twelve times: the gate runs it"]
fn a_gigabyte_of_wal_is_read_to_its_end() {
    much(1 << 30);
}
