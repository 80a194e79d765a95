//! Whole backups in memory, from the mock to the built-in client: what servers send, faults that wait, sinks, compression.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;

use backstop_client::{
    ArchiveCompression, BackupOptions, Connecting, Connector, Place, Purpose, Silent, Target, WalMethod, base_backup,
};
use backstop_mock::Server;
use backstop_mock::config::{Config, Source};
use backstop_mock::fault::wire::Close;
use backstop_mock::fault::{Action, Fault, Point};
use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::{Installation, Postgres};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const SIZE: u64 = 64 << 20;

struct Memory(Server);

impl Connector for Memory {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as _) })
    }
}

/// A backup with a server of its own.
fn back_up(runtime: &tokio::runtime::Runtime, config: Config, change: impl FnOnce(&mut BackupOptions)) {
    runtime.block_on(async {
        let server = Server::new(config).expect("a server");
        let mut options = BackupOptions::new("bench", Target::Discard);
        (options.fast_checkpoint, options.wal, options.sync) = (true, WalMethod::Fetch, false);
        change(&mut options);
        let backup = base_backup(Arc::new(Memory(server)), options, Arc::new(Silent));
        black_box(backup.await.expect("a whole backup"));
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime")
}

fn config(version: ServerVersion) -> Config {
    Config { version, size: SIZE, ..Config::default() }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Bytes(SIZE));
    group
}

/// Where files go: in memory, where the system has such a place.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("backstop-bench-").tempdir_in(place).expect("a directory")
}

/// Both generations of the protocol beside each other, with and without hashing on both sides.
fn whole_backups(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "backup of 64 MiB in memory");
    for version in [ServerVersion::V12, ServerVersion::V14, ServerVersion::V18] {
        group.bench_function(BenchmarkId::from_parameter(version), |bencher| {
            bencher.iter(|| back_up(&runtime, config(version), |_| {}));
        });
    }
    group.finish();
}

/// A real data directory, whose pages are read and verified, beside computed pages.
fn sources(criterion: &mut Criterion) {
    let Some(release) =
        [15, 18, 16].into_iter().find_map(|major| Installation::find_release(major, "a data directory"))
    else {
        return;
    };
    let place = release.scratch();
    let server = Postgres::new(&release, place.path(), &["autovacuum = off"]);
    server.sql(&format!("create table rows as select repeat('x', 1000) from generate_series(1, {})", SIZE / 1170));
    server.sql("checkpoint");
    server.stop();
    drop(server);
    let runtime = runtime();
    let mut group = group(criterion, "backup of about 64 MiB, its source");
    let directory = Source::Directory(place.path().join("data"));
    for (name, source) in [("synthetic", Source::Synthetic), ("a data directory", directory)] {
        group.bench_function(name, |bencher| {
            // The version of a data directory is its own.
            let config = || Config { source: source.clone(), ..config(ServerVersion::V18) };
            bencher.iter(|| back_up(&runtime, config(), |options| options.wal = WalMethod::None));
        });
    }
    group.finish();
}

/// What a plan of faults costs that never strikes: at every byte, at every member, and none.
fn faults_that_wait(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "backup of 64 MiB, a fault armed and silent");
    let never = Some("nobody".to_owned());
    let close = || Action::Close(Close {});
    let plans = [
        ("none", Vec::new()),
        (
            "at a member",
            vec![Fault {
                when: Point::Member { client: never.clone(), nth: 1, path: "base/1/1259".to_owned(), at: None },
                r#do: close(),
            }],
        ),
        ("at the end", vec![Fault { when: Point::EndPosition { client: never, nth: 1 }, r#do: close() }]),
    ];
    for (name, faults) in plans {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                back_up(&runtime, Config { faults: faults.clone(), ..config(ServerVersion::V18) }, |_| {});
            });
        });
    }
    group.finish();
}

/// Each kind of manifest.
fn manifests(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "backup of 64 MiB, checksums in the manifest");
    for algorithm in [ChecksumAlgorithm::None, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha256] {
        group.bench_function(BenchmarkId::from_parameter(algorithm), |bencher| {
            bencher.iter(|| {
                back_up(&runtime, config(ServerVersion::V18), |options| options.manifest_checksums = algorithm);
            });
        });
    }
    group.finish();
}

/// Makes a target in a directory.
type MakeTarget = fn(&Path) -> Target;

/// What the client does with what comes.
fn sinks(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "backup of 64 MiB into a sink");
    let sinks: [(&str, MakeTarget); 4] = [
        ("discard", |_| Target::Discard),
        ("standard output", |_| Target::Stream(Box::new(io::sink()))),
        ("tar", |directory| Target::Tar { directory: directory.join("backup") }),
        ("plain", |directory| Target::Plain { directory: directory.join("backup"), waldir: None }),
    ];
    for (name, target) in sinks {
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| {
                let scratch = scratch();
                back_up(&runtime, config(ServerVersion::V18), |options| options.target = target(scratch.path()));
                scratch
            });
        });
    }
    group.finish();
}

/// Who compresses, and how. What synthetic pages hold does not compress well.
fn compression(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "backup of 64 MiB, compressed");
    for (algorithm, detail) in [("gzip", "1"), ("lz4", "1"), ("zstd", "1")] {
        group.bench_function(BenchmarkId::new("by the server", algorithm), |bencher| {
            bencher.iter(|| {
                back_up(&runtime, config(ServerVersion::V18), |options| {
                    let (algorithm, detail) = (algorithm.to_owned(), Some(detail.to_owned()));
                    options.compression = ArchiveCompression::Server { algorithm, detail };
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole_backups, sources, faults_that_wait, manifests, sinks, compression);
criterion_main!(benches);
