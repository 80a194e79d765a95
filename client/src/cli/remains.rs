//! What happened to the remains of a command that failed: told after the error that led to it.

use std::fs;
use std::path::{Path, PathBuf};

/// Something to tell.
#[derive(Debug)]
pub(super) enum Remains {
    /// It is settled.
    Settled(String),
    /// A directory that goes, or what is in it. `what` is its name in PostgreSQL's messages: "data directory".
    Removed { what: &'static str, directory: PathBuf, contents_only: bool },
}

impl Remains {
    pub(super) fn removed(what: &'static str, directory: &Path, contents_only: bool) -> Self {
        Self::Removed { what, directory: directory.to_owned(), contents_only }
    }

    /// The lines to tell, once the removal is over.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Settled(text) => vec![text.clone()],
            Self::Removed { what, directory, contents_only } => {
                let contents = if *contents_only { "contents of " } else { "" };
                let mut lines = vec![format!("removing {contents}{what} \"{}\"", directory.display())];
                if is_there(directory, *contents_only) {
                    lines.push(format!("error: failed to remove {contents}{what}"));
                }
                lines
            }
        }
    }
}

/// Whether there still is something, as far as anybody can see.
fn is_there(directory: &Path, contents_only: bool) -> bool {
    if contents_only {
        fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
    } else {
        fs::symlink_metadata(directory).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_removed_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let lines = |directory: &Path, contents_only| {
            let lines = Remains::removed("data directory", directory, contents_only).lines().join("\n");
            lines.replace(&scratch.path().display().to_string(), "HERE")
        };
        insta::assert_snapshot!(lines(&scratch.path().join("gone"), false), @r#"removing data directory "HERE/gone""#);
        insta::assert_snapshot!(lines(scratch.path(), true), @r#"removing contents of data directory "HERE""#);
        fs::write(scratch.path().join("left"), "").unwrap();
        insta::assert_snapshot!(lines(scratch.path(), true), @r#"
        removing contents of data directory "HERE"
        error: failed to remove contents of data directory
        "#);
        insta::assert_snapshot!(lines(scratch.path(), false), @r#"
        removing data directory "HERE"
        error: failed to remove data directory
        "#);
    }
}
