//! A real data directory goes through the mock, a client and recovery, and holds its rows afterwards: whichever client took
//! the backup, and however it took the WAL.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backstop_client::{Address, BackupOptions, NetConnector, Silent, Target, WalMethod, base_backup};
use backstop_scenarios::postgres::{Installation, Postgres, succeed};
use support::Serving;
use tempfile::TempDir;

const ROWS: i64 = 30_000;

/// A stopped server's data directory with a tablespace, and the mock that serves it.
struct Story {
    installation: Installation,
    mock: Serving,
    // Last: it holds everything above.
    scratch: TempDir,
}

impl Story {
    fn new() -> Option<Self> {
        let installation = Installation::find("a real data directory served by the mock")?;
        let scratch = installation.scratch();
        let (data, space) = (scratch.path().join("data"), scratch.path().join("space"));
        installation.initdb(&data, &["--wal-segsize=1"]);
        fs::create_dir(&space).expect("a directory");
        installation.give(&space);
        let server = Postgres::start(&installation, &data, &scratch.path().join("s"));
        server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
        server.sql(&format!(
            "CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, {ROWS}) AS n;
             CREATE INDEX ON here (n);
             CREATE TABLE there TABLESPACE space AS SELECT * FROM here;
             CREATE TABLE large AS SELECT string_agg(md5(n::text), '') AS text FROM generate_series(1, 9000) AS n;
             CREATE UNLOGGED TABLE volatile AS SELECT * FROM here"
        ));
        server.sql("CREATE DATABASE other");
        server.stop();
        let scenario = format!(
            "summary = \"A data directory\"\nbecause = \"Its copies must start\"\n\
             [cluster]\nsource = {{ directory = \"{}\" }}\nwal-rate = \"1MiB/s\"\n",
            data.display()
        );
        let mock = Serving::start(scratch.path(), "directory", &scenario);
        Some(Self { installation, mock, scratch })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn take_with_pg_basebackup(&self, wal: &str) {
        let mut command = self.installation.tool("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-p", &self.mock.port.to_string(), "-U", "x", "-c", "fast", "-X", wal, "-T"]);
        command.arg(format!("{}={}", self.path("space").display(), self.path("copied space").display()));
        succeed(command.arg("-D").arg(self.path("copy")));
    }

    fn take_with_the_built_in_client(&self, wal: WalMethod) {
        let mut options = BackupOptions::new("x", Target::Plain { directory: self.path("copy"), waldir: None });
        options.fast_checkpoint = true;
        options.wal = wal;
        options.tablespace_mapping = vec![(self.path("space"), self.path("copied space"))];
        let connector = NetConnector::new(vec![Address::new("127.0.0.1", self.mock.port)]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(base_backup(Arc::new(connector), options, Arc::new(Silent))).expect("a whole backup");
        self.installation.give(&self.path("copy"));
        self.installation.give(&self.path("copied space"));
    }

    /// Starts PostgreSQL on the copy and asks it for what the original held.
    fn assert_copy_starts(&self) {
        let copy = self.path("copy");
        succeed(self.installation.tool("pg_verifybackup").arg(&copy));
        self.assert_tablespace_is_a_copy(&copy);
        let server = Postgres::start(&self.installation, &copy, &self.path("r"));
        let log = server.log();
        assert!(log.contains("consistent recovery state reached"), "{log}");
        assert_eq!(server.sql("SELECT pg_is_in_recovery()"), "f");
        let sum = ROWS * (ROWS + 1) / 2;
        let joined = "SELECT count(*), sum(h.n) FROM here h JOIN there t ON h.n = t.n AND h.text = t.text";
        assert_eq!(server.sql(joined), format!("{ROWS}|{sum}"));
        let indexed = "SET enable_seqscan = off; SELECT text = md5('77') FROM here WHERE n = 77";
        assert_eq!(server.sql(indexed), "t");
        let toasted =
            "SELECT text = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 9000) AS n) FROM large";
        assert_eq!(server.sql(toasted), "t");
        assert_eq!(server.sql("SELECT count(*) FROM volatile"), "0", "an unlogged table is empty after recovery");
        assert_eq!(server.sql("SELECT count(*) FROM pg_database"), "4");
        // It can be written to, and checkpointed.
        server.sql("INSERT INTO there SELECT * FROM here; CHECKPOINT");
        server.stop();
        succeed(self.installation.tool("pg_checksums").arg("-D").arg(&copy));
    }

    fn assert_tablespace_is_a_copy(&self, copy: &Path) {
        let links = fs::read_dir(copy.join("pg_tblspc")).expect("a directory");
        let links: Vec<_> = links.map(|link| fs::read_link(link.expect("an entry").path()).expect("a link")).collect();
        assert_eq!(links, [self.path("copied space")]);
    }
}

#[test]
fn judged_as_every_other_server() {
    let Some(story) = Story::new() else { return };
    let client = format!("pg_basebackup={}", story.installation.path("pg_basebackup").display());
    for scenario in ["", "[[client]]\nname = \"backup\"\nformat = \"tar\"\nwal = \"fetch\"\n"] {
        let path = story.path("directory.toml");
        let text = fs::read_to_string(&path).expect("the scenario that is served") + scenario;
        let path = path.with_file_name("judged.toml");
        fs::write(&path, text).expect("a scenario file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
        command.arg("run").arg(&path).args(["--client", "builtin", "--client", &client]);
        let said = String::from_utf8(succeed(&mut command).stdout).expect("text");
        assert!(said.contains("2 cases: 2 passed"), "{said}");
    }
}

#[test]
fn taken_by_pg_basebackup_with_streamed_wal() {
    let Some(story) = Story::new() else { return };
    story.take_with_pg_basebackup("stream");
    story.assert_copy_starts();
}

#[test]
fn taken_by_pg_basebackup_with_fetched_wal() {
    let Some(story) = Story::new() else { return };
    story.take_with_pg_basebackup("fetch");
    story.assert_copy_starts();
}

#[test]
fn taken_by_the_built_in_client_with_streamed_wal() {
    let Some(story) = Story::new() else { return };
    story.take_with_the_built_in_client(WalMethod::Stream);
    story.assert_copy_starts();
}

#[test]
fn taken_by_the_built_in_client_with_fetched_wal() {
    let Some(story) = Story::new() else { return };
    story.take_with_the_built_in_client(WalMethod::Fetch);
    story.assert_copy_starts();
}
