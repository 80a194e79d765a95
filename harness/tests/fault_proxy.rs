//! An unmodified `pg_basebackup` before a real server, with the fault proxy in between.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, Postgres, USER, succeed};
use support::Serving;
use tempfile::TempDir;

/// A server with a table in a tablespace.
struct Setup {
    installation: Installation,
    server: Postgres,
    scratch: TempDir,
}

impl Setup {
    fn new(major: u16) -> Option<Self> {
        Self::with(major, &["max_wal_senders = 20", "autovacuum = off", "wal_keep_size = 512MB"])
    }

    fn with(major: u16, settings: &[&str]) -> Option<Self> {
        let installation = Installation::find_release(major, "the fault proxy")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), settings);
        let location = scratch.path().join("ts");
        fs::create_dir(&location).expect("a directory");
        installation.give(&location);
        server.sql(&format!("create tablespace ts location '{}'", location.display()));
        server.sql("create table t tablespace ts as select generate_series(1, 20000) as i");
        server.sql("checkpoint");
        Some(Self { installation, server, scratch })
    }

    /// The proxy with one fault.
    fn proxy(&self, name: &str, fault: &str) -> Serving {
        let scenario = format!("summary = \"{name}\"\nbecause = \"a test\"\n{fault}");
        let upstream = format!("host={} user={USER}", self.server.socket().display());
        Serving::proxy(self.scratch.path(), name, &scenario, &upstream, &[])
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name).with_extension("log")).expect("a log")
    }

    fn target(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("backup-{name}"))
    }

    /// `pg_basebackup` through the proxy.
    fn command(&self, port: u16, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.installation.tool("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, "-cfast", "--no-sync", "-w", "-D"]);
        command.arg(self.target(name)).args(arguments);
        command
    }

    fn mapping(&self, name: &str) -> String {
        let scratch = self.scratch.path().display();
        format!("-T{scratch}/ts={scratch}/new-{name}")
    }

    /// A backup with one fault that must fail, and what was said. The fault has struck.
    fn struck(&self, name: &str, fault: &str, arguments: &[&str]) -> String {
        let proxy = self.proxy(name, fault);
        let output = self.command(proxy.port, name, arguments).output().expect("pg_basebackup starts");
        assert!(!output.status.success(), "{name}: {output:?}");
        assert_eq!(proxy.finish(), Some(0), "{}", self.log(name));
        assert!(self.log(name).contains("has struck"), "{}", self.log(name));
        said(&output)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below `directory` with its content, but not what differs from backup to backup.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().strip_prefix(directory).expect("a path below").to_owned(), entry.into_path()))
        .filter(|(path, _)| {
            let own = ["backup_label", "backup_manifest", "global/pg_control"];
            !own.iter().any(|name| path == Path::new(name)) && !path.starts_with("pg_wal")
        })
        .map(|(path, file)| (path, fs::read(file).expect("a file")))
        .collect();
    files.sort();
    files
}

const RELEASES: [u16; 2] = [15, 18];

#[test]
fn without_faults_a_backup_is_what_it_is_without_the_proxy() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let proxy = setup.proxy("sound", "");
        succeed(setup.command(proxy.port, "through", &[]).arg(setup.mapping("through")));
        succeed(setup.installation.tool("pg_verifybackup").arg(setup.target("through")));
        let mut direct = setup.installation.tool("pg_basebackup");
        direct.arg("-h").arg(setup.server.socket()).args(["-p", "5432", "-U", USER, "-cfast", "--no-sync", "-D"]);
        succeed(direct.arg(setup.target("direct")).arg(setup.mapping("direct")));
        let (through, direct) = (files(&setup.target("through")), files(&setup.target("direct")));
        assert!(through.len() > 900, "{} files", through.len());
        let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&through), names(&direct));
        assert!(through == direct);
        assert_eq!(proxy.finish(), Some(0));
        let log = setup.log("sound");
        assert!(log.contains("CopyData n base.tar") && log.contains("closed by the server"), "{log}");
        assert_eq!(setup.server.sql("select count(*) from pg_stat_replication"), "0");
    }
}

#[test]
fn a_stream_is_cut_at_a_member_at_a_position_and_in_the_manifest() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let member = "[[fault]]\nwhen.member = { path = \"global/pg_control\" }\ndo.close = {}\n";
        let text = setup.struck("member", member, &[&setup.mapping("member")]);
        assert!(text.contains("server closed the connection unexpectedly") || text.contains("COPY"), "{text}");

        let manifest = "[[fault]]\nwhen.manifest-data = { at = \"50%\" }\ndo.reset = {}\n";
        let text = setup.struck("manifest", manifest, &[&setup.mapping("manifest")]);
        // What libpq says of a reset.
        assert!(text.contains("server closed the connection unexpectedly"), "{text}");

        let start = setup.server.sql("select pg_current_wal_lsn()");
        let wal = format!("[[fault]]\nwhen.wal-data = {{ client = \"wal\", lsn = \"{start}\" }}\ndo.close = {{}}\n");
        let text = setup.struck("wal", &wal, &[&setup.mapping("wal"), "-Xstream"]);
        assert!(text.contains("WAL") || text.contains("background process"), "{text}");
    }
}

#[test]
fn a_hostile_member_gets_into_a_real_stream() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let fault = "[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\n\
                     do.extra-member = { name = \"planted\", content = \"by the proxy\" }\n";
        let proxy = setup.proxy("hostile", fault);
        succeed(setup.command(proxy.port, "hostile", &["-Ft"]).arg("-Xnone"));
        assert_eq!(proxy.finish(), Some(0));
        let archive = fs::File::open(setup.target("hostile").join("base.tar")).expect("an archive");
        let mut archive = tar::Archive::new(archive);
        let names: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        let place = names.iter().position(|name| name == "planted").expect("the planted file");
        assert_eq!(names.get(place + 1).map(String::as_str), Some("PG_VERSION"));
    }
}

#[test]
fn an_error_is_said_in_good_order_and_nothing_is_left_running() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let fault = "[[fault]]\nwhen.archive-begin = { archive = \"base.tar\" }\n\
                     do.error = { sqlstate = \"58030\", message = \"could not read block 7\" }\n";
        let text = setup.struck("error", fault, &[&setup.mapping("error")]);
        assert!(text.contains("could not read block 7"), "{text}");
        let fault = "[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\ndo.terminate = {}\n";
        let text = setup.struck("terminate", fault, &[&setup.mapping("terminate")]);
        // A server that is in the middle of writing ends without a word.
        let words =
            ["terminating connection due to administrator command", "server closed the connection unexpectedly"];
        assert!(words.iter().any(|words| text.contains(words)), "{text}");
        assert_eq!(setup.server.sql("select count(*) from pg_stat_activity where backend_type = 'walsender'"), "0");
    }
}

#[test]
fn many_clients_at_once_are_served() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let proxy = setup.proxy("many", "");
        let backups: Vec<_> = (0..6)
            .map(|number| {
                let name = format!("many{number}");
                let mut command = setup.command(proxy.port, &name, &["-Xfetch"]);
                (name.clone(), command.arg(setup.mapping(&name)).spawn().expect("pg_basebackup starts"))
            })
            .collect();
        for (name, mut backup) in backups {
            assert!(backup.wait().expect("an end").success(), "{name}");
            succeed(setup.installation.tool("pg_verifybackup").arg(setup.target(&name)));
        }
        assert_eq!(proxy.finish(), Some(0));
    }
}

#[test]
fn the_server_does_what_faults_do_to_servers() {
    for setup in RELEASES.into_iter().filter_map(|major| Setup::with(major, &["wal_keep_size = 0"])) {
        setup.server.sql("select pg_create_physical_replication_slot('doomed')");
        let segment = setup.server.sql("select pg_walfile_name(pg_current_wal_lsn())");
        let faults = format!(
            "[[fault]]\nwhen.start-position = {{}}\ndo.start-backup = {{}}\n\
             [[fault]]\nwhen.tablespace-list = {{}}\ndo.drop-slot = {{ slot = \"doomed\" }}\n\
             [[fault]]\nwhen.copy-begin = {{}}\ndo.recycle-wal = {{ through = \"{segment}\" }}\n\
             [[fault]]\nwhen.manifest-begin = {{}}\ndo.promote = {{}}\n\
             [[fault]]\nwhen.end-position = {{}}\ndo.stop-backup = {{}}\n"
        );
        let proxy = setup.proxy("server", &faults);
        let backups = "select count(*) from pg_stat_activity where application_name = 'backstop proxy'";
        succeed(setup.command(proxy.port, "server", &["-Xnone"]).arg(setup.mapping("server")));
        assert_eq!(setup.server.sql(backups), "0");
        assert_eq!(setup.server.sql("select count(*) from pg_replication_slots where slot_name = 'doomed'"), "0");
        let left = format!("select count(*) from pg_ls_waldir() where name = '{segment}'");
        assert_eq!(setup.server.sql(&left), "0");
        assert_eq!(proxy.finish(), Some(0));
        // What a server refuses is told, and the rest went well.
        let log = setup.log("server");
        let problems: Vec<_> = log.lines().filter(|line| line.contains("! fault") && line.contains(": ")).collect();
        assert!(
            matches!(problems[..], [only] if only.contains("promote: ") && only.contains("recovery is not in progress")),
            "{log}"
        );
    }
}

#[test]
fn a_standby_is_promoted_in_the_middle_of_its_backup() {
    let Some(setup) = RELEASES.into_iter().find_map(Setup::new) else { return };
    let data = setup.target("standby");
    let mut copy = setup.installation.tool("pg_basebackup");
    copy.arg("-h").arg(setup.server.socket()).args(["-p", "5432", "-U", USER, "-cfast", "--no-sync", "-R", "-D"]);
    succeed(copy.arg(&data).arg(setup.mapping("standby")));
    let standby = Postgres::start(&setup.installation, &data, &setup.scratch.path().join("s2"));
    let scenario = "summary = \"s\"\nbecause = \"b\"\n[[fault]]\nwhen.archive-begin = { archive = \"base.tar\" }\ndo.promote = {}\n";
    let scratch = setup.scratch.path().display();
    let mapping = format!("-T{scratch}/new-standby={scratch}/new-promote");
    let upstream = format!("host={} user={USER}", standby.socket().display());
    let proxy = Serving::proxy(setup.scratch.path(), "promote", scenario, &upstream, &[]);
    let output = setup.command(proxy.port, "promote", &["-Xnone", &mapping]).output().expect("it starts");
    let text = said(&output);
    assert!(!output.status.success() && text.contains("the standby was promoted during online backup"), "{text}");
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "f");
    assert_eq!(proxy.finish(), Some(0));
}

const ENCRYPTED: &str = r#"
summary = "An encrypted server"
because = "The proxy speaks TLS to both sides"
[server]
version = "15"
tls = true
hba = ["hostssl replication backstop 127.0.0.1/32 scram-sha-256"]
wal-segment-size = "1MiB"
[[server.user]]
name = "backstop"
password = "secret"
replication = true
[cluster]
size = "1MiB"
"#;

#[test]
fn tls_is_spoken_to_both_sides() {
    let Some(installation) = Installation::find("the fault proxy's TLS") else { return };
    let scratch = installation.scratch();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (server_ca, proxy_ca) = (path("server.pem"), path("proxy.pem"));
    let server = Serving::start_with(scratch.path(), "encrypted", ENCRYPTED, &["--ca-file", &server_ca]);
    let fault = "summary = \"s\"\nbecause = \"b\"\n[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\n\
                 do.notice = { message = \"from the proxy\" }\n";
    let upstream = format!(
        "host=127.0.0.1 port={} user=backstop password=secret sslmode=verify-full sslrootcert={server_ca}",
        server.port
    );
    let proxy = Serving::proxy(scratch.path(), "tls", fault, &upstream, &["--tls", "--ca-file", &proxy_ca]);
    let back_up = |name: &str, libpq: &[(&str, &str)]| {
        let mut command = installation.tool("pg_basebackup");
        command.env("HOME", scratch.path()).env("PGPASSWORD", "secret").envs(libpq.iter().copied());
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "backstop", "-w", "-cfast", "-Xnone"]);
        command.arg("--no-sync").arg("-D").arg(scratch.path().join(name)).output().expect("pg_basebackup starts")
    };
    // The server would bind the channel if there were one to the client.
    let output = back_up("clear", &[("PGSSLMODE", "disable")]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("from the proxy"), "{}", said(&output));
    let verified = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &proxy_ca)];
    let output = back_up("bound", &verified);
    assert!(!output.status.success());
    let hint = "Set channel_binding=disable on the client, or sslmode=disable in the proxy's --upstream.";
    let text = said(&output);
    assert!(text.contains("channel binding cannot pass a proxy that speaks TLS to both sides"), "{text}");
    assert!(text.contains(hint), "{text}");
    let unbound = [verified[0], verified[1], ("PGCHANNELBINDING", "disable")];
    let output = back_up("unbound", &unbound);
    assert!(output.status.success(), "{}", said(&output));
    succeed(installation.tool("pg_verifybackup").arg("-n").arg(scratch.path().join("unbound")));
    // Another authority vouches for the server than for the proxy.
    let fooled = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", server_ca.as_str())];
    let output = back_up("fooled", &fooled);
    assert!(said(&output).contains("certificate verify failed"), "{}", said(&output));
    assert_eq!(proxy.finish(), Some(0));
}

#[test]
fn what_cannot_be_done_is_one_error_before_anybody_listens() {
    let Some(setup) = RELEASES.into_iter().find_map(Setup::new) else { return };
    let refused = |fault: &str, upstream: &str| {
        let path = setup.scratch.path().join("refused.toml");
        fs::write(&path, format!("summary = \"s\"\nbecause = \"b\"\n[[fault]]\n{fault}\n")).expect("a file");
        let mut backstop = Command::new(env!("CARGO_BIN_EXE_backstop"));
        let output = backstop.arg("proxy").arg(&path).args(["--upstream", upstream]).output().expect("backstop");
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), said(&output).replace(&setup.scratch.path().display().to_string(), "SCRATCH"))
    };
    let here = format!("host={} user={USER}", setup.server.socket().display());
    let (status, text) = refused("when.ready = {}\ndo.crash = {}", &here);
    assert_eq!(status, Some(2));
    insta::assert_snapshot!(text);
    let (status, text) = refused("when.ready = {}\ndo.promote = {}", &here.replace(USER, "nobody_here"));
    assert_eq!(status, Some(2));
    insta::assert_snapshot!(text);
    let (status, text) = refused("when.ready = {}\ndo.close = {}", "host=/nowhere");
    assert_eq!(status, Some(96));
    insta::assert_snapshot!(text);
}

#[test]
fn a_server_that_dies_is_seen_as_that() {
    let Some(setup) = RELEASES.into_iter().find_map(Setup::new) else { return };
    let fault = "[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\ndo.stall = {}\n";
    let proxy = setup.proxy("dies", fault);
    let mut backup = setup.command(proxy.port, "dies", &["-Xnone"]);
    setup.server.stop();
    let output = backup.output().expect("pg_basebackup starts");
    let text = said(&output);
    assert!(!output.status.success() && text.contains("the proxy could not connect to its upstream"), "{text}");
    // The fault had no occasion.
    assert_eq!(proxy.finish(), Some(100));
    assert!(setup.log("dies").contains("fault: when.member do.stall has not struck"));
}
