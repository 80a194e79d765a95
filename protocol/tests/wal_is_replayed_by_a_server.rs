//! A PostgreSQL server replays the WAL that the synthetic log appends to its own, after a control file of ours, and our
//! reader accepts all that the server wrote before and after.

use std::fs;
use std::path::PathBuf;

use backstop_protocol::control::{ControlFile, DbState};
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{RecordPlan, WalLog, WalLogConfig};
use backstop_protocol::wal::reader::{ReadRecord, WalReader, WalReaderConfig, WalTail};
use backstop_protocol::wal::record::Record;
use backstop_protocol::wal_file::WalFileName;
use backstop_scenarios::postgres::{Installation, succeed};

const TIMELINE: TimelineId = TimelineId(1);

/// A data directory.
struct DataDirectory(PathBuf);

impl DataDirectory {
    fn control(&self) -> ControlFile {
        let content = fs::read(self.0.join("global/pg_control")).expect("a control file");
        ControlFile::decode(&content).expect("a control file of a real server")
    }

    fn wal(&self, name: WalFileName) -> PathBuf {
        self.0.join("pg_wal").join(name.to_string())
    }

    /// Reads all WAL up to where it ends.
    fn read_wal(&self, control: &ControlFile) -> (WalReader, Vec<ReadRecord>) {
        let size = control.wal_segment_size;
        let entries = fs::read_dir(self.0.join("pg_wal")).expect("pg_wal");
        let names = entries.filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse().ok());
        let mut names: Vec<WalFileName> = names.collect();
        names.sort();
        let first = names.first().and_then(|name| name.segment(size)).expect("a segment");
        let mut reader = WalReader::new(WalReaderConfig {
            version: control.version,
            system_identifier: Some(control.system_identifier),
            segment_size: size,
            timeline: TIMELINE,
            history: Some(TimelineHistory::default()),
            start: size.start_of(first),
        });
        let mut records = Vec::new();
        for name in names {
            let content = fs::read(self.wal(name)).expect("a segment");
            // An error is how WAL ends in a recycled segment.
            if reader.push_with(&content, |record| records.push(record)).is_err() || reader.tail() == WalTail::Zero {
                break;
            }
        }
        (reader, records)
    }
}

/// Appends `log` to the server's segments, the rest of its last segment empty.
fn append(directory: &DataDirectory, log: &WalLog) {
    let size = log.config().segment_size;
    for number in size.segment_of(log.first())..=size.segment_before(log.insert_position()) {
        let path = directory.wal(WalFileName::new(TIMELINE, number, size));
        let length = usize::try_from(size.bytes()).expect("at most 1 GiB");
        let mut content = fs::read(&path).unwrap_or_else(|_| vec![0; length]);
        let at = log.first().max(size.start_of(number));
        let offset = usize::try_from(size.offset_of(at)).expect("less than 1 GiB");
        log.read_zero_filled(at, &mut content[offset..]).expect("the log's own bytes");
        fs::write(path, content).expect("a written segment");
    }
}

#[test]
fn a_server_replays_what_the_log_appends() {
    let Some(installation) = Installation::find("WAL replayed by a server") else { return };
    let scratch = installation.scratch();
    let directory = DataDirectory(scratch.path().join("data"));
    installation.initdb(&directory.0, &["--wal-segsize=1"]);
    let control = directory.control();
    assert_eq!(control.version, ServerVersion::V15);
    assert_eq!(control.state, DbState::ShutDown);
    let (reader, _) = directory.read_wal(&control);
    assert_eq!(reader.last_record(), Some(control.checkpoint));

    let mut log = WalLog::new(WalLogConfig {
        version: control.version,
        system_identifier: control.system_identifier,
        timeline: TIMELINE,
        segment_size: control.wal_segment_size,
        start: reader.valid_to(),
        prev: control.checkpoint,
        seed: 3,
    })
    .expect("a valid start");
    log.set_checkpoint(control.checkpoint_copy);
    log.fill(100_000);
    log.insert(RecordPlan::Noop(700_000));
    log.insert(Record::FullPageWrites(true));
    let backup = log.backup_start();
    log.fill(3_000_000);
    log.backup_end(backup.redo);
    log.fill(50_000);
    append(&directory, &log);
    let crashed = ControlFile { state: DbState::InProduction, ..control };
    fs::write(directory.0.join("global/pg_control"), crashed.encode()).expect("a written control file");

    installation.give(&directory.0);
    let server = succeed(installation.tool("postgres").args(["--single", "-D"]).arg(&directory.0).arg("postgres"));
    let told = String::from_utf8_lossy(&server.stderr).into_owned();
    assert!(told.contains(&format!("redo done at {}", log.last_record())), "{told}");
    assert!(told.contains(&format!("invalid record length at {}", log.insert_position())), "{told}");

    // What the server wrote on top links to our last record.
    let control = directory.control();
    assert_eq!(control.state, DbState::ShutDown);
    let (reader, after) = directory.read_wal(&control);
    assert_eq!(reader.last_record(), Some(control.checkpoint));
    let next = after.iter().find(|record| record.start == log.next_record()).expect("the server's next record");
    assert_eq!(next.header.prev, log.last_record());
}
