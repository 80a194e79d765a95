//! Parallel backups of a real server that is written to meanwhile: PostgreSQL starts on them, and they are of the moment of the stop.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use backstop_protocol::lsn::Lsn;
use backstop_scenarios::postgres::{PORT, Postgres, succeed};
use support::parallel::{Setup, position, stderr};

/// Names of WAL segments in a backup, in order.
fn segments(backup: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(backup.join("pg_wal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
    names.sort();
    names
}

/// Under load, with WAL and so many jobs.
fn backs_up_under_load(major: u16, jobs: &[&str]) {
    let Some(setup) = Setup::with_tables(major) else { return };
    for jobs in jobs {
        let backup = setup.path(&format!("backup{jobs}"));
        let load = setup.load();
        let output = setup.back_up(&["-x", "-D", "0.2", "-j", jobs], &backup);
        load.wait_for(1);
        drop(load);
        let (start, end) = (position(&output, "start point: "), position(&output, "end point: "));
        let number = |lsn: Lsn| lsn.0 >> 24;
        let expected = (number(start)..=number(Lsn(end.0 - 1))).map(|number| format!("00000001{:08X}{number:08X}", 0));
        assert_eq!(segments(&backup), expected.collect::<Vec<_>>(), "exactly what recovery needs");
        setup.assert_restores(&backup, &output);
    }
}

#[test]
fn of_release_15_under_load_with_1_2_and_4_jobs() {
    backs_up_under_load(15, &["1", "2", "4"]);
}

#[test]
fn of_release_16_under_load() {
    backs_up_under_load(16, &["2"]);
}

#[test]
fn of_release_18_under_load() {
    backs_up_under_load(18, &["4"]);
}

#[test]
fn with_a_mapped_tablespace() {
    for major in [15, 18] {
        let Some(setup) = Setup::with_tables(major) else { continue };
        let (location, new, backup) = (setup.path("ts"), setup.path("new"), setup.path("backup"));
        std::fs::create_dir(&location).unwrap();
        setup.installation.give(&location);
        setup.server.sql(&format!("create tablespace ts location '{}'", location.display()));
        setup.server.sql("alter table pgbench_accounts set tablespace ts");
        let mapping = format!("{}={}", location.display(), new.display());
        let load = setup.load();
        let output = setup.back_up(&["-x", "-j2", "-T", &mapping], &backup);
        drop(load);
        let oid = setup.server.sql("select oid from pg_tablespace where spcname = 'ts'");
        assert_eq!(std::fs::read_link(backup.join("pg_tblspc").join(&oid)).unwrap(), new);
        let map = std::fs::read_to_string(backup.join("tablespace_map")).unwrap();
        assert_eq!(map, format!("{oid} {}\n", new.display()));
        setup.assert_restores(&backup, &output);

        // The server's own location is in use.
        let other = setup.path("other");
        let refused = setup.client(&["-x"], &other).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let problem = format!("directory \"{}\" exists but is not empty", location.display());
        assert!(stderr(&refused).contains(&problem), "{}", stderr(&refused));
        assert!(!other.exists());
    }
}

/// Gives `input` to a command's standard input, and requires that it succeeds.
fn succeed_with(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

#[test]
fn with_a_list_of_files_that_come_first() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    let accounts = setup.server.sql("select pg_relation_filepath('pgbench_accounts')");
    let load = setup.load();
    let list = format!("postgresql.conf\n./{accounts}\nnosuch\n");
    let output = succeed_with(&mut setup.client(&["-x", "--stdin", "-N", "-d"], &backup), &list);
    drop(load);
    let said = stderr(&output);
    let first =
        said.lines().find(|line| line.contains("job 1: SELECT pg_read_binary_file") && !line.contains("pg_control"));
    assert!(first.unwrap().contains("$1 = 'postgresql.conf', $2 = 0"), "{said}");
    assert!(said.contains("file \"nosuch\" is not part of the backup"), "{said}");
    setup.assert_restores(&backup, &output);
}

/// Chunks cross the wire compressed by a function in `language`, where the server has it. Whoever asks for it by
/// `BACKSTOP_REQUIRE_LANGUAGES` is not let down in silence.
fn compressed_by(language: &str, package: &str) {
    let Some(setup) = Setup::with_tables(15) else { return };
    let available = format!("select count(*) from pg_available_extensions where name = '{language}'");
    if setup.server.sql(&available) == "0" {
        let required = std::env::var("BACKSTOP_REQUIRE_LANGUAGES").unwrap_or_default();
        assert!(!required.split_whitespace().any(|wanted| wanted == language), "{language} is not there");
        println!("skipped: parallel backups compressed by {language}: no such extension (package {package})");
        return;
    }
    setup.server.sql(&format!("create extension {language}"));
    // Longer than a piece, which is read in several.
    setup.server.sql("create table wide as select n, repeat('x', 1000) from generate_series(1, 20000) as n");
    let load = setup.load();
    let backup = setup.path("backup");
    let output = setup.back_up(&["-x", "-j2", "-d"], &backup);
    let plain = setup.back_up(&["-x", "-j2", "-d", "--no-compress"], &setup.path("plain"));
    load.wait_for(1);
    drop(load);
    let (said, plain) = (stderr(&output), stderr(&plain));
    assert!(said.contains("job 1: SELECT pg_temp.read_compressed($1, $2, $3)"), "{said}");
    assert!(!said.contains("job 1: SELECT pg_read_binary_file($1, $2, $3, true) [$1 = 'base/"), "{said}");
    assert!(!plain.contains("read_compressed"), "{plain}");
    setup.assert_restores(&backup, &output);
}

#[test]
fn with_chunks_compressed_by_python() {
    compressed_by("plpython3u", "postgresql-plpython3-15");
}

#[test]
fn with_chunks_compressed_by_perl() {
    compressed_by("plperlu", "postgresql-plperl-15");
}

/// A session of `psql` that stays open.
struct Psql {
    child: Child,
    input: std::process::ChildStdin,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Psql {
    fn new(setup: &Setup) -> Self {
        let mut psql = setup.installation.tool("psql");
        psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-p", &PORT.to_string(), "-h"])
            .arg(setup.server.socket());
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: std::io::BufReader::new(output) }
    }

    /// What a statement answers.
    fn ask(&mut self, sql: &str) -> String {
        use std::io::BufRead;
        writeln!(self.input, "{sql};\n\\echo END").unwrap();
        let mut answer = String::new();
        while !answer.ends_with("END\n") {
            assert!(self.output.read_line(&mut answer).unwrap() > 0, "{answer}");
        }
        answer.trim_end_matches("END\n").to_owned()
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn by_helpers_of_a_backup_that_somebody_else_holds() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    std::fs::create_dir(&backup).unwrap();
    std::fs::set_permissions(&backup, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    setup.installation.give(&backup);
    let load = setup.load();
    let mut holder = Psql::new(&setup);
    holder.ask("select pg_backup_start('by hand', true)");
    let mut follower = setup.client(&["-S", "-x", "-D", "0.1"], &backup);
    let follower = follower.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();

    // Everything but what is left out, in two halves.
    let all = holder.ask(
        "with recursive f(path, isdir) as (select n, (pg_stat_file(n)).isdir from pg_ls_dir('.') n \
         where n !~ '^(pg_wal|postmaster|pg_replslot|pg_notify|pg_stat_tmp|pg_subtrans|pg_serial|pg_snapshots|pg_dynshmem)' \
         union all select f.path || '/' || n, (pg_stat_file(f.path || '/' || n)).isdir from f, pg_ls_dir(f.path) n where isdir) \
         select path from f where not isdir and path !~ 'pg_internal.init|pg_control' order by path",
    );
    let lines: Vec<&str> = all.lines().collect();
    let (one, two) = lines.split_at(lines.len() / 2);
    for half in [one, two] {
        succeed_with(&mut setup.client(&["-S", "--stdin", "-j2", "-N"], &backup), &half.join("\n"));
    }
    succeed_with(&mut setup.client(&["-S", "--stdin", "-N"], &backup), "global/pg_control\n");

    let stopped = holder.ask("select lsn || '|' || labelfile from pg_backup_stop(false)");
    let (end, label) = stopped.split_once('|').unwrap();
    std::fs::write(backup.join("backup_label"), format!("{}\n", label.trim_end())).unwrap();
    setup.installation.give(&backup);
    let end: Lsn = end.parse().unwrap();
    drop(load);
    drop(holder);
    rustix::process::kill_process(rustix::process::Pid::from_child(&follower), rustix::process::Signal::INT).unwrap();
    let output = follower.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(position(&output, ", valid to ") >= end, "{}", stderr(&output));

    // Whoever does it by hand makes the empty directories, too.
    for directory in
        ["pg_replslot", "pg_notify", "pg_stat_tmp", "pg_subtrans", "pg_serial", "pg_snapshots", "pg_dynshmem"]
            .into_iter()
            .chain([
                "pg_tblspc",
                "pg_twophase",
                "pg_commit_ts",
                "pg_stat",
                "pg_logical/snapshots",
                "pg_logical/mappings",
            ])
    {
        std::fs::create_dir_all(backup.join(directory)).unwrap();
    }
    setup.installation.give(&backup);
    let restored = setup.restore(&backup);
    let balance = "select sum(abalance) = (select sum(delta) from moved) from pgbench_accounts";
    assert_eq!(restored.sql(balance), "t");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_written() {
    let Some(setup) = Setup::new(15) else { return };
    setup.server.sql("create role replicator login replication; create role nobody login; create role monitor login");
    setup.server.sql("grant execute on function pg_read_binary_file(text, bigint, bigint, boolean) to monitor");
    let refused = |dsn: &str, destination: &Path| {
        let mut command = setup.installation.command(&setup.client);
        let output = command.args(["parallelbackup", "-c", "fast", "-w", dsn]).arg(destination).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output).replace(&setup.scratch.path().display().to_string(), "SCRATCH")
    };
    let socket = setup.server.socket().display().to_string();
    let dsn = |user: &str, more: &str| format!("host={socket} port={PORT} user={user} dbname=postgres {more}");
    let backup = setup.path("backup");
    let mut said = Vec::new();
    for user in ["replicator", "nobody", "monitor"] {
        said.push(refused(&dsn(user, ""), &backup));
    }
    said.push(refused(&dsn("postgres", "dbname=nosuch"), &backup));
    said.push(refused("host=/nonexistent", &backup));
    said.push(refused("nonsense=1", &backup));
    said.push(refused("not a dsn", &backup));
    assert!(!backup.exists());

    std::fs::create_dir(&backup).unwrap();
    std::fs::write(backup.join("mine"), "").unwrap();
    setup.installation.give(&backup);
    said.push(refused(&dsn("postgres", ""), &backup));
    let mut force = setup.installation.command(&setup.client);
    let force = force.args(["parallelbackup", "-f", &setup.dsn()]).arg(&backup).output().unwrap();
    said.push(stderr(&force).replace(&setup.scratch.path().display().to_string(), "SCRATCH"));
    assert!(backup.join("mine").exists());
    insta::assert_snapshot!(said.concat());
}

#[test]
fn another_backup_makes_room_by_force() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    succeed(&mut setup.client(&["-x"], &backup));
    std::fs::write(backup.join("old"), "").unwrap();
    let refused = setup.client(&["-x"], &backup).output().unwrap();
    assert!(stderr(&refused).contains("exists but is not empty"), "{}", stderr(&refused));
    let load = setup.load();
    let output = setup.back_up(&["-x", "-f"], &backup);
    drop(load);
    assert!(!backup.join("old").exists());
    setup.assert_restores(&backup, &output);
}

#[test]
fn from_a_standby() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let (copy, backup) = (setup.path("copy"), setup.path("backup"));
    setup.back_up(&["-x"], &copy);
    let conninfo = format!("primary_conninfo = '{}'\n", setup.dsn());
    let mut conf = std::fs::OpenOptions::new().append(true).open(copy.join("postgresql.auto.conf")).unwrap();
    conf.write_all(conninfo.as_bytes()).unwrap();
    std::fs::write(copy.join("standby.signal"), "").unwrap();
    setup.installation.give(&copy);
    let load = setup.load();
    let standby = Postgres::start(&setup.installation, &copy, &setup.path("r"));
    while standby.sql("select count(*) from moved") == "0" {}
    // What it has replayed is then on its disk, so that its backups cannot end before.
    standby.sql("checkpoint");
    let dsn = format!("host={} port={PORT} user=postgres dbname=postgres", standby.socket().display());
    let mut command = setup.installation.command(&setup.client);
    command.args(["parallelbackup", "-c", "fast", "-v", "-x", "-j2", "-N", &dsn]).arg(&backup);
    let output = succeed(&mut command);
    drop(load);
    standby.stop();
    // A standby cannot switch: its last segment goes on.
    setup.assert_holds_all(&backup, &output);
}

#[test]
fn a_signal_leaves_nothing() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        // The checkpoint of the start waits for a checkpointer that is stopped.
        let checkpointer = setup.server.sql("select pid from pg_stat_activity where backend_type = 'checkpointer'");
        let checkpointer = rustix::process::Pid::from_raw(checkpointer.parse().unwrap()).unwrap();
        rustix::process::kill_process(checkpointer, rustix::process::Signal::STOP).unwrap();
        let client = setup.client(&["-x"], &backup).stderr(Stdio::piped()).spawn().unwrap();
        while setup.server.sql("select count(*) from pg_stat_activity where query like 'SELECT pg_backup_start%'")
            == "0"
        {}
        assert!(backup.exists());
        rustix::process::kill_process(rustix::process::Pid::from_child(&client), signal).unwrap();
        let output = client.wait_with_output().unwrap();
        rustix::process::kill_process(checkpointer, rustix::process::Signal::CONT).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("error: canceled by"), "{}", stderr(&output));
        assert!(!backup.exists());
    }
}

/// Waits for a session whose last statement begins so.
fn session(setup: &Setup, statement: &str) -> rustix::process::Pid {
    let sql = format!("select pid from pg_stat_activity where query like '{statement}%' limit 1");
    loop {
        if let Ok(pid) = setup.server.sql(&sql).parse() {
            return rustix::process::Pid::from_raw(pid).unwrap();
        }
    }
}

/// While a client fetches with two jobs of which one stands still, does `harm`, and lets it go on.
fn harmed(setup: &Setup, backup: &Path, harm: impl FnOnce()) -> Output {
    let mut client = setup.client(&["-N", "-j2", "--no-compress"], backup);
    let client = client.stderr(Stdio::piped()).spawn().unwrap();
    // From now on this one has nothing to do.
    session(setup, "WITH RECURSIVE tree");
    let stopped = session(setup, "SELECT pg_read_binary_file");
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP).unwrap();
    harm();
    rustix::process::kill_process(stopped, rustix::process::Signal::CONT).unwrap();
    client.wait_with_output().unwrap()
}

fn end_sessions(setup: &Setup, statement: &str) {
    let sql = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where query like '{statement}%'");
    assert_ne!(setup.server.sql(&sql), "0");
}

#[test]
fn a_lost_connection_is_replaced() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    let output = harmed(&setup, &backup, || end_sessions(&setup, "SELECT pg_read_binary_file"));
    assert!(output.status.success(), "{}", stderr(&output));
    let said = "warning: job ";
    assert!(stderr(&output).contains(said) && stderr(&output).contains("; connecting again"), "{}", stderr(&output));
    // Nothing was lost: the copy is the server's, byte for byte.
    let accounts = setup.server.sql("select pg_relation_filepath('pgbench_accounts')");
    setup.server.stop();
    assert!(
        std::fs::read(backup.join(&accounts)).unwrap() == std::fs::read(setup.server.data().join(&accounts)).unwrap()
    );
}

#[test]
fn without_the_session_that_holds_it_there_is_no_backup() {
    let Some(setup) = Setup::with_tables(15) else { return };
    let backup = setup.path("backup");
    let output = harmed(&setup, &backup, || end_sessions(&setup, "WITH RECURSIVE tree"));
    assert_eq!(output.status.code(), Some(1));
    let problem = "error: the session that holds the backup was lost: FATAL:  terminating connection due to administrator command";
    assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    assert!(!backup.exists());
}
