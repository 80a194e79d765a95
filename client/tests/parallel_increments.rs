//! Incremental backups by LSN of real servers that are written to meanwhile, taken with SQL and put together by `recover`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use backstop_protocol::base_backup::profile::BackupProfile;
use backstop_scenarios::postgres::Postgres;
use support::parallel::{Setup, position, stderr};

/// Rows of tables that nobody changes while the last backup is taken.
const ROWS: &str = "select (select count(*) || ' ' || sum(n) from grows), (select count(*) || ' ' || sum(n) from shrinks), \
    (select count(*) || ' ' || sum(n) from still), (select count(*) || ' ' || sum(n) from elsewhere), \
    (select count(*) from volatile), to_regclass('dropped')";

/// A server with tables of every kind, one of them in a tablespace, and where that lies.
fn server(major: u16) -> Option<(Setup, PathBuf)> {
    let setup = Setup::with_tables(major)?;
    let space = setup.path("space");
    fs::create_dir(&space).unwrap();
    setup.installation.give(&space);
    // VACUUM only cuts off what nobody looks at, and nobody else shall.
    setup.server.sql("alter system set autovacuum = off");
    setup.server.sql("select pg_reload_conf()");
    setup.server.sql(&format!("create tablespace space location '{}'", space.display()));
    setup.server.sql(
        "create table still as select n, repeat('y', 500) as text from generate_series(1, 20000) as n;
         create index on still (n);
         create table elsewhere tablespace space as select * from still;
         create table grows as select n from generate_series(1, 1000) as n;
         create table shrinks as select * from still;
         create table dropped as select * from still;
         create unlogged table volatile as select * from still",
    );
    // Relations grow by several pages at once since 16, and one with a page that was never initialised is always sent.
    setup.server.sql("vacuum (full, freeze)");
    Some((setup, space))
}

/// Takes a backup, whose tablespace goes to a directory of its own.
fn back_up(setup: &Setup, space: &Path, name: &str, arguments: &[&str]) -> Output {
    let mapping = format!("{}={}", space.display(), setup.path(&format!("{name}-space")).display());
    setup.back_up(&[&["-x", "-D", "0.2", "-T", &mapping], arguments].concat(), &setup.path(name))
}

/// What `recover` does, and how it ends.
fn recover(setup: &Setup, inputs: &[&str], mapped: &str, output: &str) -> Output {
    let mut command = setup.installation.command(&setup.client);
    let (from, to) = (setup.path(&format!("{mapped}-space")), setup.path(&format!("{output}-space")));
    command.args(["recover", "-v", "-N", "-T"]).arg(format!("{}={}", from.display(), to.display()));
    command.args(inputs.iter().map(|name| setup.path(name))).arg(setup.path(output)).output().unwrap()
}

fn profile(backup: &Path) -> BackupProfile {
    BackupProfile::parse(&fs::read(backup.join("backup_profile")).unwrap()).unwrap()
}

/// What an incremental backup left out, as it says itself and as its profile does.
fn left_out(setup: &Setup, name: &str, output: &Output) -> BackupProfile {
    let profile = profile(&setup.path(name));
    let (files, bytes) = profile.skipped();
    let all: u64 = profile.files.iter().map(|file| file.size).sum();
    let major = setup.installation.major();
    eprintln!("PostgreSQL {major}, {name}: {files} of {} files left out, {bytes} of {all} bytes", profile.files.len());
    let said = format!("left out {files} files, {bytes} bytes");
    assert!(stderr(output).contains(&said), "{}", stderr(output));
    assert!(files > 100 && bytes > all / 4, "{files} files, {bytes} of {all} bytes");
    for file in profile.files.iter().filter(|file| !file.sent) {
        let path = std::ffi::OsString::from(String::from_utf8(file.path_in_data_directory()).unwrap());
        assert!(!setup.path(name).join(path).exists());
    }
    profile
}

/// A full backup and two on top of it, while `pgbench` works.
fn a_chain_starts(major: u16) {
    let Some((setup, space)) = server(major) else { return };
    let load = setup.load();
    let sunday = position(&back_up(&setup, &space, "sunday", &[]), "start point: ");
    setup.server.sql("delete from shrinks where (ctid::text::point)[0] >= 40; drop table dropped");
    setup.server.sql("vacuum (truncate) shrinks");
    setup.server.sql("insert into grows select n from generate_series(1001, 3000) as n");
    let output = back_up(&setup, &space, "monday", &["-j2", "-I", &sunday.to_string()]);
    let monday = position(&output, "start point: ");
    let profile = left_out(&setup, "monday", &output);
    let sent = |table: &str| {
        let path = setup.server.sql(&format!("select pg_relation_filepath('{table}')"));
        profile.files.iter().find(|file| file.path_in_data_directory() == path.as_bytes()).unwrap().sent
    };
    assert!(!sent("still") && !sent("elsewhere") && sent("pgbench_accounts") && sent("moved") && sent("grows"));
    setup.server.sql("insert into grows select n from generate_series(3001, 4000) as n");
    let output = back_up(&setup, &space, "tuesday", &["-j4", "-I", &monday.to_string()]);
    drop(load);
    left_out(&setup, "tuesday", &output);
    let expected = setup.server.sql(ROWS);

    let recovered = recover(&setup, &["sunday", "monday", "tuesday"], "tuesday", "restored");
    assert!(recovered.status.success(), "{}", stderr(&recovered));
    eprintln!("PostgreSQL {major}: {}", stderr(&recovered).trim());
    setup.assert_restores(&setup.path("restored"), &output);
    let restored = Postgres::start(&setup.installation, &setup.path("restored"), &setup.path("r"));
    // An unlogged table is empty after recovery.
    assert_eq!(restored.sql(ROWS), expected.replace("|20000|", "|0|"));
    let indexed = "set enable_seqscan = off; select text = repeat('y', 500) from still where n = 777";
    assert_eq!(restored.sql(indexed), "t");
    restored.stop();
}

#[test]
fn a_chain_of_15_starts() {
    a_chain_starts(15);
}

#[test]
fn a_chain_of_16_starts() {
    a_chain_starts(16);
}

#[test]
fn a_chain_of_18_starts() {
    a_chain_starts(18);
}

#[test]
fn bad_input_is_one_clear_error_and_nothing_is_written() {
    let Some((setup, space)) = server(15) else { return };
    let sunday = position(&back_up(&setup, &space, "sunday", &[]), "start point: ");
    setup.server.sql("insert into grows select n from generate_series(1001, 3000) as n");
    let since = sunday.to_string();
    back_up(&setup, &space, "monday", &["-I", &since]);
    back_up(&setup, &space, "other", &[]);
    setup.server.sql("create role replicator login replication");
    let scratch = setup.scratch.path().display().to_string();
    let mut said = Vec::new();
    let mut refused = |output: &Output, written: &str| {
        assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
        for name in [written.to_owned(), format!("{written}-space")] {
            assert!(!setup.path(&name).exists(), "{name}");
        }
        said.push(stderr(output).replace(&scratch, "SCRATCH"));
    };

    // Where the server's WAL is differs from run to run.
    let future = setup.client(&["-I", "FFFF/0"], &setup.path("future")).output().unwrap();
    assert!(stderr(&future).contains("since FFFF/0: the server's write-ahead log is at "), "{}", stderr(&future));
    assert!(!setup.path("future").exists());
    let mut replicator = setup.installation.command(&setup.client);
    let dsn = setup.dsn().replace("user=postgres", "user=replicator");
    let replicator = replicator.args(["parallelbackup", "-w", "-x", "-I", &since, &dsn]).arg(setup.path("denied"));
    refused(&replicator.output().unwrap(), "denied");

    // A backup that started later knows nothing of what this one left out.
    let positions = |text: String| {
        let mut text = text;
        for name in ["sunday", "monday", "other"] {
            let label = fs::read_to_string(setup.path(name).join("backup_label")).unwrap();
            let start = label.lines().next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
            text = text.replace(&start, &format!("<start of {name}>"));
        }
        text
    };
    refused(&recover(&setup, &["other", "monday"], "monday", "restored"), "restored");
    refused(&recover(&setup, &["monday", "sunday"], "sunday", "restored"), "restored");

    let path = setup.path("monday").join("backup_profile");
    let whole = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let edited = String::from_utf8(whole.clone()).unwrap().replacen("\tf\t", "\tt\t", 1);
    let without_a_line = lines[..lines.len() - 1].concat();
    for content in [&whole[..whole.len() / 2], edited.as_bytes(), &without_a_line] {
        fs::write(&path, content).unwrap();
        refused(&recover(&setup, &["sunday", "monday"], "monday", "restored"), "restored");
    }
    fs::remove_file(&path).unwrap();
    refused(&recover(&setup, &["sunday", "monday"], "monday", "restored"), "restored");
    fs::write(&path, &whole).unwrap();
    insta::assert_snapshot!(positions(said.concat()));
    assert!(recover(&setup, &["sunday", "monday"], "monday", "restored").status.success());
}
