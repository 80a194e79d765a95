//! PostgreSQL's own reader accepts the WAL that the synthetic log makes.

use std::fs;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{RecordPlan, WalLog, WalLogConfig};
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal::record::Record;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use backstop_scenarios::postgres::Installation;

const VERSION: ServerVersion = ServerVersion::V15;

/// Segments of everything that a log can hold: a backup, filler, records over pages and segments, switches.
fn log(segment_size: WalSegmentSize) -> WalLog {
    let start = segment_size.start_of(2) + 0x28;
    let mut log = WalLog::new(WalLogConfig {
        version: VERSION,
        system_identifier: 7_710_437_665_680_982_376,
        timeline: TimelineId(1),
        segment_size,
        start,
        prev: Lsn(0x28),
        seed: 15,
    })
    .expect("a valid start");
    log.set_time(1_795_226_165);
    log.shutdown_checkpoint();
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

fn check(segment_size: WalSegmentSize) {
    let Some(installation) = Installation::find("WAL read by pg_waldump") else { return };
    let log = log(segment_size);
    let scratch = installation.scratch();
    let directory = scratch.path();
    let mut reader = WalReader::new(WalReaderConfig {
        version: VERSION,
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
    let end = format!("invalid record length at {}: wanted 24, got 0", log.insert_position());
    assert!(complaint.trim_end().ends_with(&end), "{complaint}");
}

#[test]
fn segments_of_1_mib() {
    check(WalSegmentSize::new(1 << 20).expect("a valid size"));
}

#[test]
fn segments_of_16_mib() {
    check(WalSegmentSize::DEFAULT);
}
