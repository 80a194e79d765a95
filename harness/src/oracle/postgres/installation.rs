//! Where the programs of a release are, and whom they run as.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_protocol::version::ServerVersion;
use rustix::fs::statvfs;

/// The programs of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin: PathBuf,
    /// User and group of servers, if not our own.
    user: Option<(u32, u32)>,
    /// Where its programs run, if not on this machine.
    inside: Option<Inside>,
}

/// A container that sees some of this machine's files under their own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The engine's command.
    pub engine: PathBuf,
    /// The container's name.
    pub container: String,
    /// The directory that it sees.
    pub place: PathBuf,
}

impl Installation {
    /// The programs of `version`: in `BACKSTOP_PG<release>_BINDIR`, else where Debian installs them, else where
    /// `scenarios/install-postgres` does, else in `PATH`.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub fn find(version: ServerVersion) -> Result<Self, String> {
        let variable = format!("BACKSTOP_PG{}_BINDIR", version.name().replace('.', "_"));
        if let Some(chosen) = env::var_os(&variable) {
            // What somebody chose must not be passed over in silence.
            let bin = PathBuf::from(chosen);
            return if is_of(&bin, version) {
                Self::at(&bin)
            } else {
                Err(format!("{variable} leads to no PostgreSQL {version}"))
            };
        }
        let built = PathBuf::from(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        let places = [
            PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")),
            built.join(format!("postgres/{version}/bin")),
        ];
        let path = env::var_os("PATH").unwrap_or_default();
        let found = places.into_iter().chain(env::split_paths(&path)).find(|bin| is_of(bin, version));
        found.map_or_else(|| Err(format!("no PostgreSQL {version} here (set {variable})")), |bin| Self::at(&bin))
    }

    /// The programs in `bin`, of whatever release they are.
    ///
    /// # Errors
    /// That there are none.
    pub fn in_directory(bin: &Path) -> Result<(Self, ServerVersion), String> {
        let version = version_of(bin).ok_or_else(|| format!("{} holds no server of PostgreSQL", bin.display()))?;
        Ok((Self::at(bin)?, version))
    }

    /// The programs in a container, and of which release they are.
    ///
    /// # Errors
    /// That there are none.
    pub fn inside(inside: Inside) -> Result<(Self, ServerVersion), String> {
        let installation = Self { bin: PathBuf::new(), user: server_user()?, inside: Some(inside) };
        let output = installation.server_tool("postgres").arg("--version").output();
        let output = output.map_err(|error| format!("could not run the container engine: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split_once("(PostgreSQL) ").and_then(|(_, text)| ServerVersion::from_announced(text.trim()));
        match version {
            Some(version) => Ok((installation, version)),
            None => Err("it holds no server of PostgreSQL".to_owned()),
        }
    }

    fn at(bin: &Path) -> Result<Self, String> {
        let user = server_user()?;
        // Servers run elsewhere.
        let bin = fs::canonicalize(bin).map_err(|error| format!("{}: {error}", bin.display()))?;
        Ok(Self { bin, user, inside: None })
    }

    /// One of the programs, run by ourselves.
    pub fn tool(&self, name: &str) -> Command {
        match &self.inside {
            Some(inside) => inside.command(name, self.user),
            None => own_environment(&self.path(name)),
        }
    }

    /// Where one of the programs is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether there is such a program.
    pub fn has(&self, name: &str) -> bool {
        match &self.inside {
            Some(_) => {
                self.shell().args(["-c", "command -v \"$0\"", name]).output().is_ok_and(|found| found.status.success())
            }
            None => self.bin.join(name).is_file(),
        }
    }

    /// One of the programs, run as the user that servers run as.
    pub fn server_tool(&self, name: &str) -> Command {
        match &self.inside {
            Some(inside) => inside.command(name, self.user),
            None => self.as_server(self.path(name)),
        }
    }

    /// A shell where servers run, run as the user that they run as.
    pub fn shell(&self) -> Command {
        match &self.inside {
            Some(inside) => inside.command("/bin/sh", self.user),
            None => self.as_server("/bin/sh"),
        }
    }

    /// Whether its programs run in a container.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    /// Where servers that end soon can keep their files.
    pub(crate) fn place(&self) -> PathBuf {
        self.inside.as_ref().map_or_else(place_for_servers, |inside| inside.place.clone())
    }

    /// Any program of this machine, run as the user that servers run as.
    pub fn as_server(&self, program: impl AsRef<Path>) -> Command {
        let mut command = own_environment(program.as_ref());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.current_dir("/");
        command
    }

    /// Gives a path to the user that servers run as. A link is not followed.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        self.user.map_or(Ok(()), |(user, group)| lchown(path, Some(user), Some(group)))
    }
}

impl Inside {
    /// A program in the container, whose standard input is ours.
    fn command(&self, program: &str, user: Option<(u32, u32)>) -> Command {
        let (user, group) =
            user.unwrap_or_else(|| (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));
        let mut command = Command::new(&self.engine);
        command.args(["exec", "-i", "-w", "/", "-e", "LC_ALL=C", "-u", &format!("{user}:{group}")]);
        command.args([&self.container, program]).stdin(Stdio::null());
        // What a terminal signals is none of its business.
        command.process_group(0);
        command
    }
}

/// User and group of servers, if not our own.
pub(crate) fn server_user() -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let problem = "PostgreSQL refuses to run as root, and there is no user postgres or nobody";
    Ok(Some(unprivileged_user().ok_or(problem)?))
}

/// A file system in memory, where there is one with so much room.
const MEMORY: &str = "/dev/shm";
const ROOM: u64 = 2 << 30;

/// Where servers that end soon keep their files: in memory, or else in `/tmp`, since the temporary directory may have a long path,
/// which sockets cannot have.
pub(crate) fn place_for_servers() -> PathBuf {
    let memory = Path::new(MEMORY);
    let room = statvfs(memory).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >= ROOM);
    if room { memory.to_owned() } else { PathBuf::from("/tmp") }
}

/// A program that nothing of the caller's own connection settings leads elsewhere.
fn own_environment(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// The release of the server in `bin`, if there is one.
fn version_of(bin: &Path) -> Option<ServerVersion> {
    let output = Command::new(bin.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ServerVersion::from_announced(said.split_once("(PostgreSQL) ")?.1.trim())
}

/// Whether `bin` holds a server of this release.
fn is_of(bin: &Path, version: ServerVersion) -> bool {
    version_of(bin) == Some(version)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_is_not_there_is_named() {
        // Nobody has packaged that one for years.
        let told = Installation::find(ServerVersion::V9_1).expect_err("no such server");
        assert_eq!(told, "no PostgreSQL 9.1 here (set BACKSTOP_PG9_1_BINDIR)");
        assert!(!is_of(Path::new("/nowhere"), ServerVersion::V15));
    }
}
