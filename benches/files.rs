//! What is done with backups that lie on disk: verification, combination, and serving a real data directory. In memory, where the
//! system has such a place.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_client::combine::{CombineObserver, CombineOptions, combine_backups};
use backstop_client::verifybackup::{Finding, VerifyObserver, VerifyOptions, verify_backup};
use backstop_client::{BackupOptions, Connecting, Connector, Place, Purpose, Silent, Target, WalMethod, base_backup};
use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_protocol::version::ServerVersion;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const SIZE: u64 = 64 << 20;

struct Memory(Server);

impl Connector for Memory {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as _) })
    }
}

struct Quiet;

impl VerifyObserver for Quiet {
    fn found(&mut self, finding: &Finding) {
        unreachable!("the backup is sound: {finding:?}");
    }
}

impl CombineObserver for Quiet {
    fn warning(&mut self, _text: &str, _hint: Option<&str>) {}
}

fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("backstop-bench-").tempdir_in(place).expect("a directory")
}

/// A full backup, and one that builds on it if `chain` says so.
fn backups(directory: &Path, chain: bool) -> Vec<PathBuf> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let settings = [("summarize_wal", "on"), ("backstop.changed_blocks", "10%")];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config { version: ServerVersion::V18, size: SIZE, settings: settings.collect(), ..Config::default() };
    let server = Server::new(config).expect("a server");
    let mut taken = Vec::new();
    for name in if chain { &["full", "later"][..] } else { &["full"] } {
        let target = directory.join(name);
        let mut options = BackupOptions::new("bench", Target::Plain { directory: target.clone(), waldir: None });
        (options.fast_checkpoint, options.wal, options.sync) = (true, WalMethod::Fetch, false);
        options.incremental = taken.last().map(|base: &PathBuf| base.join("backup_manifest"));
        let connector = Arc::new(Memory(server.clone()));
        runtime.block_on(base_backup(connector, options, Arc::new(Silent))).expect("a whole backup");
        taken.push(target);
    }
    taken
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let sizes = entries.map(|entry| {
        let data = entry.metadata().expect("an entry");
        if data.is_dir() { size_of(&entry.path()) } else { data.len() }
    });
    sizes.sum()
}

fn verification(criterion: &mut Criterion) {
    let scratch = scratch();
    let backup = &backups(scratch.path(), false)[0];
    let mut group = criterion.benchmark_group("verifying a backup of 64 MiB");
    group.sample_size(10).throughput(Throughput::Bytes(size_of(backup)));
    for (name, skip_checksums) in [("with checksums", false), ("without", true)] {
        let mut options = VerifyOptions::new(backup);
        options.skip_checksums = skip_checksums;
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert!(verify_backup(&options, &mut Quiet).expect("a backup"), "it is sound"));
        });
    }
    group.finish();
}

fn combination(criterion: &mut Criterion) {
    let scratch = scratch();
    let chain = backups(scratch.path(), true);
    let mut group = criterion.benchmark_group("combining a backup of 64 MiB with one in which a tenth has changed");
    group.sample_size(10).throughput(Throughput::Bytes(size_of(&chain[0])));
    group.bench_function("copied, with manifest", |bencher| {
        bencher.iter_with_large_drop(|| {
            let output = self::scratch();
            let mut options = CombineOptions::new(&chain, output.path().join("combined"));
            options.sync = None;
            combine_backups(&options, &mut Quiet).expect("a chain");
            output
        });
    });
    group.finish();
}

/// A manifest by itself.
fn manifest(criterion: &mut Criterion) {
    use backstop_protocol::base_backup::manifest::Manifest;
    let scratch = scratch();
    let backup = &backups(scratch.path(), false)[0];
    let text = fs::read(backup.join("backup_manifest")).expect("a manifest");
    let mut group = criterion.benchmark_group("manifest");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parsed", |bencher| {
        bencher.iter(|| black_box(Manifest::parse(black_box(&text)).expect("a manifest")));
    });
    group.finish();
}

criterion_group!(benches, manifest, verification, combination);
criterion_main!(benches);
