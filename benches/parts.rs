//! The inner loops of a backup, each beside a yardstick: frames, archives, checksums.

use std::hint::black_box;
use std::io::Read as _;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarReader, Trailer, padding};
use backstop_protocol::command;
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::page;
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// As PostgreSQL cuts its archives.
const CHUNK: usize = 32 << 10;

fn archive(members: usize, size: usize) -> Bytes {
    let mut archive = BytesMut::new();
    for number in 0..members {
        let header = MemberHeader {
            name: format!("base/5/{number}").into_bytes(),
            kind: MemberKind::File,
            mode: 0o600,
            uid: 1000,
            gid: 1000,
            size: size as u64,
            mtime: 0,
        };
        archive.extend_from_slice(&header.encode().expect("a valid header"));
        archive.resize(archive.len() + size, 7);
        archive.resize(archive.len() + padding(size as u64), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive.freeze()
}

/// Our strict reader beside the `tar` crate on the same bytes.
fn reading_archives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reading an archive");
    for (name, members, size) in [("of 8 KiB members", 2048, 8 << 10), ("of 1 MiB members", 16, 1 << 20)] {
        let archive = archive(members, size);
        group.throughput(Throughput::Bytes(archive.len() as u64));
        group.bench_with_input(BenchmarkId::new("strict reader", name), &archive, |bencher, archive| {
            bencher.iter(|| {
                let mut reader = TarReader::new(Trailer::Required);
                let mut events = Vec::new();
                for at in (0..archive.len()).step_by(CHUNK) {
                    let chunk = archive.slice(at..archive.len().min(at + CHUNK));
                    reader.push(chunk, &mut events).expect("a sound archive");
                    events.clear();
                }
                reader.finish().expect("a whole archive");
            });
        });
        group.bench_with_input(BenchmarkId::new("tar crate", name), &archive, |bencher, archive| {
            let mut buffer = vec![0; CHUNK];
            bencher.iter(|| {
                for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
                    let mut entry = entry.expect("a member");
                    while entry.read(&mut buffer).expect("content") > 0 {}
                }
            });
        });
    }
    group.finish();
}

/// Our framing beside postgres-protocol's parser on a stream of CopyData.
fn reading_frames(criterion: &mut Criterion) {
    let mut wire = BytesMut::new();
    for _ in 0..128 {
        BackendMessage::CopyData(Bytes::from(vec![7; CHUNK])).encode(&mut wire);
    }
    let wire = wire.freeze();
    let mut group = criterion.benchmark_group("reading CopyData");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("backstop", |bencher| {
        bencher.iter(|| {
            let mut buffer = BytesMut::from(&wire[..]);
            while let Some(frame) = read_frame(&mut buffer, MAX_FRAME).expect("sound frames") {
                black_box(BackendMessage::decode(frame).expect("a message"));
            }
        });
    });
    group.bench_function("postgres-protocol", |bencher| {
        bencher.iter(|| {
            let mut buffer = BytesMut::from(&wire[..]);
            while let Some(message) =
                postgres_protocol::message::backend::Message::parse(&mut buffer).expect("sound frames")
            {
                black_box(message);
            }
        });
    });
    group.finish();
}

/// The commands of a backup, in the grammars of the oldest and the newest release.
fn reading_commands(criterion: &mut Criterion) {
    const OLD: [&str; 3] = [
        "IDENTIFY_SYSTEM",
        "BASE_BACKUP LABEL 'pg_basebackup base backup' PROGRESS FAST NOWAIT",
        "START_REPLICATION 0/3000000",
    ];
    const NEW: [&str; 4] = [
        "IDENTIFY_SYSTEM",
        "SHOW wal_segment_size",
        "BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')",
        "START_REPLICATION SLOT \"pg_basebackup_4711\" 0/3000000 TIMELINE 1",
    ];
    let mut group = criterion.benchmark_group("reading commands");
    for (version, texts) in [(ServerVersion::V9_1, &OLD[..]), (ServerVersion::V18, &NEW)] {
        group.throughput(Throughput::Elements(texts.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(version), texts, |bencher, texts| {
            bencher.iter(|| {
                for text in texts {
                    black_box(command::parse(black_box(text), version)).expect("a command");
                }
            });
        });
    }
    group.finish();
}

/// What a manifest costs, and what a page's checksum costs, on the same bytes.
fn checksums(criterion: &mut Criterion) {
    let data = vec![0x5A; 1 << 20];
    let mut group = criterion.benchmark_group("checksums");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for algorithm in [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha512] {
        group.bench_function(algorithm.to_string(), |bencher| {
            bencher.iter(|| {
                let mut hasher = ChecksumHasher::new(algorithm);
                hasher.update(black_box(&data));
                hasher.finish()
            });
        });
    }
    group.bench_function("pages", |bencher| {
        bencher.iter(|| {
            let (pages, _) = data.as_chunks::<{ page::BLOCK_SIZE }>();
            pages.iter().zip(0..).map(|(page, block)| u64::from(page::checksum(page, block))).sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, reading_archives, reading_frames, reading_commands, checksums);
criterion_main!(benches);
