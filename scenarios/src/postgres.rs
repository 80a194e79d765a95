//! Real PostgreSQL servers of this machine, for the tests of every package: made by `initdb` in a directory of their own,
//! reached over a Unix socket, gone with the value.
//!
//! The programs are found in `BACKSTOP_PG_BINDIR`, else where Debian installs them. They refuse to run as root, so that a
//! test that runs as root runs them as `postgres` or `nobody`. A test that finds none says so and ends; where
//! `BACKSTOP_REQUIRE_PG` is 1 it fails.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A server listens on its socket alone, so that one number serves them all.
pub const PORT: u16 = 5432;

/// The superuser of every cluster.
pub const USER: &str = "postgres";

/// The release that tests are written for.
const RELEASE: &str = "15";

/// What tests use.
const TOOLS: [&str; 8] =
    ["initdb", "pg_basebackup", "pg_checksums", "pg_ctl", "pg_verifybackup", "pg_waldump", "postgres", "psql"];

/// The programs of one installation, and whom they run as.
#[derive(Clone, Debug)]
pub struct Installation {
    bin: PathBuf,
    /// User and group, if not our own.
    user: Option<(u32, u32)>,
}

impl Installation {
    /// The installation to test `what` with. Without one the test has nothing to do, and this has said why.
    ///
    /// # Panics
    /// If there is none and the environment requires one.
    pub fn find(what: &str) -> Option<Self> {
        let required = env::var_os("BACKSTOP_REQUIRE_PG").is_some_and(|value| value == "1");
        or_skip(Self::locate(), what, required)
    }

    /// The installation, or why there is none.
    fn locate() -> Result<Self, String> {
        let bin = env::var_os("BACKSTOP_PG_BINDIR").unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into());
        Self::at(Path::new(&bin))
    }

    fn at(bin: &Path) -> Result<Self, String> {
        let shown = bin.display();
        if let Some(tool) = TOOLS.into_iter().find(|tool| !bin.join(tool).exists()) {
            return Err(format!("no {tool} in {shown} (set BACKSTOP_PG_BINDIR)"));
        }
        let user = if rustix::process::getuid().is_root() {
            let problem = "PostgreSQL refuses to run as root, and there is no user postgres or nobody";
            Some(unprivileged_user().ok_or(problem)?)
        } else {
            None
        };
        let found = Self { bin: bin.to_path_buf(), user };
        // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
        let output = found.tool("postgres").arg("--version").output().map_err(|error| format!("{shown}: {error}"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let number = version.split_once("(PostgreSQL) ").map_or("", |(_, number)| number);
        if number.split(['.', ' ']).next() != Some(RELEASE) {
            return Err(format!("{shown} holds {version:?}, not PostgreSQL {RELEASE}"));
        }
        Ok(found)
    }

    /// The path of one of PostgreSQL's programs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command that runs `program` as the user that servers run as.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        // Nothing of the environment shall show in the results.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command
    }

    /// A command that runs one of PostgreSQL's programs.
    pub fn tool(&self, name: &str) -> Command {
        self.command(self.path(name))
    }

    /// A directory that servers can work in.
    pub fn scratch(&self) -> TempDir {
        // Below /tmp: the path of a socket has about a hundred bytes.
        let directory = tempfile::Builder::new().prefix("bs").tempdir_in("/tmp").expect("a temporary directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("permissions");
        self.give(directory.path());
        directory
    }

    /// Gives a path that a test made, and all that is in it, to the user that servers run as.
    pub fn give(&self, path: &Path) {
        let Some((user, group)) = self.user else { return };
        lchown(path, Some(user), Some(group)).expect("another owner");
        if path.symlink_metadata().expect("metadata").is_dir() {
            for entry in fs::read_dir(path).expect("a directory") {
                self.give(&entry.expect("an entry").path());
            }
        }
    }

    /// Makes a data directory. `arguments` are more of `initdb`'s.
    pub fn initdb(&self, data: &Path, arguments: &[&str]) {
        let mut initdb = self.tool("initdb");
        initdb.args(["--no-sync", "--data-checksums", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username"]);
        succeed(initdb.arg(USER).args(arguments).arg("-D").arg(data));
    }
}

/// `found`, or a word why a test of `what` cannot run.
#[expect(clippy::panic, reason = "the only way to fail a test")]
fn or_skip(found: Result<Installation, String>, what: &str, required: bool) -> Option<Installation> {
    match found {
        Ok(installation) => Some(installation),
        Err(reason) if required => panic!("{what}: {reason}, and BACKSTOP_REQUIRE_PG is 1"),
        Err(reason) => {
            println!("skipped: {what}: {reason}");
            None
        }
    }
}

/// `postgres`, or `nobody`.
fn unprivileged_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    user("postgres").or_else(|| user("nobody"))
}

/// A copy of `program` in `scratch`, where the user that servers run as can reach it.
pub fn reachable(program: &Path, scratch: &Path) -> PathBuf {
    let copy = scratch.join(program.file_name().expect("a file name"));
    fs::copy(program, &copy).expect("a copy of the program");
    copy
}

/// Runs `command` and requires that it succeeds.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// A running server. Dropped, it stops at once.
#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    data: PathBuf,
    socket: PathBuf,
}

impl Postgres {
    /// Makes a new cluster in `scratch` and starts it. `settings` are lines of `postgresql.conf`.
    ///
    /// WAL is enough for replication, which everybody may do; nothing is flushed to disk.
    pub fn new(installation: &Installation, scratch: &Path, settings: &[&str]) -> Self {
        let data = scratch.join("data");
        installation.initdb(&data, &[]);
        let conf = data.join("postgresql.conf");
        let mut text = fs::read_to_string(&conf).expect("postgresql.conf");
        for line in ["", "wal_level = replica", "max_wal_senders = 5", "fsync = off"].iter().chain(settings) {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(conf, text).expect("postgresql.conf");
        Self::start(installation, &data, &scratch.join("s"))
    }

    /// Starts a server on `data`, with its socket and its log in the directory `socket`.
    pub fn start(installation: &Installation, data: &Path, socket: &Path) -> Self {
        fs::create_dir_all(socket).expect("a directory");
        installation.give(socket);
        let options = format!("-k {} -p {PORT} -c listen_addresses= -c fsync=off", socket.display());
        let log = socket.join("log");
        let server =
            Self { installation: installation.clone(), data: data.to_path_buf(), socket: socket.to_path_buf() };
        let mut start = installation.tool("pg_ctl");
        start.args(["start", "-w", "-s", "-o", &options, "-l"]).arg(&log).arg("-D").arg(data);
        // A server that keeps a pipe of ours open would keep us waiting.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl starts");
        assert!(status.success(), "{}", server.log());
        server
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of the socket: what to give as host.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the server logged, and its predecessors on the same socket.
    pub fn log(&self) -> String {
        fs::read_to_string(self.socket.join("log")).unwrap_or_default()
    }

    /// Runs SQL and returns what it answers, without decoration.
    pub fn sql(&self, sql: &str) -> String {
        let mut psql = self.installation.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-c", sql, "-h"]);
        let output = succeed(psql.arg(&self.socket).args(["-p", &PORT.to_string()]));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops in good order, sessions or not.
    pub fn stop(&self) {
        succeed(&mut self.stopping("fast"));
    }

    fn stopping(&self, mode: &str) -> Command {
        let mut stop = self.installation.tool("pg_ctl");
        stop.args(["stop", "-w", "-s", "-m", mode, "-D"]).arg(&self.data);
        stop
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A stopped server has left no such file.
        if self.data.join("postmaster.pid").exists() {
            let _ = self.stopping("immediate").output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_goes() {
        let Some(installation) = Installation::find("a server of its own") else { return };
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), &["work_mem = '5MB'"]);
        assert_eq!(server.sql("show work_mem"), "5MB");
        let running = server.data().join("postmaster.pid");
        assert!(running.exists());
        drop(server);
        assert!(!running.exists());
        let server = Postgres::start(&installation, &scratch.path().join("data"), &scratch.path().join("s"));
        assert!(server.log().contains("redo done at"), "dropped means killed: {}", server.log());
        server.stop();
        assert!(!running.exists());
    }

    #[test]
    fn a_directory_without_programs_is_named() {
        let nowhere = Installation::at(Path::new("/nowhere"));
        let reason = nowhere.expect_err("no such directory");
        assert_eq!(reason, "no initdb in /nowhere (set BACKSTOP_PG_BINDIR)");
    }

    #[test]
    #[should_panic(expected = "backups: no server, and BACKSTOP_REQUIRE_PG is 1")]
    fn a_server_that_is_required_and_not_there_fails_the_test() {
        or_skip(Err("no server".to_owned()), "backups", true);
    }
}
