//! The paths: what every byte or every command of a backup goes through.

use std::hint::black_box;

use backstop_mock::cluster::{Cluster, EntryKind};
use backstop_mock::config::Config;
use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, Manifest, ManifestFile, ManifestWriter};
use backstop_protocol::base_backup::profile::{BackupProfile, ProfileFile};
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarReader, Trailer, padding};
use backstop_protocol::command;
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{WalLog, WalLogConfig};
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal_file::WalSegmentSize;
use bytes::{Bytes, BytesMut};

/// As PostgreSQL cuts its archives.
const CHUNK: usize = 32 << 10;
/// What the paths that read or write bytes go through at a time.
const MIB: usize = 1 << 20;

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Its name on the command line and in the baseline.
    pub name: &'static str,
    /// How often it is run to be counted.
    pub times: u32,
    /// Runs it so often.
    pub run: fn(u32),
}

/// All of them.
pub const PATHS: [Path; 10] = [
    Path { name: "command-parse", times: 100, run: command_parse },
    Path { name: "frame-decode", times: 4, run: frame_decode },
    Path { name: "archive-read", times: 4, run: archive_read },
    Path { name: "manifest-write", times: 2, run: manifest_write },
    Path { name: "manifest-parse", times: 2, run: manifest_parse },
    Path { name: "profile-parse", times: 2, run: profile_parse },
    Path { name: "wal-generate", times: 2, run: wal_generate },
    Path { name: "wal-parse", times: 2, run: wal_parse },
    Path { name: "page-checksum", times: 4, run: page_checksum },
    Path { name: "synthetic-contents", times: 2, run: synthetic_contents },
];

fn command_parse(times: u32) {
    let commands = [
        "IDENTIFY_SYSTEM",
        "SHOW wal_segment_size",
        "BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')",
        "CREATE_REPLICATION_SLOT \"pg_basebackup_4711\" TEMPORARY PHYSICAL ( RESERVE_WAL)",
        "START_REPLICATION SLOT \"pg_basebackup_4711\" 0/3000000 TIMELINE 1",
    ];
    for _ in 0..times {
        for text in commands {
            black_box(command::parse(black_box(text), ServerVersion::V18)).expect("a command");
        }
    }
}

fn frame_decode(times: u32) {
    let mut wire = BytesMut::new();
    for _ in 0..MIB / CHUNK {
        BackendMessage::CopyData(Bytes::from(vec![7; CHUNK])).encode(&mut wire);
    }
    for _ in 0..times {
        let mut buffer = wire.clone();
        while let Some(frame) = read_frame(&mut buffer, MAX_FRAME).expect("sound frames") {
            black_box(BackendMessage::decode(frame)).expect("a message");
        }
    }
}

/// An archive of one MiB in members of a block.
fn archive() -> Bytes {
    let mut archive = BytesMut::new();
    for number in 0..MIB / page::BLOCK_SIZE {
        let size = page::BLOCK_SIZE as u64;
        let header = MemberHeader {
            name: format!("base/5/{number}").into_bytes(),
            kind: MemberKind::File,
            mode: 0o600,
            uid: 1000,
            gid: 1000,
            size,
            mtime: 0,
        };
        archive.extend_from_slice(&header.encode().expect("a valid header"));
        archive.resize(archive.len() + page::BLOCK_SIZE, 7);
        archive.resize(archive.len() + padding(size), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive.freeze()
}

fn archive_read(times: u32) {
    let archive = archive();
    for _ in 0..times {
        let mut reader = TarReader::new(Trailer::Required);
        let mut events = Vec::new();
        for at in (0..archive.len()).step_by(CHUNK) {
            let chunk = archive.slice(at..archive.len().min(at + CHUNK));
            reader.push(chunk, &mut events).expect("a sound archive");
            black_box(&events);
            events.clear();
        }
        reader.finish().expect("a whole archive");
    }
}

fn manifest() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ManifestWriter::new(2, Some(7_710_436_557_014_478_270), false);
    for number in 0..500_u32 {
        let file = ManifestFile {
            path: format!("base/5/{number}").into_bytes(),
            size: 8192,
            last_modified: "2026-11-21 01:38:44 GMT".to_owned(),
            checksum: Some((ChecksumAlgorithm::Crc32c, number.to_le_bytes().to_vec())),
        };
        writer.add_file(&file, &mut bytes);
    }
    writer.finish(&[], &mut bytes);
    bytes
}

fn manifest_write(times: u32) {
    for _ in 0..times {
        black_box(manifest());
    }
}

fn manifest_parse(times: u32) {
    let manifest = manifest();
    for _ in 0..times {
        black_box(Manifest::parse(black_box(&manifest))).expect("a manifest");
    }
}

fn profile_parse(times: u32) {
    let label_text = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\nCHECKPOINT LOCATION: 0/3000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-21 01:40:58 UTC\nLABEL: bench\nSTART TIMELINE: 1\n";
    let label = backstop_protocol::base_backup::label::BackupLabel::parse(label_text).expect("a label");
    let files = (0..500_u32).map(|number| ProfileFile {
        tablespace: None,
        lsn: Some(Lsn(0x200_0000 + u64::from(number))),
        sent: number % 2 == 0,
        modified: 1_416_576_120,
        size: 8192,
        path: format!("base/1/{number}").into_bytes(),
    });
    let profile = BackupProfile { label, label_text: label_text.to_owned(), files: files.collect() }.to_bytes();
    for _ in 0..times {
        black_box(BackupProfile::parse(black_box(&profile))).expect("a profile");
    }
}

fn log() -> WalLog {
    let mut log = WalLog::new(WalLogConfig {
        version: ServerVersion::V18,
        system_identifier: 1,
        timeline: TimelineId::FIRST,
        segment_size: WalSegmentSize::DEFAULT,
        start: WalSegmentSize::DEFAULT.start_of(1),
        prev: Lsn::INVALID,
        seed: 1,
    })
    .expect("a valid start");
    log.fill(MIB as u64);
    log
}

fn wal_generate(times: u32) {
    let log = log();
    let mut buffer = vec![0; MIB];
    for _ in 0..times {
        log.read(log.first(), black_box(&mut buffer)).expect("WAL of the log");
    }
}

fn wal_parse(times: u32) {
    let log = log();
    let mut buffer = vec![0; MIB];
    log.read(log.first(), &mut buffer).expect("WAL of the log");
    for _ in 0..times {
        let mut reader = WalReader::new(WalReaderConfig {
            version: ServerVersion::V18,
            system_identifier: None,
            segment_size: WalSegmentSize::DEFAULT,
            timeline: TimelineId::FIRST,
            history: None,
            start: log.first(),
        });
        for piece in buffer.chunks(128 << 10) {
            reader.push(black_box(piece)).expect("valid WAL");
        }
        black_box(reader.records());
    }
}

fn page_checksum(times: u32) {
    let data = vec![0x5A; MIB];
    for _ in 0..times {
        let (pages, _) = data.as_chunks::<{ page::BLOCK_SIZE }>();
        let sums = pages.iter().zip(0..).map(|(page, block)| u64::from(page::checksum(page, block)));
        black_box(sums.sum::<u64>());
    }
}

fn synthetic_contents(times: u32) {
    let config = Config { version: ServerVersion::V18, size: 4 * MIB as u64, ..Config::default() };
    let cluster = Cluster::new(&config).expect("a cluster");
    let mut entries = cluster.entries(None).expect("entries").filter_map(Result::ok);
    let large = entries.find(|entry| matches!(entry.kind, EntryKind::File { size } if size >= 64 << 10));
    let entry = large.expect("a relation");
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..times {
        for _ in 0..MIB / buffer.len() {
            black_box(cluster.read(&entry, 0, &mut buffer)).expect("contents");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_can_be_run() {
        for path in PATHS {
            (path.run)(1);
        }
        let names: std::collections::BTreeSet<_> = PATHS.iter().map(|path| path.name).collect();
        assert_eq!(names.len(), PATHS.len());
    }
}
