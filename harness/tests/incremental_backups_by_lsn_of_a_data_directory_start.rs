//! A real data directory, served as the proof of concept of 2014 would serve it, is backed up in full and by LSN; what `recover`
//! makes of the two holds its rows.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backstop_client::recover::{RecoverObserver, RecoverOptions, recover};
use backstop_client::{Address, BackupOptions, BackupSummary, NetConnector, Silent, Target, base_backup};
use backstop_protocol::lsn::Lsn;
use backstop_scenarios::postgres::{Installation, Postgres, succeed};
use support::Serving;

struct Quiet;

impl RecoverObserver for Quiet {}

fn take(port: u16, to: &Path, space: &Path, since: Option<Lsn>) -> Result<BackupSummary, String> {
    let mut options = BackupOptions::new("x", Target::Plain { directory: to.to_path_buf(), waldir: None });
    options.fast_checkpoint = true;
    options.incremental_from = since;
    options.tablespace_mapping = vec![(space.to_path_buf(), to.with_extension("space"))];
    let connector = NetConnector::new(vec![Address::new("127.0.0.1", port)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(base_backup(Arc::new(connector), options, Arc::new(Silent))).map_err(|error| error.to_string())
}

#[test]
fn full_and_incremental_make_a_backup_that_starts() {
    let Some(installation) = Installation::find("incremental backups by LSN of a data directory") else { return };
    let scratch = installation.scratch();
    let path = |name: &str| scratch.path().join(name);
    let (data, space) = (path("data"), path("space"));
    installation.initdb(&data, &["--wal-segsize=1"]);
    fs::create_dir(&space).expect("a directory");
    installation.give(&space);
    let server = Postgres::start(&installation, &data, &path("s"));
    server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    server.sql(
        "CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, 30000) AS n;
         CREATE TABLE there TABLESPACE space AS SELECT * FROM here;
         CREATE UNLOGGED TABLE volatile AS SELECT * FROM here",
    );
    server.stop();
    let served = |flavour: &str| {
        format!(
            "summary = \"A data directory\"\nbecause = \"Its copies must start\"\n{flavour}[cluster]\nsource = {{ directory = \
             \"{}\" }}\n",
            data.display()
        )
    };
    let mock = Serving::start(scratch.path(), "poc", &served("[server]\nflavour = \"incremental-poc\"\n"));
    let full = take(mock.port, &path("full"), &space, None).expect("a full backup");
    let next = take(mock.port, &path("next"), &space, Some(full.start)).expect("an incremental backup");
    assert!(next.left_out.files > 100 && next.bytes < full.bytes / 2, "{next:?} after {full:?}");
    assert!(!path("next/base/1/1259").exists());

    let future = take(mock.port, &path("future"), &space, Some(Lsn(u64::MAX >> 1))).expect_err("in the future");
    assert!(
        future.starts_with("start position 7FFFFFFF/FFFFFFFF of the incremental backup is in the future"),
        "{future}"
    );
    let stock = Serving::start(scratch.path(), "stock", &served(""));
    let refused = take(stock.port, &path("stock"), &space, Some(full.start)).expect_err("no such server");
    assert!(refused.starts_with("server does not support incremental backup by LSN"), "{refused}");
    for name in ["future", "future.space", "stock"] {
        assert!(!path(name).exists(), "{name}");
    }

    let options = RecoverOptions {
        tablespace_mapping: vec![(path("next.space"), path("restored.space"))],
        ..RecoverOptions::new([path("full"), path("next")], path("restored"))
    };
    let recovered = recover(&options, &mut Quiet).expect("a full backup");
    assert_eq!(recovered.found, next.left_out.files);
    for name in ["restored", "restored.space"] {
        installation.give(&path(name));
    }
    succeed(installation.tool("pg_verifybackup").arg(path("restored")));
    let mut judge = Command::new(env!("CARGO_BIN_EXE_backstop"));
    succeed(judge.arg("judge").arg(path("restored")));
    let restored = Postgres::start(&installation, &path("restored"), &path("r"));
    let log = restored.log();
    assert!(log.contains("consistent recovery state reached"), "{log}");
    let joined = "SELECT count(*) FROM here h JOIN there t ON h.n = t.n AND h.text = t.text";
    assert_eq!(restored.sql(joined), "30000");
    assert_eq!(restored.sql("SELECT count(*) FROM volatile"), "0");
}
