//! Contents of synthetic files: a function of the seed, the file and the offset.

/// One segment of a relation's fork.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) key: u64,
}
