//! The way from the top of a scenario file to a value.

use std::fmt;

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way to a value of a document: `client`, the second, `wal`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way(pub Vec<Step>);

impl Way {
    /// The way to the whole document.
    pub fn new() -> Self {
        Self::default()
    }

    /// One step further.
    #[must_use]
    pub fn to(mut self, step: impl Into<Step>) -> Self {
        self.0.push(step.into());
        self
    }
}

impl fmt::Display for Way {
    /// Writes it as a dotted key, without the indexes: `client.wal`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        f.write_str(&keys.collect::<Vec<_>>().join("."))
    }
}
