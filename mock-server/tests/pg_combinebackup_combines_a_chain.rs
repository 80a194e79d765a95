//! PostgreSQL's own tools take a chain of incremental backups from the mock, verify each, put them together, and have what the
//! mock had.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use backstop_mock::Server;
use backstop_mock::cluster::{EntryKind, ground_truth_at};
use backstop_mock::config::{Config, Role, TablespaceConfig};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use backstop_scenarios::postgres::{Installation, succeed};
use tempfile::TempDir;
use tokio::runtime::Builder;

/// Where the mock's tablespace lies, which nobody ever looks at.
const SPACE: &str = "/srv/mock/space";

/// A mock that listens, and room for backups.
struct Story {
    installation: Installation,
    scratch: TempDir,
    server: Server,
    address: SocketAddr,
}

/// Serves on a port, in a thread that lasts as long as the test.
fn serve(server: Server) -> (Server, SocketAddr) {
    let (tell, told) = mpsc::channel();
    let serving = server.clone();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = serving.listen(([127, 0, 0, 1], 0).into()).expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
            listener.run().await
        })
    });
    (server, told.recv().expect("an address"))
}

impl Story {
    /// Nothing, with a word why, where there is no PostgreSQL.
    fn new(role: Role) -> Option<Self> {
        let installation = Installation::find_release(18, "a chain of incremental backups")?;
        let settings = [("summarize_wal", "on"), ("backstop.changed_blocks", "10%")];
        let config = Config {
            version: ServerVersion::V18,
            role,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            tablespaces: vec![TablespaceConfig { oid: 16_400, location: SPACE.to_owned(), size: 1 << 20 }],
            size: 8 << 20,
            wal_segment_size: WalSegmentSize::new(1 << 20).expect("a power of two"),
            ..Config::default()
        };
        let server = Server::new(config).expect("a server");
        let (server, address) = serve(server);
        let scratch = installation.scratch();
        Some(Self { installation, scratch, server, address })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Takes a backup on top of another and verifies it.
    fn take(&self, name: &str, on_top_of: Option<&str>) {
        let mut tool = self.installation.tool("pg_basebackup");
        tool.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-U", "repl", "-c", "fast", "--no-sync"]);
        tool.arg("-D").arg(self.path(name));
        tool.arg("-T").arg(format!("{SPACE}={}", self.path(&format!("{name} space")).display()));
        if let Some(before) = on_top_of {
            tool.arg("-i").arg(self.path(before).join("backup_manifest"));
        }
        succeed(&mut tool);
        self.verify(name);
    }

    fn verify(&self, name: &str) {
        succeed(self.installation.tool("pg_verifybackup").arg(self.path(name)));
    }

    /// Puts a chain together and verifies the result.
    fn combine(&self, chain: &[&str], name: &str) {
        let mut tool = self.installation.tool("pg_combinebackup");
        tool.args(chain.iter().map(|backup| self.path(backup))).arg("-o").arg(self.path(name)).arg("--no-sync");
        let space = self.path(&format!("{} space", chain.last().expect("a chain")));
        tool.arg("-T").arg(format!("{}={}", space.display(), self.path(&format!("{name} space")).display()));
        succeed(&mut tool);
        self.verify(name);
    }

    /// How many files the backup holds of which only blocks are there, and how many of those.
    fn incremental_files(&self, name: &str) -> (usize, usize) {
        let (mut files, mut with_blocks) = (0, 0);
        let mut directories = vec![self.path(name)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                if entry.path().is_dir() {
                    directories.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with("INCREMENTAL.") {
                    files += 1;
                    with_blocks += usize::from(entry.metadata().expect("its size").len() > 12);
                }
            }
        }
        (files, with_blocks)
    }

    /// Compares a backup with what the mock's last one should have held.
    fn assert_true(&self, name: &str) {
        let start = self.server.backups().last().expect("a backup").start;
        let (cluster, mut compared) = (self.server.cluster(), 0);
        for item in ground_truth_at(cluster, start).expect("a walk") {
            let (path, entry) = item.expect("an entry");
            let EntryKind::File { size } = entry.kind else { continue };
            let path = String::from_utf8(path).expect("text");
            let mut expected = vec![0; usize::try_from(size).expect("fits")];
            assert_eq!(cluster.read(&entry, 0, &mut expected).expect("readable"), expected.len());
            let stored = fs::read(self.path(name).join(Path::new(&path))).expect("a file");
            assert!(stored == expected, "{path}");
            compared += 1;
        }
        assert!(compared > 50, "{compared} files");
    }
}

#[test]
fn a_full_and_two_incremental_backups_become_one() {
    let Some(story) = Story::new(Role::Primary) else { return };
    story.take("full", None);
    story.assert_true("full");
    story.server.cluster().grow_wal(3 << 20);
    story.take("first", Some("full"));
    story.server.cluster().grow_wal(5 << 20);
    story.take("second", Some("first"));
    for backup in ["first", "second"] {
        let (files, with_blocks) = story.incremental_files(backup);
        assert!(files > with_blocks && with_blocks > 5, "{backup}: {files}, {with_blocks}");
    }
    assert_eq!(story.incremental_files("full").0, 0);
    story.combine(&["full", "first", "second"], "combined");
    story.assert_true("combined");
    // The result is a full backup, on which the next one builds.
    story.server.cluster().switch_wal();
    story.take("third", Some("combined"));
    story.combine(&["combined", "third"], "all");
    story.assert_true("all");
}

#[test]
fn a_chain_goes_on_after_a_promotion() {
    let Some(story) = Story::new(Role::Standby) else { return };
    story.take("full", None);
    story.server.cluster().grow_wal(3 << 20);
    story.server.cluster().checkpoint();
    story.take("first", Some("full"));
    story.server.cluster().promote().expect("a standby");
    story.take("second", Some("first"));
    story.combine(&["full", "first", "second"], "combined");
    story.assert_true("combined");
}
