//! Why figures cannot be had.

use std::io;
use std::path::{Path, PathBuf};

/// Why a comparison cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Something that it needs is not there.
    #[error("{0}")]
    Missing(String),
    /// A program that was measured failed: a figure of it would mean nothing.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// A file, a directory or a process.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
}

impl CompareError {
    /// For `map_err`: what was to be done with what.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, path: path.to_owned(), error }
    }
}
