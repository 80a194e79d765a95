//! Where the programs of both sides are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_scenarios::postgres::Installation;

use super::CompareError;

/// Releases that are looked for, the one that most comparisons are with first.
const RELEASES: [u16; 3] = [15, 18, 16];

/// The programs that are compared.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
    postgres: Vec<Installation>,
}

impl Programs {
    /// Ours lie beside the running program; PostgreSQL's where tests find them.
    ///
    /// # Errors
    /// One of ours was not built, or there is no PostgreSQL.
    pub fn find() -> Result<Self, CompareError> {
        let own = env::current_exe().map_err(CompareError::io("could not find", Path::new("the running program")))?;
        let directory = own.parent().unwrap_or(Path::new(".")).to_owned();
        for name in ["backstop", "backstop-client"] {
            if !directory.join(name).is_file() {
                let place = directory.display();
                return Err(CompareError::Missing(format!(
                    "there is no {name} in {place}: cargo build --release --workspace"
                )));
            }
        }
        let postgres: Vec<_> =
            RELEASES.into_iter().filter_map(|major| Installation::find_release(major, "comparing")).collect();
        if postgres.is_empty() {
            let hint = "set BACKSTOP_PG15_BINDIR, or run scenarios/install-postgres 18";
            return Err(CompareError::Missing(format!("there is no PostgreSQL to compare with: {hint}")));
        }
        Ok(Self { directory, postgres })
    }

    /// The release that is compared with where it does not matter which.
    pub(super) fn postgres(&self) -> Result<&Installation, CompareError> {
        self.postgres.first().ok_or_else(|| CompareError::Missing("there is no PostgreSQL".to_owned()))
    }

    /// Every release that is there.
    pub(super) fn releases(&self) -> &[Installation] {
        &self.postgres
    }

    /// One of ours.
    pub(super) fn ours(&self, name: &str) -> Command {
        let mut command = Command::new(self.directory.join(name));
        command.env("LC_ALL", "C");
        command
    }

    /// `backstop-client TOOL`
    pub(super) fn client(&self, tool: &str) -> Command {
        let mut command = self.ours("backstop-client");
        command.arg(tool);
        command
    }

    /// One of PostgreSQL's, run as we are: both sides write to the same place with the same rights.
    pub(super) fn theirs(release: &Installation, tool: &str) -> Command {
        let mut command = Command::new(release.path(tool));
        command.env("LC_ALL", "C");
        command
    }

    /// A hidden command of the running program.
    pub(super) fn own(&self, command: &str) -> Command {
        let mut own = self.ours("compare");
        own.arg(command);
        own
    }
}
