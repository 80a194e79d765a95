//! Real PostgreSQL servers for tests: made by `initdb` in a directory of their own, reached over a Unix socket, gone with the
//! value.
//!
//! The programs are found in `BACKSTOP_PG_BINDIR`, else in `/usr/lib/postgresql/15/bin`. They refuse to run as root, so that a
//! test that runs as root runs them as `postgres` or `nobody`.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A server listens on its socket alone, so that one number serves them all.
pub const PORT: u16 = 5432;

/// The programs of one installation, and whom they run as.
#[derive(Clone, Debug)]
pub struct Installation {
    bin: PathBuf,
    /// User and group, if not our own.
    user: Option<(u32, u32)>,
}

impl Installation {
    /// The installation to test with. None if there is none: then it says so, and the test has nothing to do.
    pub fn find() -> Option<Self> {
        let bin = std::env::var_os("BACKSTOP_PG_BINDIR").unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into());
        let bin = PathBuf::from(bin);
        let missing = ["initdb", "pg_ctl", "postgres", "psql", "pg_verifybackup"]
            .into_iter()
            .find(|tool| !bin.join(tool).exists());
        if let Some(tool) = missing {
            println!("skipped: no {tool} in {} (set BACKSTOP_PG_BINDIR)", bin.display());
            return None;
        }
        let user = if rustix::process::getuid().is_root() {
            let Some(user) = unprivileged_user() else {
                println!("skipped: PostgreSQL refuses to run as root, and there is no user postgres or nobody");
                return None;
            };
            Some(user)
        } else {
            None
        };
        Some(Self { bin, user })
    }

    /// A command that runs `program` as the user that servers run as.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        // Nothing of the environment shall show in the results.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command
    }

    /// A command that runs one of PostgreSQL's programs.
    pub fn tool(&self, name: &str) -> Command {
        self.command(self.bin.join(name))
    }

    /// A directory that servers can work in.
    pub fn scratch(&self) -> TempDir {
        // Below /tmp: the path of a socket has about a hundred bytes.
        let directory = tempfile::Builder::new().prefix("bs").tempdir_in("/tmp").expect("a temporary directory");
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("permissions");
        if let Some((user, group)) = self.user {
            chown(directory.path(), Some(user), Some(group)).expect("another owner");
        }
        directory
    }

    /// Gives a path that a test made to the user that servers run as.
    pub fn give(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            std::os::unix::fs::lchown(path, Some(user), Some(group)).expect("another owner");
        }
    }
}

/// A copy of `program` in `scratch`, where other users can reach it.
pub fn reachable(program: &Path, scratch: &Path) -> PathBuf {
    let copy = scratch.join(program.file_name().expect("a file name"));
    std::fs::copy(program, &copy).expect("a copy of the program");
    copy
}

/// `postgres`, or `nobody`.
fn unprivileged_user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    user("postgres").or_else(|| user("nobody"))
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
    pub fn new(installation: &Installation, scratch: &Path, settings: &[&str]) -> Self {
        let data = scratch.join("data");
        let mut initdb = installation.tool("initdb");
        initdb.args(["--no-sync", "--data-checksums", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        succeed(initdb.arg(&data));
        let conf = data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&conf).expect("postgresql.conf");
        text.push_str("\nlisten_addresses = ''\nwal_level = replica\nmax_wal_senders = 5\nfsync = off\n");
        for line in settings {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(conf, text).expect("postgresql.conf");
        Self::start(installation, &data, &scratch.join("s"))
    }

    /// Starts a server on `data`, with its socket in `socket`.
    pub fn start(installation: &Installation, data: &Path, socket: &Path) -> Self {
        std::fs::create_dir_all(socket).expect("a directory");
        installation.give(socket);
        let options = format!("-k {} -p {PORT} -c listen_addresses=", socket.display());
        let log = socket.join("log");
        let server =
            Self { installation: installation.clone(), data: data.to_path_buf(), socket: socket.to_path_buf() };
        let mut start = installation.tool("pg_ctl");
        start.args(["start", "-w", "-s", "-o", &options, "-l"]).arg(&log).arg("-D").arg(data);
        // A server that keeps a pipe of ours open would keep us waiting.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl starts");
        assert!(status.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
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

    /// What the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.socket.join("log")).unwrap_or_default()
    }

    /// Runs SQL and returns what it answers, without decoration.
    pub fn sql(&self, sql: &str) -> String {
        let mut psql = self.installation.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-c", sql, "-h"]);
        let output = succeed(psql.arg(&self.socket).args(["-p", &PORT.to_string()]));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops as `mode` says: `fast`, `immediate`.
    pub fn stop(&self, mode: &str) {
        let mut stop = self.installation.tool("pg_ctl");
        let _ = stop.args(["stop", "-w", "-s", "-m", mode, "-D"]).arg(&self.data).output();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}
