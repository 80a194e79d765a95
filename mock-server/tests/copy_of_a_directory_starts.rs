//! A copy of a stopped server's data directory, taken as a base backup takes it, starts in PostgreSQL and holds its data.
//!
//! Needs `initdb` and `postgres` of 15 in the directory that `BACKSTOP_PG_BINDIR` names, or where Debian installs them, and
//! an account that is not root's: a server refuses that one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_mock::cluster::{Cluster, Entry, EntryKind, ground_truth};
use backstop_mock::config::{Config, Role, Source};
use backstop_protocol::version::ServerVersion;
use tempfile::TempDir;

/// Where the server's programs are, and everything that a test makes.
struct Postgres {
    bindir: PathBuf,
    scratch: TempDir,
}

impl Postgres {
    /// Makes a data directory with a tablespace. Nothing, with a word why, where that is not possible.
    fn init() -> Option<Self> {
        let bindir = std::env::var_os("BACKSTOP_PG_BINDIR").unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into());
        let this = Self { bindir: bindir.into(), scratch: TempDir::new().expect("a directory") };
        let arguments = ["--wal-segsize=1", "--data-checksums", "--no-sync", "--username=postgres", "--locale=C", "-D"];
        match Command::new(this.bindir.join("initdb")).args(arguments).arg(this.path("data")).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!("skipped: initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("skipped: no initdb in {}: {error}", this.bindir.display());
                return None;
            }
        }
        let version = fs::read_to_string(this.path("data/PG_VERSION")).expect("a file");
        if version.trim() != ServerVersion::V15.name() {
            println!("skipped: {} is of PostgreSQL {}", this.bindir.display(), version.trim());
            return None;
        }
        fs::create_dir(this.path("space")).expect("a directory");
        let space = this.path("space");
        this.run("data", &format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
        this.run("data", "CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n");
        this.run("data", "CREATE TABLE there TABLESPACE space AS SELECT * FROM here");
        this.run("data", "CREATE UNLOGGED TABLE volatile AS SELECT * FROM here");
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs a statement in a server of its own, recovery first if there is need, and returns all that it printed.
    fn run(&self, data: &str, statement: &str) -> String {
        let mut server = Command::new(self.bindir.join("postgres"))
            .args(["--single", "-j", "-c", "fsync=off", "-c", "log_min_messages=log", "-D"])
            .arg(self.path(data))
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut input = server.stdin.take().expect("a pipe");
        writeln!(input, "{statement};\n").expect("a statement");
        drop(input);
        let output = server.wait_with_output().expect("its end");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success() && !text.contains("ERROR:"), "{statement}: {text}");
        text
    }
}

fn copy_file(cluster: &Cluster, entry: &Entry, path: &Path) {
    let mut content = vec![0; usize::try_from(entry.size()).expect("fits")];
    let count = cluster.read(entry, 0, &mut content).expect("readable");
    assert_eq!(count, content.len(), "{}", path.display());
    fs::write(path, content).expect("a file");
}

/// Takes a backup of `data` into `copy`, its tablespace into `copy space`.
fn take(postgres: &Postgres, role: Role) {
    let source = Source::Directory(postgres.path("data"));
    let cluster = Cluster::new(&Config { source, role, ..Config::default() }).expect("a stopped server");
    let copy = postgres.path("copy");
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
        let space = postgres.path("copy space");
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
    let Some(postgres) = Postgres::init() else { return };
    take(&postgres, role);
    let check =
        "SELECT 'rows ' || count(*) || ' ' || sum(h.n) FROM here h JOIN there t ON h.n = t.n AND h.text = t.text";
    let log = postgres.run("copy", check);
    assert!(log.contains("rows 20000 200010000"), "{log}");
    assert!(log.contains("consistent recovery state reached"), "{log}");
    assert!(!postgres.path("copy/backup_label").exists(), "recovery has used it");
    let log = postgres.run("copy", "SELECT 'left ' || count(*) FROM volatile");
    assert!(log.contains("left 0"), "an unlogged table is empty after recovery: {log}");
    let checksums = Command::new(postgres.bindir.join("pg_checksums")).arg("-D").arg(postgres.path("copy")).output();
    let checksums = checksums.expect("pg_checksums");
    assert!(checksums.status.success(), "{}", String::from_utf8_lossy(&checksums.stderr));
}

#[test]
fn a_copy_from_a_primary_starts() {
    starts(Role::Primary);
}

#[test]
fn a_copy_from_a_standby_starts() {
    starts(Role::Standby);
}
