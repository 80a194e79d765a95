//! What counts were, and with what they were measured.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// By how many percent a count may grow.
pub const TOLERANCE: u64 = 5;

/// What counts depend on besides the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Environment {
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// What the processor can do of that which libraries look for.
    pub features: String,
    /// The compiler: `rustc --version`.
    pub rustc: String,
    /// How it compiled: `release` or `debug`.
    pub build: String,
    /// The counter: `valgrind --version`.
    pub valgrind: String,
}

impl Environment {
    /// That of this machine.
    ///
    /// # Errors
    /// A program that is missing, which is named.
    pub fn here() -> Result<Self, BaselineError> {
        let version = |program: &str| {
            let output = Command::new(program).arg("--version").output();
            let output = output.ok().filter(|output| output.status.success());
            let output = output.ok_or_else(|| BaselineError::Missing(program.to_owned()))?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        Ok(Self {
            architecture: std::env::consts::ARCH.to_owned(),
            features: features(),
            rustc: version(&rustc)?,
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            valgrind: version("valgrind")?,
        })
    }

    /// In what it differs from `other`.
    fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            (&self.architecture, &other.architecture),
            (&self.features, &other.features),
            (&self.rustc, &other.rustc),
            (&self.build, &other.build),
            (&self.valgrind, &other.valgrind),
        ];
        pairs
            .into_iter()
            .filter(|(one, two)| one != two)
            .map(|(one, two)| format!("\"{one}\" here, \"{two}\" there"))
            .collect()
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> String {
    // Those that valgrind can simulate and that libraries look for: others are hidden from what it runs.
    let known = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
    ];
    known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    String::new()
}

/// Counts that were measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Baseline {
    /// With what.
    pub environment: Environment,
    /// Instructions by path.
    pub instructions: BTreeMap<String, u64>,
}

/// A baseline that cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// A program that is not there.
    #[error("there is no {0}")]
    Missing(String),
    /// The file cannot be read.
    #[error("could not read {}: {problem}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file cannot be written.
    #[error("could not write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// One path beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The path.
    pub name: String,
    /// Now.
    pub count: u64,
    /// Then, if it was measured.
    pub before: Option<u64>,
}

impl Compared {
    /// By how much it grew, as a part of what it was; less than 0 if it shrank.
    pub fn growth(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below the 53 bits that a double holds")]
        self.before.map(|before| self.count as f64 / before.max(1) as f64 - 1.0)
    }

    /// Whether it grew by more than is allowed.
    pub fn is_regression(&self) -> bool {
        let allowed = |before: u64| u128::from(before) * u128::from(100 + TOLERANCE);
        self.before.is_some_and(|before| u128::from(self.count) * 100 > allowed(before))
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, count, .. } = self;
        write!(f, "{name:<24} {count:>14}")?;
        match self.growth() {
            None => write!(f, "      new"),
            Some(growth) => {
                let verdict = if self.is_regression() { "  REGRESSION" } else { "" };
                write!(f, "  {:+6.2} %{verdict}", growth * 100.0)
            }
        }
    }
}

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// A file that is not there or is none.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let problem = |problem: String| BaselineError::Read { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
    }

    /// Writes it, a path on each line.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let failed = |source: std::io::Error| BaselineError::Write { path: path.to_owned(), source };
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        text.push('\n');
        std::fs::write(path, text).map_err(failed)
    }

    /// Why counts made in `environment` cannot be compared with these, if they cannot.
    pub fn obstacle(&self, environment: &Environment) -> Option<String> {
        let differences = environment.differences(&self.environment);
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    /// `counts` beside these. Paths that are gone are left out.
    pub fn compare(&self, counts: &BTreeMap<String, u64>) -> Vec<Compared> {
        let compared = counts.iter().map(|(name, count)| Compared {
            name: name.clone(),
            count: *count,
            before: self.instructions.get(name).copied(),
        });
        compared.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let environment = Environment {
            architecture: "a".to_owned(),
            features: "f".to_owned(),
            rustc: "r".to_owned(),
            build: "b".to_owned(),
            valgrind: "v".to_owned(),
        };
        Baseline { environment, instructions: [("parse".to_owned(), 1000), ("gone".to_owned(), 5)].into() }
    }

    #[test]
    fn more_than_five_percent_is_a_regression() {
        let verdict = |count: u64| {
            let compared = baseline().compare(&[("parse".to_owned(), count)].into());
            assert_eq!(compared.len(), 1);
            compared[0].is_regression()
        };
        assert_eq!([verdict(900), verdict(1000), verdict(1050), verdict(1051)], [false, false, false, true]);
        let new = baseline().compare(&[("other".to_owned(), 7)].into());
        assert!(!new[0].is_regression() && new[0].to_string().ends_with("new"));
    }

    #[test]
    fn another_machine_is_not_compared_with() {
        let baseline = baseline();
        assert_eq!(baseline.obstacle(&baseline.environment), None);
        let other = Environment { rustc: "s".to_owned(), ..baseline.environment.clone() };
        assert_eq!(baseline.obstacle(&other).as_deref(), Some("\"s\" here, \"r\" there"));
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("baseline.json");
        baseline().write(&path).expect("a file");
        assert_eq!(Baseline::read(&path).expect("a baseline"), baseline());
        std::fs::write(&path, "{}").expect("a file");
        let error = Baseline::read(&path).expect_err("no baseline").to_string();
        assert!(error.contains("baseline.json: missing field"), "{error}");
    }
}
