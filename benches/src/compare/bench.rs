//! What every group of comparisons needs: the programs, a place, the data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use backstop_scenarios::postgres::Installation;
use tempfile::TempDir;

use super::rounds::{Arm, Comparison, Outcome, run};
use super::workload::Cluster;
use super::{CompareError, Programs};

/// A run of comparisons.
pub struct Bench<'a> {
    pub(super) programs: &'a Programs,
    /// How much is copied, in bytes.
    pub(super) bytes: u64,
    rounds: usize,
    scratch: TempDir,
    clusters: BTreeMap<u16, Rc<Cluster>>,
    done: &'a mut dyn FnMut(&Outcome),
}

impl<'a> Bench<'a> {
    /// Compares with about `bytes` of data in `rounds` rounds, with targets in a new directory below `scratch`, which should lie in
    /// memory. What comes out is told to `done`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(
        programs: &'a Programs,
        bytes: u64,
        rounds: usize,
        scratch: &Path,
        done: &'a mut dyn FnMut(&Outcome),
    ) -> Result<Self, CompareError> {
        let made = tempfile::Builder::new().prefix("backstop-compare-").tempdir_in(scratch);
        let scratch = made.map_err(CompareError::io("could not make a directory in", scratch))?;
        Ok(Self { programs, bytes, rounds, scratch, clusters: BTreeMap::new(), done })
    }

    /// Where programs may write.
    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A real cluster of a release, of about the size that was asked for. It is made once.
    pub(super) fn cluster(&mut self, release: &Installation) -> Result<Rc<Cluster>, CompareError> {
        if let Some(cluster) = self.clusters.get(&release.major()) {
            return Ok(Rc::clone(cluster));
        }
        let cluster = Rc::new(Cluster::make(release, self.bytes)?);
        self.clusters.insert(release.major(), Rc::clone(&cluster));
        Ok(cluster)
    }

    /// Makes a comparison and tells what came out.
    pub(super) fn compare(&mut self, comparison: &Comparison<'_>) -> Result<(), CompareError> {
        let outcome = run(comparison, self.rounds, self.scratch.path())?;
        (self.done)(&outcome);
        Ok(())
    }
}

/// The side of a program that puts something into the directory `backup` of its target.
pub(super) fn arm<'a>(label: String, bytes: u64, command: impl Fn(&Path) -> std::process::Command + 'a) -> Arm<'a> {
    Arm { label, bytes, server: None, all_cores: false, prepare: Box::new(|_| Ok(())), command: Box::new(command) }
}

/// Where a program puts its result.
pub(super) fn backup(target: &Path) -> PathBuf {
    target.join("backup")
}
