//! Where the programs of a release are, and whom they run as.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_protocol::version::ServerVersion;

/// The programs of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin: PathBuf,
    /// User and group of servers, if not our own.
    user: Option<(u32, u32)>,
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

    fn at(bin: &Path) -> Result<Self, String> {
        let user = if rustix::process::getuid().is_root() {
            let problem = "PostgreSQL refuses to run as root, and there is no user postgres or nobody";
            Some(unprivileged_user().ok_or(problem)?)
        } else {
            None
        };
        // Servers run elsewhere.
        let bin = fs::canonicalize(bin).map_err(|error| format!("{}: {error}", bin.display()))?;
        Ok(Self { bin, user })
    }

    /// One of the programs, run by ourselves.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Whether there is such a program.
    pub fn has(&self, name: &str) -> bool {
        self.bin.join(name).is_file()
    }

    /// One of the programs, run as the user that servers run as.
    pub fn server_tool(&self, name: &str) -> Command {
        let mut command = self.tool(name);
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

/// Whether `bin` holds a server of this release.
fn is_of(bin: &Path, version: ServerVersion) -> bool {
    let output = Command::new(bin.join("postgres")).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = said.split_once("(PostgreSQL) ").map(|(_, number)| number.trim());
        number.and_then(ServerVersion::from_announced) == Some(version)
    })
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
