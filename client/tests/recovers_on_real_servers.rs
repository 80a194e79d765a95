//! Incremental backups by LSN of real servers under load: what the proof of concept would have sent is put together again, and
//! PostgreSQL starts on it.
//!
//! No server of a release takes such backups. So a base backup is stripped of what such a server would have left out, by the
//! rule of the protocol's `profile`, and gets the label and the profile that it would have had.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backstop_client::recover::{RecoverObserver, RecoverOptions, recover};
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::profile::{self, BackupProfile, PageLsns, ProfileFile, has_page_lsns};
use backstop_protocol::lsn::Lsn;
use backstop_scenarios::postgres::{Installation, Postgres, succeed};

struct Silent;

impl RecoverObserver for Silent {}

/// `pgbench` in the background. Dropped, it ends.
struct Load(Child);

impl Load {
    fn start(installation: &Installation, server: &Postgres) -> Self {
        let mut command = connected(installation, "pgbench", server);
        command.args(["-n", "-c", "2", "-T", "600", "postgres"]).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connected(installation: &Installation, tool: &str, server: &Postgres) -> Command {
    let mut command = installation.tool(tool);
    command.arg("-h").arg(server.socket()).args(["-p", &server.port().to_string(), "-U", "postgres"]);
    command
}

fn back_up(installation: &Installation, server: &Postgres, to: &Path, space: &Path, new_space: &Path) -> Lsn {
    let mut command = connected(installation, "pg_basebackup", server);
    command.args(["-c", "fast", "-X", "stream", "-N", "--no-manifest", "-T"]);
    succeed(command.arg(format!("{}={}", space.display(), new_space.display())).arg("-D").arg(to));
    BackupLabel::parse(&fs::read_to_string(to.join("backup_label")).unwrap()).unwrap().start
}

/// The files below a directory with their names there, WAL excepted.
fn files(directory: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if name == "pg_wal" {
            continue;
        }
        // Tablespaces are links.
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push((name, entry.path()));
        }
    }
}

/// Makes of a full backup the one that builds on a backup that started at `since`, and returns its profile.
fn strip(directory: &Path, since: Lsn) -> BackupProfile {
    let path = directory.join("backup_label");
    let label = fs::read_to_string(&path).unwrap();
    let label = label.replace("BACKUP METHOD", &format!("INCREMENTAL FROM LOCATION: {since}\nBACKUP METHOD"));
    fs::write(&path, &label).unwrap();
    let mut all = Vec::new();
    files(directory, "", &mut all);
    let unlogged: BTreeSet<String> =
        all.iter().filter_map(|(name, _)| name.strip_suffix("_init").map(str::to_owned)).collect();
    let mut listed = Vec::new();
    for (name, full) in all {
        let content = fs::read(&full).unwrap();
        let mut lsns = PageLsns::default();
        lsns.update(&content);
        let relation = name.split('.').next().unwrap();
        let trusted = has_page_lsns(name.as_bytes()) && !unlogged.contains(relation);
        let old = lsns.highest().filter(|lsn| *lsn < since && trusted);
        if old.is_some() {
            fs::remove_file(&full).unwrap();
        }
        let (tablespace, path) = ProfileFile::place(name.as_bytes());
        let size = content.len() as u64;
        listed.push(ProfileFile { tablespace, lsn: old, sent: old.is_none(), modified: 0, size, path });
    }
    let profile = BackupProfile { label: BackupLabel::parse(&label).unwrap(), label_text: label, files: listed };
    let text = profile.to_bytes();
    fs::write(directory.join("backup_profile"), &text).unwrap();
    fs::write(directory.join("backup_profile.sha256"), profile::checksum_file(&text)).unwrap();
    profile
}

/// Tables that do not change while a backup is taken.
const ROWS: &str =
    "SELECT (SELECT count(*) || ',' || sum(n) FROM shrinks), (SELECT count(*) || ',' || sum(n) FROM grows),
    (SELECT count(*) || ',' || sum(n) FROM still), (SELECT count(*) || ',' || sum(n) FROM elsewhere),
    (SELECT count(*) FROM volatile), to_regclass('dropped'), nextval('numbers') > 40";

/// What `pgbench` keeps equal.
const BALANCED: &str =
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)
    AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";

fn story(major: u16) {
    let Some(installation) = Installation::find_release(major, "recovery of incremental backups by LSN") else {
        return;
    };
    let scratch = installation.scratch();
    let path = |name: &str| scratch.path().join(name);
    let space = path("space");
    fs::create_dir(&space).unwrap();
    installation.give(&space);
    installation.initdb(&path("data"), &["--wal-segsize=1", "--data-checksums"]);
    let settings = fs::read_to_string(path("data/postgresql.conf")).unwrap() + "fsync = off\nautovacuum = off\n";
    fs::write(path("data/postgresql.conf"), settings).unwrap();
    let server = Postgres::start(&installation, &path("data"), &path("s"));
    succeed(connected(&installation, "pgbench", &server).args(["-i", "-q", "-s", "1", "postgres"]));
    server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    server.sql(
        "CREATE TABLE shrinks AS SELECT n, repeat('x', 500) AS text FROM generate_series(1, 2000) AS n;
         CREATE TABLE grows AS SELECT n FROM generate_series(1, 1000) AS n;
         CREATE TABLE still AS SELECT n, repeat('y', 500) AS text FROM generate_series(1, 2000) AS n;
         CREATE INDEX ON still (n);
         CREATE TABLE elsewhere TABLESPACE space AS SELECT * FROM still;
         CREATE TABLE dropped AS SELECT * FROM still;
         CREATE UNLOGGED TABLE volatile AS SELECT * FROM still;
         CREATE SEQUENCE numbers;
         SELECT nextval('numbers') FROM generate_series(1, 20)",
    );
    server.sql("VACUUM FREEZE");
    server.sql("SELECT count(*) FROM shrinks");
    let load = Load::start(&installation, &server);
    let start = back_up(&installation, &server, &path("sunday"), &space, &path("sunday space"));
    server.sql(
        "DELETE FROM shrinks WHERE (ctid::text::point)[0] >= 40; INSERT INTO grows SELECT n FROM generate_series(1001, 3000) AS n;
         DROP TABLE dropped; SELECT nextval('numbers') FROM generate_series(1, 20)",
    );
    // Whoever has an older snapshot keeps the deleted rows, and the pages that they are in.
    let cut_off = || {
        server.sql("VACUUM (TRUNCATE) shrinks");
        server.sql("SELECT pg_relation_size('shrinks') <= 40 * 8192") == "t"
    };
    assert!((0..1000).any(|_| cut_off()), "the table is not cut off");
    let next = back_up(&installation, &server, &path("monday"), &space, &path("monday space"));
    server.sql("INSERT INTO grows SELECT n FROM generate_series(3001, 4000) AS n");
    server.sql("CREATE DATABASE another");
    back_up(&installation, &server, &path("tuesday"), &space, &path("tuesday space"));
    drop(load);
    let expected = server.sql(&ROWS.replace("nextval('numbers') > 40", "true"));
    let shrunk = server.sql("SELECT pg_relation_filepath('shrinks')");
    for (name, since) in [("monday", start), ("tuesday", next)] {
        let profile = strip(&path(name), since);
        let (left_out, bytes) = profile.skipped();
        let all: u64 = profile.files.iter().map(|file| file.size).sum();
        eprintln!("{major}, {name}: {left_out} of {} files left out, {bytes} of {all} bytes", profile.files.len());
        assert!(left_out > 100 && bytes > all / 3, "{left_out} files, {bytes} of {all} bytes");
        let file = profile.files.iter().find(|file| file.path == shrunk.as_bytes()).unwrap();
        assert!(!file.sent, "what remains of a table that was cut off has not changed");
    }

    let options = RecoverOptions {
        tablespace_mapping: vec![(path("tuesday space"), path("restored space"))],
        ..RecoverOptions::new(["sunday", "monday", "tuesday"].map(path), path("restored"))
    };
    let recovered = recover(&options, &mut Silent).unwrap();
    assert!(recovered.found > 100 && recovered.sent > 20, "{recovered:?}");
    for name in ["restored", "restored space"] {
        installation.give(&path(name));
    }
    let restored = Postgres::start(&installation, &path("restored"), &path("r"));
    let log = restored.log();
    assert!(log.contains("consistent recovery state reached"), "{log}");
    let rows = restored.sql(ROWS);
    // An unlogged table is empty after recovery.
    assert_eq!(rows, expected.replace("|2000||", "|0||"));
    assert_eq!(restored.sql(BALANCED), "t");
    assert_eq!(restored.sql("SELECT count(*) FROM pg_database WHERE datname = 'another'"), "1");
    let indexed = "SET enable_seqscan = off; SELECT text = repeat('y', 500) FROM still WHERE n = 77";
    assert_eq!(restored.sql(indexed), "t");
    restored.sql("INSERT INTO still SELECT * FROM elsewhere; CHECKPOINT");
    restored.stop();
    succeed(installation.tool("pg_checksums").arg("-D").arg(path("restored")));

    // It was a base; now that a server was started on it, it is none.
    let again = RecoverOptions { inputs: vec![path("restored"), path("tuesday")], output: path("again"), ..options };
    let refused = recover(&again, &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("a server was started on it"), "{refused}");
}

#[test]
fn a_chain_of_15_starts() {
    story(15);
}

#[test]
fn a_chain_of_16_starts() {
    story(16);
}

#[test]
fn a_chain_of_18_starts() {
    story(18);
}
