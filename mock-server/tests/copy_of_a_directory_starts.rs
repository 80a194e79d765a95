//! A copy of a stopped server's data directory, taken as a base backup takes it, starts in PostgreSQL and holds its data.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use backstop_mock::cluster::{Cluster, Entry, EntryKind, ground_truth};
use backstop_mock::config::{Config, Role, Source};
use backstop_scenarios::postgres::{Installation, Postgres, succeed};
use tempfile::TempDir;

/// A stopped server's data directory `data`, with a tablespace, and room for its copy.
struct Story {
    installation: Installation,
    scratch: TempDir,
}

impl Story {
    /// Makes the data. Nothing, with a word why, where there is no PostgreSQL.
    fn new() -> Option<Self> {
        let installation = Installation::find("a copy of a data directory")?;
        let scratch = installation.scratch();
        let this = Self { installation, scratch };
        let (data, space) = (this.path("data"), this.path("space"));
        this.installation.initdb(&data, &["--wal-segsize=1"]);
        fs::create_dir(&space).expect("a directory");
        this.installation.give(&space);
        let server = this.start("data");
        server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
        server.sql("CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n");
        server.sql("CREATE TABLE there TABLESPACE space AS SELECT * FROM here");
        server.sql("CREATE UNLOGGED TABLE volatile AS SELECT * FROM here");
        server.stop();
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn start(&self, data: &str) -> Postgres {
        Postgres::start(&self.installation, &self.path(data), &self.path(&format!("{data}-socket")))
    }
}

fn copy_file(cluster: &Cluster, entry: &Entry, path: &Path) {
    let mut content = vec![0; usize::try_from(entry.size()).expect("fits")];
    let count = cluster.read(entry, 0, &mut content).expect("readable");
    assert_eq!(count, content.len(), "{}", path.display());
    fs::write(path, content).expect("a file");
}

/// Takes a backup of `data` into `copy`, its tablespace into `copy space`.
fn take(story: &Story, role: Role) {
    let source = Source::Directory(story.path("data"));
    let cluster = Cluster::new(&Config { source, role, ..Config::default() }).expect("a stopped server");
    let copy = story.path("copy");
    fs::create_dir(&copy).expect("a directory");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).expect("its mode");
    let backup = cluster.start_backup("copy", true).expect("a backup");
    for item in ground_truth(&cluster).expect("a walk") {
        let (path, entry) = item.expect("an entry");
        let path = copy.join(String::from_utf8(path).expect("text"));
        match &entry.kind {
            EntryKind::Symlink { .. } | EntryKind::Special => {}
            EntryKind::Directory => fs::create_dir_all(&path).expect("a directory"),
            EntryKind::File { .. } => copy_file(&cluster, &entry, &path),
        }
    }
    // The tablespace was put where its link should be.
    for tablespace in cluster.tablespaces() {
        let link = copy.join(format!("pg_tblspc/{}", tablespace.oid));
        let space = story.path("copy space");
        fs::rename(&link, &space).expect("moved");
        symlink(&space, &link).expect("a link");
    }
    fs::write(copy.join("global/pg_control"), cluster.control_file().expect("bytes")).expect("a file");
    fs::write(copy.join("backup_label"), &backup.label_text).expect("a file");
    let start = backup.start;
    cluster.grow_wal(3_000_000);
    let end = cluster.stop_backup(backup).expect("its end").end;
    for file in cluster.wal_files(start, end).expect("its WAL") {
        let mut content = vec![0; usize::try_from(cluster.segment_size().bytes()).expect("fits")];
        cluster.read_wal_file(file, 0, &mut content).expect("readable");
        fs::write(copy.join("pg_wal").join(file.to_string()), content).expect("a segment");
    }
}

fn starts(role: Role) {
    let Some(story) = Story::new() else { return };
    take(&story, role);
    story.installation.give(story.scratch.path());
    let server = story.start("copy");
    let log = server.log();
    assert!(log.contains("consistent recovery state reached"), "{log}");
    assert!(!story.path("copy/backup_label").exists(), "recovery has used it");
    let check = "SELECT count(*), sum(h.n) FROM here h JOIN there t ON h.n = t.n AND h.text = t.text";
    assert_eq!(server.sql(check), "20000|200010000");
    assert_eq!(server.sql("SELECT count(*) FROM volatile"), "0", "an unlogged table is empty after recovery");
    server.stop();
    succeed(story.installation.tool("pg_checksums").arg("-D").arg(story.path("copy")));
}

#[test]
fn a_copy_from_a_primary_starts() {
    starts(Role::Primary);
}

#[test]
fn a_copy_from_a_standby_starts() {
    starts(Role::Standby);
}
