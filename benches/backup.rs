//! Whole backups in memory, from the mock to the built-in client and nowhere: no disk, no network.

use std::hint::black_box;
use std::sync::Arc;

use backstop_client::{BackupOptions, Connecting, Connector, Place, Purpose, Silent, Target, WalMethod, base_backup};
use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_protocol::version::ServerVersion;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

struct Memory(Server);

impl Connector for Memory {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as _) })
    }
}

/// Both generations of the protocol beside each other, with and without hashing on both sides.
fn whole_backups(criterion: &mut Criterion) {
    const SIZE: u64 = 64 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("backup of 64 MiB in memory");
    group.sample_size(10).throughput(Throughput::Bytes(SIZE));
    for version in [ServerVersion::V12, ServerVersion::V14, ServerVersion::V18] {
        group.bench_function(BenchmarkId::from_parameter(version), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let server = Server::new(Config { version, size: SIZE, ..Config::default() }).expect("a server");
                    let mut options = BackupOptions::new("bench", Target::Discard);
                    options.fast_checkpoint = true;
                    options.wal = WalMethod::Fetch;
                    let backup = base_backup(Arc::new(Memory(server)), options, Arc::new(Silent));
                    black_box(backup.await.expect("a whole backup"))
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole_backups);
criterion_main!(benches);
