//! Servers that were there before the run: what they answer is compared with what PostgreSQL of their release answers, and nothing of the
//! run stays there.

mod support;

use std::fs;
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, Postgres, USER};
use support::Serving;
use tempfile::TempDir;

struct Setup {
    server: Postgres,
    scratch: TempDir,
}

impl Setup {
    fn new(major: u16) -> Option<Self> {
        let installation = Installation::find_release(major, "conformance of a server")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), &["max_wal_senders = 10", "autovacuum = off"]);
        server.sql("create role backup login replication");
        Some(Self { server, scratch })
    }

    fn conninfo(&self, user: &str) -> String {
        format!("host={} port=5432 user={user}", self.server.socket().display())
    }

    fn slots(&self) -> String {
        self.server.sql("select coalesce(string_agg(slot_name, ' '), 'none') from pg_replication_slots")
    }
}

/// `backstop run` or `backstop parity` on the server at `conninfo`.
fn backstop(command: &str, cases: &[&str], conninfo: &str, arguments: &[&str]) -> Output {
    let mut backstop = Command::new(env!("CARGO_BIN_EXE_backstop"));
    backstop.arg(command).args(cases).args(["--server", &format!("url={conninfo}")]).args(arguments);
    // Nothing of the caller's own connection settings.
    backstop
        .env_remove("PGPASSWORD")
        .env("PGPASSFILE", "/nowhere/pgpass")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    backstop.output().expect("backstop")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

const RELEASES: [u16; 2] = [15, 18];

#[test]
fn postgresql_answers_as_postgresql_does() {
    for major in RELEASES {
        let Some(setup) = Setup::new(major) else { continue };
        for user in [USER, "backup"] {
            let output = backstop("run", &["commands", "sound/plain", "sound/tar"], &setup.conninfo(user), &[]);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(0), "{major} {user}: {text}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let last = text.lines().last().unwrap_or_default();
            let played: usize =
                last.split(" passed").next().and_then(|text| text.split(' ').next_back()?.parse().ok()).unwrap_or(0);
            assert!(played >= 12, "{major} {user}: {last}");
        }
        assert_eq!(setup.slots(), "none");
    }
}

#[test]
fn what_would_stay_on_the_server_has_to_be_allowed() {
    for major in RELEASES {
        let Some(setup) = Setup::new(major) else { continue };
        setup.server.sql("select pg_create_physical_replication_slot('somebodys')");
        let case = format!("commands/cmd-label-quoting[server.version={major}]");
        let report = setup.scratch.path().join("report.json");
        let to = format!("json={}", report.display());
        let output = backstop("run", &[&case], &setup.conninfo(USER), &["--report", &to]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let told = fs::read_to_string(&report).expect("a report");
        assert!(told.contains("it creates a replication slot, which --allow-writes allows"), "{told}");
        assert_eq!(setup.slots(), "somebodys");
        let output = backstop("run", &[&case], &setup.conninfo(USER), &["--allow-writes"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("1 passed"), "{}", said(&output));
        assert_eq!(setup.slots(), "somebodys");
    }
}

#[test]
fn a_server_that_differs_is_told_row_by_row() {
    let Some(setup) = Setup::new(15) else { return };
    // A fork that says more than PostgreSQL, and another word for the same thing.
    let fork = "summary = \"s\"\nbecause = \"b\"\n\
                [[client]]\nname = \"speaker\"\n\
                [[fault]]\nwhen.ready = { client = \"speaker\" }\ndo.notice = { message = \"welcome to the fork\" }\n";
    let before = Serving::proxy(setup.scratch.path(), "fork", fork, &setup.conninfo(USER), &[]);
    let conninfo = format!("host=127.0.0.1 port={} user={USER}", before.port);
    let case = "commands/cmd-unknown-option[server.version=15]";
    let output = backstop("run", &[case], &conninfo, &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("the server answers as PostgreSQL 15 does"), "{text}");
    assert!(text.contains("+ speaker #1: > NoticeResponse") && text.contains("welcome to the fork"), "{text}");
}

#[test]
fn parity_is_told_of_any_server() {
    let Some(setup) = Setup::new(18) else { return };
    let cases = ["commands/cmd-unknown-option", "commands/cmd-duplicate-option"];
    let output = backstop("parity", &cases, &setup.conninfo(USER), &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["all", "2", "2", "0", "0"])), "{text}");
}

#[test]
fn what_keeps_a_server_from_being_played_against_is_one_error() {
    let Some(setup) = Setup::new(15) else { return };
    setup.server.sql("create role guest login");
    for (conninfo, status, words) in [
        ("host=/nowhere user=postgres".to_owned(), 96, "No such file or directory"),
        (setup.conninfo("nobody_here"), 96, "role \"nobody_here\" does not exist"),
        (setup.conninfo("guest"), 96, "must be superuser or replication role to start walsender"),
        ("nonsense=1".to_owned(), 2, "invalid connection option \"nonsense\""),
    ] {
        let output = backstop("run", &["sound/plain"], &conninfo, &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(status), "{conninfo}: {text}");
        assert!(text.contains(words), "{conninfo}: {text}");
        assert!(output.stdout.is_empty(), "{conninfo}: {text}");
    }
    // Only scenarios of its release are about it.
    let output = backstop("run", &["sound/plain[server.version=18,client.wal=none]"], &setup.conninfo(USER), &[]);
    assert!(said(&output).contains("1 skipped"), "{}", said(&output));
}
