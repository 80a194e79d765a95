//! A problem of a backup.

use std::fmt;
use std::io;

use crate::error::{reason, shown};

/// A problem of a backup, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    text: String,
    detail: Option<String>,
    strict: bool,
}

impl Finding {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), detail: None, strict: false }
    }

    /// What `pg_verifybackup` does not look at.
    pub(super) fn not_restorable(text: impl Into<String>) -> Self {
        Self { text: format!("not restorable: {}", text.into()), detail: None, strict: true }
    }

    /// `could not open file "base/5/1259": Permission denied`.
    pub(super) fn local(doing: &str, path: &[u8], error: &io::Error) -> Self {
        Self::new(format!("could not {doing} \"{}\": {}", shown(path), reason(error)))
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// What led to it, if that says more.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Whether `pg_verifybackup` does not look for it. The text then begins with `not restorable: `.
    pub fn strict(&self) -> bool {
        self.strict
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
