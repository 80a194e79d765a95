//! A full backup out of one and the file-level incremental ones that build on it: what `pg_restorebackup.py` was for the proof of
//! concept of 2014, and strict.
//!
//! [`recover`] checks that the inputs are a chain (labels, control files, profiles, and every profile against the files that lie
//! there), then makes the output: each file of the last profile from the last input that sent it. A file that was not sent must
//! have, in the input where it is found, the very LSN that the profile says: so a base that is not the base, or has been touched,
//! is noticed. A file can be longer there, since a relation can be truncated without a new LSN on what remains; then its
//! beginning is taken.
//!
//! Nothing that could pass for a backup exists before everything else is on disk, and after an error what was made is removed.
//! The output has a label without the incremental line, and a profile in which everything was sent: it can be the base of further
//! backups.

mod input;
mod plan;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::plan::Plan;
use self::write::Writer;
use crate::combine::output::Output;
use crate::combine::{CombineObserver, CombineOptions, tablespaces};
use crate::disk::{Disk, RealDisk};
use crate::error::ClientError;
use crate::options::SyncMethod;

/// What is to be put together, and how.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The backups: the full one first, then each that builds on the one before.
    pub inputs: Vec<PathBuf>,
    /// Where the output goes: nothing may be there.
    pub output: PathBuf,
    /// Where tablespaces go, by where they are in the last input. All that have a place of their own must be named.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Force the output to disk, and how.
    pub sync: Option<SyncMethod>,
    /// The disk on which the output is made.
    pub disk: Arc<dyn Disk>,
    /// Set by somebody else to end early.
    pub cancel: Arc<AtomicBool>,
}

impl RecoverOptions {
    /// All that is not said as it is safe.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<PathBuf>>, output: impl Into<PathBuf>) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            output: output.into(),
            tablespace_mapping: Vec::new(),
            sync: Some(SyncMethod::default()),
            disk: Arc::new(RealDisk),
            cancel: Arc::default(),
        }
    }
}

/// Who is told what happens.
pub trait RecoverObserver {
    /// Something that a person should know.
    fn warning(&mut self, text: &str) {
        let _ = text;
    }

    /// So many bytes of so many are there.
    fn progress(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// What happens to what was made after an error. A directory that was there before stays, and loses its contents.
    fn removing(&mut self, directory: &Path, contents_only: bool) {
        let _ = (directory, contents_only);
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Files from the last input.
    pub sent: usize,
    /// Files from inputs before.
    pub found: usize,
    /// Bytes of both, WAL excepted.
    pub bytes: u64,
}

/// Puts a backup together.
///
/// # Errors
/// The first problem. Nothing of the output is left then.
pub fn recover(options: &RecoverOptions, observer: &mut dyn RecoverObserver) -> Result<Recovered, ClientError> {
    if std::fs::symlink_metadata(&options.output).is_ok() {
        let output = options.output.display();
        return Err(ClientError::Unusable(format!("destination \"{output}\" exists")));
    }
    let inputs = input::load_chain(&options.inputs, observer)?;
    let plan = Plan::new(&inputs)?;
    let (combine, mut quiet) = (as_combination(options), Quiet);
    let last = inputs.last().ok_or_else(input::no_inputs)?;
    let tablespaces = tablespaces::find(&last.directory, &combine, &mut quiet)?;
    let mut output = Output::default();
    let made = output
        .create(&combine, &last.directory, &tablespaces, &mut quiet)
        .and_then(|()| Writer::new(&combine, &inputs, &tablespaces, &mut output, observer)?.everything(&plan))
        .and_then(|recovered| {
            let ranges = last.manifest.as_ref().map(|manifest| manifest.wal_ranges.as_slice());
            output.publish(&combine, ranges.unwrap_or_default(), &mut quiet)?;
            Ok(recovered)
        });
    if made.is_err() {
        output.tell_removal(&mut Removals(observer));
    }
    made
}

/// The same as `pg_combinebackup` would be told.
fn as_combination(options: &RecoverOptions) -> CombineOptions {
    CombineOptions {
        tablespace_mapping: options.tablespace_mapping.clone(),
        sync: options.sync,
        disk: Arc::clone(&options.disk),
        cancel: Arc::clone(&options.cancel),
        ..CombineOptions::new(&options.inputs, &options.output)
    }
}

struct Quiet;

impl CombineObserver for Quiet {
    fn warning(&mut self, _text: &str, _hint: Option<&str>) {}
}

struct Removals<'a>(&'a mut dyn RecoverObserver);

impl CombineObserver for Removals<'_> {
    fn warning(&mut self, _text: &str, _hint: Option<&str>) {}

    fn removing(&mut self, directory: &Path, contents_only: bool) {
        self.0.removing(directory, contents_only);
    }
}
