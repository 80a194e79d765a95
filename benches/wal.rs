//! Generating WAL and reading it, beside copying as many bytes: a mock shall never wait for its own WAL.

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{Blocks, WalLog, WalLogConfig};
use backstop_protocol::wal::reader::{WalReader, WalReaderConfig};
use backstop_protocol::wal::record::block::BlockTag;
use backstop_protocol::wal_file::WalSegmentSize;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// As much as a walsender sends in one message.
const PIECE: usize = 128 << 10;

/// In one round.
const PIECES: usize = 128;

/// A page without a hole, so that what is measured is not the disk.
#[derive(Debug)]
struct Page;

impl Blocks for Page {
    fn count(&self) -> u64 {
        1 << 20
    }

    fn read(&self, number: u64, page: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag> {
        page.fill(7);
        Ok(BlockTag { block: u32::try_from(number).unwrap_or(0), ..BlockTag::default() })
    }
}

fn log(images: bool) -> WalLog {
    let mut log = WalLog::new(WalLogConfig {
        version: ServerVersion::V18,
        system_identifier: 1,
        timeline: TimelineId(1),
        segment_size: WalSegmentSize::DEFAULT,
        start: WalSegmentSize::DEFAULT.start_of(1),
        prev: Lsn::INVALID,
        seed: 1,
    })
    .expect("a valid start");
    if images {
        log.set_blocks(Arc::new(Page));
    }
    log.fill((PIECE * PIECES) as u64);
    log
}

fn generate(log: &WalLog, buffer: &mut [u8]) {
    for (number, piece) in buffer.chunks_mut(PIECE).enumerate() {
        log.read(log.first() + (number * PIECE) as u64, piece).expect("WAL of the log");
    }
}

fn wal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("WAL");
    let mut buffer = vec![0; PIECE * PIECES];
    group.throughput(Throughput::Bytes(buffer.len() as u64));
    let source = vec![1_u8; buffer.len()];
    group.bench_function("copied", |bencher| {
        bencher.iter(|| {
            for (to, from) in buffer.chunks_mut(PIECE).zip(source.chunks(PIECE)) {
                to.copy_from_slice(black_box(from));
            }
        });
    });
    for (name, images) in [("of filler", false), ("with full-page images", true)] {
        let log = log(images);
        group.bench_function(format!("generated, {name}"), |bencher| {
            bencher.iter(|| generate(black_box(&log), &mut buffer));
        });
        generate(&log, &mut buffer);
        group.bench_function(format!("read, {name}"), |bencher| {
            bencher.iter(|| {
                let mut reader = WalReader::new(WalReaderConfig {
                    version: ServerVersion::V18,
                    system_identifier: None,
                    segment_size: WalSegmentSize::DEFAULT,
                    timeline: TimelineId(1),
                    history: None,
                    start: log.first(),
                });
                for piece in buffer.chunks(PIECE) {
                    reader.push(piece).expect("valid WAL");
                }
                reader.records()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
