//! Whether anything outside a client's target changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// One file, directory or link: what would show that it was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    kind: &'static str,
    mode: u32,
    content: String,
}

/// A picture of a directory tree, to be compared with a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Trace>);

impl Snapshot {
    /// Takes the picture of `root`, without what lies below `except`. Links are not followed.
    pub fn take(root: &Path, except: &[PathBuf]) -> io::Result<Self> {
        let mut traces = BTreeMap::new();
        let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| !except.iter().any(|path| path == entry.path())) {
            let entry = entry?;
            let metadata = entry.metadata().map_err(io::Error::from)?;
            let (kind, content) = if metadata.is_symlink() {
                ("link", fs::read_link(entry.path())?.display().to_string())
            } else if metadata.is_file() {
                let digest = Sha256::digest(fs::read(entry.path())?);
                (
                    "file",
                    digest.iter().fold(String::new(), |mut text, byte| {
                        let _ = write!(text, "{byte:02x}");
                        text
                    }),
                )
            } else if metadata.is_dir() {
                ("directory", String::new())
            } else {
                ("special file", String::new())
            };
            let mode = metadata.permissions().mode() & 0o7777;
            let name = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
            traces.insert(name, Trace { kind, mode, content });
        }
        Ok(Self(traces))
    }

    /// What differs in `later`, one line each.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, trace) in &later.0 {
            match self.0.get(path) {
                None => changes.push(format!("{} \"{}\" appeared", trace.kind, path.display())),
                Some(before) if before != trace => {
                    changes.push(format!("{} \"{}\" changed", before.kind, path.display()));
                }
                Some(_) => {}
            }
        }
        for (path, before) in self.0.iter().filter(|(path, _)| !later.0.contains_key(*path)) {
            changes.push(format!("{} \"{}\" disappeared", before.kind, path.display()));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_every_kind_of_change() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("target")).unwrap();
        for name in ["kept", "changed", "removed", "mode"] {
            fs::write(at(name), name).unwrap();
        }
        let except = [at("target")];
        let before = Snapshot::take(root.path(), &except).unwrap();
        assert_eq!(before.changes(&before), Vec::<String>::new());

        fs::write(at("target/inside"), "not ours to judge").unwrap();
        fs::write(at("changed"), "other").unwrap();
        fs::remove_file(at("removed")).unwrap();
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/etc", at("new")).unwrap();
        let after = Snapshot::take(root.path(), &except).unwrap();
        insta::assert_snapshot!(before.changes(&after).join("\n"), @r#"
        file "changed" changed
        file "mode" changed
        link "new" appeared
        file "removed" disappeared
        "#);
    }
}
