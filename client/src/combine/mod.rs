//! A full backup out of a full one and the incremental ones that build on it: `pg_combinebackup`, and stricter.
//!
//! [`combine_backups`] checks that the inputs are a chain (control files, labels, manifests), then makes the output from the
//! last one: whole files are copied, and of incremental files every block is looked for, newest backup first. Only those blocks
//! are read. Several files are made at once, and told in their order. The output's manifest takes over what checksums the inputs' have.
//!
//! Nothing that could pass for a backup exists before everything else is on disk: `global/pg_control` and the manifest get their
//! names last. After an error, what was made is removed.
//!
//! Stricter than the original: a file that an input's manifest lists must be there, with its size and, where it is read whole,
//! its checksum; block numbers must be within a segment and ascend; the output must not lie in an input.
//!
//! ```no_run
//! use backstop_client::combine::{CombineObserver, CombineOptions, combine_backups};
//!
//! struct Print;
//! impl CombineObserver for Print {
//!     fn warning(&mut self, text: &str, _hint: Option<&str>) {
//!         eprintln!("{text}");
//!     }
//! }
//!
//! let options = CombineOptions::new(["/backups/sunday", "/backups/monday"], "/var/lib/postgresql/data");
//! combine_backups(&options, &mut Print)?;
//! # Ok::<(), backstop_client::ClientError>(())
//! ```

mod chain;
mod copy;
mod incremental;
mod label;
pub(crate) mod output;
mod reconstruct;
mod steps;
pub(crate) mod tablespaces;
pub(crate) mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;

use self::chain::Chain;
use self::output::Output;
use self::tablespaces::Tablespace;
use self::walk::Walk;
use crate::disk::{Disk, RealDisk};
use crate::error::ClientError;
use crate::options::SyncMethod;

/// How whole files get into the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMethod {
    /// They are read and written.
    #[default]
    Copy,
    /// They share their content, on file systems that can (`FICLONE`).
    Clone,
    /// The kernel copies them, blocks of incremental files too.
    CopyFileRange,
    /// They are the same files under another name.
    Link,
}

/// What is to be combined, and how.
#[derive(Clone, Debug)]
pub struct CombineOptions {
    /// The backups: the full one first, then each that builds on the one before.
    pub inputs: Vec<PathBuf>,
    /// Where the output goes: a directory that does not exist or is empty.
    pub output: PathBuf,
    /// Where tablespaces go, by where they are in the last input. All that have a place of their own must be named.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// How whole files are copied.
    pub copy_method: CopyMethod,
    /// How files are checksummed in the output's manifest; nothing for no manifest.
    pub manifest: Option<ChecksumAlgorithm>,
    /// Make nothing, and find out whether it could be made.
    pub dry_run: bool,
    /// Verify every input with its manifest before anything is made, WAL excepted.
    pub verify_inputs: bool,
    /// Force the output to disk, and how.
    pub sync: Option<SyncMethod>,
    /// The disk on which the output is made.
    pub disk: Arc<dyn Disk>,
    /// Set by somebody else to end early.
    pub cancel: Arc<AtomicBool>,
}

impl CombineOptions {
    /// As `pg_combinebackup` does it when nothing else is said.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<PathBuf>>, output: impl Into<PathBuf>) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            output: output.into(),
            tablespace_mapping: Vec::new(),
            copy_method: CopyMethod::default(),
            manifest: Some(ChecksumAlgorithm::default()),
            dry_run: false,
            verify_inputs: false,
            sync: Some(SyncMethod::default()),
            disk: Arc::new(RealDisk),
            cancel: Arc::default(),
        }
    }

    pub(crate) fn check_canceled(&self) -> Result<(), ClientError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ClientError::Unusable("canceled by user".to_owned()));
        }
        Ok(())
    }
}

/// Who is told what happens.
pub trait CombineObserver {
    /// Something that a person should know.
    fn warning(&mut self, text: &str, hint: Option<&str>);

    /// What happens to what was made after an error.
    fn removing(&mut self, directory: &Path, contents_only: bool) {
        let _ = (directory, contents_only);
    }

    /// Whether [`debug`](Self::debug) wants to hear anything.
    fn debugging(&self) -> bool {
        false
    }

    /// Every step, in the words of `pg_combinebackup --debug`.
    fn debug(&mut self, text: &str) {
        let _ = text;
    }
}

/// Combines backups.
///
/// # Errors
/// The first problem, in `pg_combinebackup`'s words where it has words for it. Nothing of the output is left then.
pub fn combine_backups(options: &CombineOptions, observer: &mut dyn CombineObserver) -> Result<(), ClientError> {
    if options.verify_inputs {
        chain::verify_inputs(&options.inputs)?;
    }
    say_copy_method(options, observer);
    let chain = Chain::load(&options.inputs, observer)?;
    let last = chain.last()?;
    let tablespaces = tablespaces::find(&last.directory, options, observer)?;
    let mut output = Output::default();
    match make(options, &chain, &tablespaces, &mut output, observer) {
        Ok(()) => {
            if options.copy_method == CopyMethod::Link {
                let text = "--link mode was used; any modifications to the output directory might destructively modify \
                            input directories";
                observer.warning(text, None);
            }
            Ok(())
        }
        Err(error) => {
            output.tell_removal(observer);
            Err(error)
        }
    }
}

fn make(
    options: &CombineOptions,
    chain: &Chain,
    tablespaces: &[Tablespace],
    output: &mut Output,
    observer: &mut dyn CombineObserver,
) -> Result<(), ClientError> {
    let last = chain.last()?;
    output.create(options, &last.directory, tablespaces, observer)?;
    if options.manifest.is_some() {
        if !options.dry_run && last.manifest().is_none() {
            let text = "cannot generate a manifest because no manifest is available for the final input backup";
            return Err(ClientError::Unusable(text.to_owned()));
        }
        output.begin_manifest(options, 2, Some(chain.system_identifier))?;
    }
    Walk::new(options, chain, output, observer)?.everything(tablespaces)?;
    let ranges = chain.last()?.manifest().map(|manifest| manifest.wal_ranges.as_slice());
    output.publish(options, ranges.unwrap_or_default(), observer)
}

fn say_copy_method(options: &CombineOptions, observer: &mut dyn CombineObserver) {
    let how = match options.copy_method {
        CopyMethod::Clone => "use cloning to copy files",
        CopyMethod::CopyFileRange => "use copy_file_range to copy blocks",
        CopyMethod::Copy | CopyMethod::Link => return,
    };
    observer.debug(&format!("{} {how}", if options.dry_run { "would" } else { "will" }));
}
