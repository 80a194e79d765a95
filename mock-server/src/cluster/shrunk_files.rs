//! Files that are removed or shrink while the server runs.

use std::collections::BTreeMap;
use std::io;

use super::{Cluster, EntryKind, ground_truth};

/// What is left of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    Beginning(u64),
}

/// What is left of the files that have lost something, by their paths in the manifest.
pub(super) type ShrunkFiles = BTreeMap<Vec<u8>, Left>;

impl Cluster {
    /// Removes a file, or all of it beyond `size`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn shrink_file(&self, path: &str, size: Option<u64>) -> io::Result<()> {
        for entry in ground_truth(self)? {
            let (name, entry) = entry?;
            if name == path.as_bytes() && matches!(entry.kind, EntryKind::File { .. }) {
                self.inner.lock().shrunk_files.insert(name, size.map_or(Left::Nothing, Left::Beginning));
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("the cluster has no file \"{path}\"")))
    }

    /// What is left of a file that has lost something.
    pub(crate) fn left_of(&self, path: &[u8]) -> Option<Left> {
        self.inner.lock().shrunk_files.get(path).copied()
    }
}
