//! Counting instructions.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program below valgrind.
#[derive(Clone, Debug)]
pub struct Counter {
    program: PathBuf,
}

/// Instructions that could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// valgrind does not start.
    #[error("could not start valgrind: {0}")]
    Start(io::Error),
    /// What it ran failed.
    #[error("{name} failed below valgrind ({status}):\n{said}")]
    Failed {
        /// The path.
        name: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What was said.
        said: String,
    },
    /// It says no number.
    #[error("valgrind does not tell how many instructions {name} took:\n{said}")]
    Silent {
        /// The path.
        name: String,
        /// What was said.
        said: String,
    },
}

impl Counter {
    /// Counts what `program` executes when it is run with `--path NAME --times N`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What running a path `times` times costs.
    ///
    /// # Errors
    /// No valgrind, or a path that fails.
    pub fn count(&self, name: &str, times: u32) -> Result<u64, CountError> {
        let (once, twice) = (self.total(name, times)?, self.total(name, times.saturating_mul(2))?);
        Ok(twice.saturating_sub(once))
    }

    fn total(&self, name: &str, times: u32) -> Result<u64, CountError> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", "--error-exitcode=0"]);
        command.arg(&self.program).args(["--path", name, "--times", &times.to_string()]);
        // Chance in the order of hash maps, or in addresses, would be chance in the counts.
        command.env_clear().env("MALLOC_ARENA_MAX", "1").envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let output = command.output().map_err(CountError::Start)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = name.to_owned();
        if !output.status.success() {
            return Err(CountError::Failed { name, status: output.status, said });
        }
        instructions(&said).ok_or(CountError::Silent { name, said })
    }
}

/// The number in `==123== I   refs:      1,234,567`.
fn instructions(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("refs:") && line.contains("== I "))?;
    let (_, number) = line.split_once("refs:")?;
    number.trim().replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found() {
        let said = "==1== Cachegrind, a cache and branch-prediction profiler\n==1== \n==1== I   refs:      1,234,567\n";
        assert_eq!(instructions(said), Some(1_234_567));
        assert_eq!(instructions("==1== nothing"), None);
    }
}
