//! Where the programs of a release are, and whom they run as.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{RELEASE, USER};

/// What tests use of every release.
const TOOLS: [&str; 9] = [
    "initdb",
    "pg_basebackup",
    "pg_checksums",
    "pg_ctl",
    "pg_receivewal",
    "pg_verifybackup",
    "pg_waldump",
    "postgres",
    "psql",
];

/// What came with a release.
const LATER_TOOLS: [(u16, &str); 1] = [(17, "pg_combinebackup")];

/// The programs of one installation, and whom they run as.
#[derive(Clone, Debug)]
pub struct Installation {
    major: u16,
    bin: PathBuf,
    /// User and group, if not our own.
    user: Option<(u32, u32)>,
}

impl Installation {
    /// The installation of release 15 to test `what` with. Without one the test has nothing to do, and this has said why.
    ///
    /// # Panics
    /// If there is none and `BACKSTOP_REQUIRE_PG` lists 15, or is `1`.
    pub fn find(what: &str) -> Option<Self> {
        Self::find_release(RELEASE, what)
    }

    /// The installation of a major release to test `what` with. Without one the test has nothing to do, and this has said why.
    ///
    /// # Panics
    /// If there is none and `BACKSTOP_REQUIRE_PG` lists the release.
    pub fn find_release(major: u16, what: &str) -> Option<Self> {
        let required = env::var("BACKSTOP_REQUIRE_PG").unwrap_or_default();
        or_skip(Self::locate(major), what, requires(&required, major))
    }

    /// The installation, or why there is none.
    fn locate(major: u16) -> Result<Self, String> {
        Self::at(major, &directory(major))
    }

    fn at(major: u16, bin: &Path) -> Result<Self, String> {
        let shown = bin.display();
        let later = LATER_TOOLS.into_iter().filter(|(since, _)| major >= *since).map(|(_, tool)| tool);
        if let Some(tool) = TOOLS.into_iter().chain(later).find(|tool| !bin.join(tool).exists()) {
            return Err(format!("no {tool} in {shown} (set {})", variable(major)));
        }
        let user = if rustix::process::getuid().is_root() {
            let problem = "PostgreSQL refuses to run as root, and there is no user postgres or nobody";
            Some(unprivileged_user().ok_or(problem)?)
        } else {
            None
        };
        let found = Self { major, bin: bin.to_path_buf(), user };
        // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 19beta1`
        let output = found.tool("postgres").arg("--version").output().map_err(|error| format!("{shown}: {error}"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let number = version.split_once("(PostgreSQL) ").map_or("", |(_, number)| number);
        let held = number.split(|c: char| !c.is_ascii_digit()).next();
        if held.and_then(|held| held.parse().ok()) != Some(major) {
            return Err(format!("{shown} holds {version:?}, not PostgreSQL {major}"));
        }
        Ok(found)
    }

    /// The major release.
    pub fn major(&self) -> u16 {
        self.major
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

/// Where a release's programs are, or would be.
fn directory(major: u16) -> PathBuf {
    // What somebody chose must not be passed over in silence.
    if let Some(chosen) = env::var_os(variable(major)) {
        return chosen.into();
    }
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let installed = target.join(format!("postgres/{major}/bin"));
    if !packaged.exists() && installed.exists() { installed } else { packaged }
}

/// The environment variable that names the directory of a release's programs.
fn variable(major: u16) -> String {
    format!("BACKSTOP_PG{major}_BINDIR")
}

/// Whether `BACKSTOP_REQUIRE_PG` lists a release. `1` stands for 15 alone.
fn requires(list: &str, major: u16) -> bool {
    list.split_ascii_whitespace().any(|word| match word {
        "1" => major == RELEASE,
        word => word.parse() == Ok(major),
    })
}

/// `found`, or a word why a test of `what` cannot run.
#[expect(clippy::panic, reason = "the only way to fail a test")]
fn or_skip(found: Result<Installation, String>, what: &str, required: bool) -> Option<Installation> {
    match found {
        Ok(installation) => Some(installation),
        Err(reason) if required => panic!("{what}: {reason}, and BACKSTOP_REQUIRE_PG asks for it"),
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
    // By another program: what this one writes, a child that another thread starts just then has open, too, and nobody could run it.
    succeed(Command::new("cp").arg(program).arg(&copy));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_programs_is_named() {
        let nowhere = Installation::at(18, Path::new("/nowhere"));
        let reason = nowhere.expect_err("no such directory");
        assert_eq!(reason, "no initdb in /nowhere (set BACKSTOP_PG18_BINDIR)");
    }

    #[test]
    fn programs_of_another_release_are_not_taken() {
        let Some(installation) = Installation::find("programs of another release") else { return };
        let reason = Installation::at(16, &installation.bin).expect_err("release 15");
        assert!(reason.ends_with("not PostgreSQL 16"), "{reason}");
    }

    #[test]
    fn every_release_found_says_its_number() {
        for major in [15, 16, 18] {
            let Some(installation) = Installation::find_release(major, "the release's number") else { continue };
            assert_eq!(installation.major(), major);
            let said = succeed(installation.tool("pg_receivewal").arg("--version")).stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(said.starts_with(&format!("pg_receivewal (PostgreSQL) {major}.")), "{said}");
        }
    }

    #[test]
    fn releases_are_required_by_a_list() {
        assert!(requires("15 18", 18) && requires("1", 15) && requires("16", 16));
        assert!(!requires("15 18", 16) && !requires("1", 18) && !requires("", 15) && !requires("all", 15));
    }

    #[test]
    #[should_panic(expected = "backups: no server, and BACKSTOP_REQUIRE_PG asks for it")]
    fn a_server_that_is_required_and_not_there_fails_the_test() {
        or_skip(Err("no server".to_owned()), "backups", true);
    }
}
