//! A server, a client, and a directory in which everything happens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backstop::oracle::alone;
use backstop::oracle::artifact::Artifact;
use backstop::oracle::leftovers::passes_for_a_backup;
use backstop::oracle::outside::Snapshot;
use backstop_client::commands::{Answer, run_commands};
use backstop_client::{Address, Login, NetConnector, Silent};
use tempfile::TempDir;

use super::strike::{Calls, Strike};
use super::support::Serving;
use super::support::client::client_program;

/// A cluster of a little less than 1 MiB.
const SERVER: &str = r#"
summary = "A server that is in order"
because = "Whatever goes wrong is the client's affair"
[server]
version = "18"
wal-segment-size = "1MiB"
settings = { summarize_wal = "on", "backstop.changed_blocks" = "10%" }
[cluster]
size = "512KiB"
wal-rate = "WAL-RATE"
[[cluster.tablespace]]
oid = 16400
location = "/srv/space"
size = "64KiB"
"#;

pub(crate) struct Site {
    server: Serving,
    directory: TempDir,
}

impl Site {
    /// With a server that writes WAL at this rate.
    pub(crate) fn new(wal_rate: &str) -> Self {
        // Here fsync costs nothing.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let server = Serving::start(directory.path(), "server", &SERVER.replace("WAL-RATE", wal_rate));
        let home = directory.path().join("home");
        fs::create_dir_all(home.join("neighbour/global")).expect("a directory");
        fs::write(home.join("neighbour/global/pg_control"), "not yours").expect("a file");
        symlink("neighbour", home.join("link")).expect("a link");
        for name in ["pg_basebackup", "pg_receivewal", "pg_combinebackup", "pg_verifybackup"] {
            symlink(client_program(), directory.path().join(name)).expect("a link");
        }
        Self { server, directory }
    }

    /// Where tools work. There is something that is not theirs in it.
    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// The client under one of PostgreSQL's names.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A picture of everything at home but `except`.
    pub(crate) fn picture(&self, except: &[PathBuf]) -> Snapshot {
        Snapshot::take(&self.home(), except).expect("a picture")
    }

    /// Has the server do what a replication command says.
    pub(crate) fn command(&self, command: &str) {
        let connector = NetConnector::new([Address::new("127.0.0.1", self.server.port)]);
        let (login, commands) = (Login::new("backstop", "test"), [command.to_owned()]);
        let answers = run_commands(&connector, &login, &commands, Arc::new(Silent));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answers = runtime.block_on(answers).expect("a session");
        assert!(matches!(answers[..], [Answer::Completed { .. }]), "{command}: {answers:?}");
    }

    /// Runs a tool to its end.
    pub(crate) fn run(&self, tool: &str, arguments: &[String]) -> Output {
        self.settle(Command::new(self.tool(tool)), arguments)
    }

    /// Runs a tool, which is struck.
    pub(crate) fn struck(&self, tool: &str, arguments: &[String], strike: &Strike) -> Output {
        self.settle(strike.command(&self.tool(tool)), arguments)
    }

    /// Runs a tool, which is struck, and was started to ignore what hangs up.
    pub(crate) fn struck_without_hangup(&self, tool: &str, arguments: &[String], strike: &Strike) -> Output {
        self.settle(strike.command_without_hangup(&self.tool(tool)), arguments)
    }

    /// Counts the system calls of a run that is not struck.
    pub(crate) fn calls(&self, tool: &str, arguments: &[String]) -> Calls {
        let log = self.directory.path().join("calls");
        let output = self.settle(Calls::counting(&self.tool(tool), &log), arguments);
        assert!(output.status.success(), "{}", said(&output));
        Calls::read(&log)
    }

    fn settle(&self, mut command: Command, arguments: &[String]) -> Output {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        let port = self.server.port.to_string();
        command.env("PGHOST", "127.0.0.1").env("PGPORT", port).env("PGUSER", "backstop").env("LC_ALL", "C");
        command.current_dir(self.home()).args(arguments).output().expect("a tool")
    }
}

/// What a tool said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// How a tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    /// It said why.
    Failure,
    /// By a signal that it left to itself.
    Killed(i32),
}

impl End {
    /// # Panics
    /// If a tool ended as no tool may: by a panic, or not at all.
    pub(crate) fn of(output: &Output, what: &str) -> Self {
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => Self::Success,
            // 127 is the dynamic loader's.
            (Some(1 | 127), _) => Self::Failure,
            // A counter that the runtime wakes itself with is written to like a file, but no disk is behind it.
            (Some(101), _) if said(output).contains("failed to wake I/O driver") => Self::Failure,
            (None, Some(signal @ (1 | 2 | 9 | 15))) => Self::Killed(signal),
            // `timeout` tells of a signal as shells do.
            (Some(status @ (129 | 130 | 143)), _) => Self::Killed(status - 128),
            (code, signal) => unreachable!("{what}: ended with {code:?} {signal:?}\n{}", said(output)),
        }
    }
}

/// What is wrong with what lies in `target`, if somebody would take it for a backup.
pub(crate) fn published_and_wrong(target: &Path) -> Option<String> {
    if !passes_for_a_backup(&Artifact::load(target), true) {
        return None;
    }
    let (_, _, checks) = alone::judge(target);
    let wrong: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| check.actual.as_str()).collect();
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// Whether there is a backup.
pub(crate) fn is_published(target: &Path) -> bool {
    passes_for_a_backup(&Artifact::load(target), true)
}

/// Removes what a run made.
pub(crate) fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => unreachable!("{}: {error}", path.display()),
        _ => {}
    }
}

pub(crate) fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        remove(path);
    }
}

/// How the strikes of a test came out.
pub(crate) struct Tally {
    test: &'static str,
    ends: BTreeMap<(&'static str, String), usize>,
}

impl Tally {
    pub(crate) fn of(test: &'static str) -> Self {
        Self { test, ends: BTreeMap::new() }
    }

    pub(crate) fn count(&mut self, way: &'static str, end: impl std::fmt::Debug) {
        *self.ends.entry((way, format!("{end:?}"))).or_insert(0) += 1;
    }

    /// Prints how many strikes there were, and how they ended.
    ///
    /// # Panics
    /// If most of them did nothing: then they do not try what they are for.
    pub(crate) fn tell(&self) {
        let total: usize = self.ends.values().sum();
        let ends: Vec<_> = self.ends.iter().map(|((way, end), count)| format!("{way} {end} {count}")).collect();
        println!("{}: {total} strikes: {}", self.test, ends.join(", "));
        let survived: usize = self.ends.iter().filter(|((_, end), _)| end == "Success").map(|(_, count)| count).sum();
        assert!(survived * 2 < total, "most strikes struck nothing: {ends:?}");
    }
}
