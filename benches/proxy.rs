//! What the fault proxy costs when no fault strikes: whole backups in memory, from the mock to the built-in client and nowhere, directly
//! and through the proxy.

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use backstop_client::{BackupOptions, Connecting, Connector, Place, Purpose, Silent, Target, WalMethod, base_backup};
use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_mock::proxy::{Later, Opened, Proxy, ProxyConfig, Upstream};
use backstop_protocol::version::ServerVersion;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[derive(Debug)]
struct Behind(Server);

impl Upstream for Behind {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        Box::pin(async { Ok(Opened { link: Box::new(self.0.connect()), encrypted: false }) })
    }
}

enum Way {
    Direct(Server),
    Through(Proxy),
}

impl Connector for Way {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async {
            Ok(match self {
                Self::Direct(server) => Box::new(server.connect()) as _,
                Self::Through(proxy) => Box::new(proxy.connect()) as _,
            })
        })
    }
}

fn backups_through_the_proxy(criterion: &mut Criterion) {
    const SIZE: u64 = 64 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("backup of 64 MiB through the proxy");
    group.sample_size(10).throughput(Throughput::Bytes(SIZE));
    for through in [false, true] {
        group.bench_function(if through { "through" } else { "direct" }, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let config = Config { version: ServerVersion::V18, size: SIZE, ..Config::default() };
                    let server = Server::new(config).expect("a server");
                    let way = if through {
                        Way::Through(Proxy::new(&ProxyConfig::default(), Arc::new(Behind(server))).expect("a proxy"))
                    } else {
                        Way::Direct(server)
                    };
                    let mut options = BackupOptions::new("bench", Target::Discard);
                    options.fast_checkpoint = true;
                    options.wal = WalMethod::Fetch;
                    let backup = base_backup(Arc::new(way), options, Arc::new(Silent));
                    black_box(backup.await.expect("a whole backup"))
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, backups_through_the_proxy);
criterion_main!(benches);
