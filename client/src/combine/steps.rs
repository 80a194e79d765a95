//! What is to be done for the entries of the last input: several files at once, and everything told in their order.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ManifestFile};

use super::chain::Chain;
use super::copy::{Checksum, Whole};
use super::output::{Output, Place};
use super::reconstruct::reconstruct;
use super::{CombineObserver, CombineOptions};
use crate::error::ClientError;
use crate::ordered::in_order;

/// Something for the observer.
pub(super) enum Said {
    Debug(String),
    Warning(String),
}

impl Said {
    fn tell(&self, observer: &mut dyn CombineObserver) {
        match self {
            Self::Debug(text) => observer.debug(text),
            Self::Warning(text) => observer.warning(text, None),
        }
    }
}

/// One thing to do.
pub(super) enum Step<'a> {
    Say(Said),
    File {
        /// What the manifest calls it.
        path: Vec<u8>,
        /// The file in the last input.
        input: PathBuf,
        place: Place,
        content: Content<'a>,
    },
}

/// Where a file's content comes from.
pub(super) enum Content<'a> {
    /// It is all there.
    Whole {
        /// What the manifest says of it, if that can be relied on.
        listed: Option<&'a ManifestFile>,
        algorithm: ChecksumAlgorithm,
    },
    /// It is an incremental file.
    Reconstructed,
}

/// What everybody who makes a file needs.
pub(super) struct Job<'a> {
    pub(super) chain: &'a Chain,
    pub(super) options: &'a CombineOptions,
    output: &'a Mutex<Output>,
    /// Another file has failed.
    stop: &'a AtomicBool,
}

impl<'a> Job<'a> {
    /// The output, for as long as it takes to make an entry of it.
    pub(super) fn output(&self) -> MutexGuard<'a, Output> {
        locked(self.output)
    }

    pub(super) fn check_canceled(&self) -> Result<(), ClientError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ClientError::Unusable("given up".to_owned()));
        }
        self.options.check_canceled()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What there is to say of a file, until its turn comes.
struct Kept {
    debugging: bool,
    said: Vec<Said>,
}

impl CombineObserver for Kept {
    fn warning(&mut self, text: &str, _hint: Option<&str>) {
        self.said.push(Said::Warning(text.to_owned()));
    }

    fn debugging(&self) -> bool {
        self.debugging
    }

    fn debug(&mut self, text: &str) {
        if self.debugging {
            self.said.push(Said::Debug(text.to_owned()));
        }
    }
}

/// Takes all these steps.
///
/// # Errors
/// The first problem in their order, whatever went wrong first.
pub(super) fn take(
    steps: &[Step<'_>],
    chain: &Chain,
    options: &CombineOptions,
    output: &mut Output,
    observer: &mut dyn CombineObserver,
) -> Result<(), ClientError> {
    let (debugging, algorithm) = (observer.debugging(), output.algorithm());
    let shared = Mutex::new(std::mem::take(output));
    let result = in_order(
        steps,
        |step, stop| {
            let mut kept = Kept { debugging, said: Vec::new() };
            let done = make(step, algorithm, &Job { chain, options, output: &shared, stop }, &mut kept);
            (kept.said, done)
        },
        |result| {
            let Some((number, (said, done))) = result else { return options.check_canceled() };
            for said in said {
                said.tell(observer);
            }
            let checksum = done?;
            match steps.get(number) {
                Some(Step::Say(said)) => said.tell(observer),
                Some(Step::File { path, place, .. }) => locked(&shared).list(path, place, checksum)?,
                None => {}
            }
            Ok(())
        },
    );
    *output = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    result
}

fn make(
    step: &Step<'_>,
    algorithm: ChecksumAlgorithm,
    job: &Job<'_>,
    kept: &mut Kept,
) -> Result<Option<Checksum>, ClientError> {
    let Step::File { path, input, place, content } = step else { return Ok(None) };
    match *content {
        Content::Whole { listed, algorithm } => Whole { source: input, listed, algorithm }.copy(place, job, kept),
        Content::Reconstructed => reconstruct(input, path, place, algorithm, job, kept),
    }
}
