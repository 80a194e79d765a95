//! Faults that a client is known to have: a file of them lets a tool's own CI pass honestly, and hear of changes in both
//! directions. What is listed and comes out as listed does not count; what is listed and comes out otherwise, fails.
//!
//! ```toml
//! [[known]]
//! client  = "pg_basebackup*"
//! cases   = ["tar/tar-empty-archive", "tar/*[*client.format=tar*]"]
//! verdict = "silent_corruption"
//! because = "It does not look whether an archive is complete"
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::event::CaseRef;
use crate::scenario::document::{Document, SourceFile};
use crate::scenario::load::LoadError;
use crate::verdict::{Check, Level, Verdict};

/// The faults that one or more files list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownFaults(Vec<Known>);

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The client as on the command line. `*` stands for any text.
    pub client: String,
    /// Cases, or scenarios with all their cases. `*` stands for any text.
    pub cases: Vec<String>,
    /// What each of these cases comes out as.
    pub verdict: Verdict,
    /// Why: a bug, a commit, a sentence.
    pub because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    known: Vec<Known>,
}

impl KnownFaults {
    /// Reads files of known faults.
    ///
    /// # Errors
    /// A file that cannot be read, or the first thing that is wrong in one, with its place.
    pub fn load(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut all = Vec::new();
        for path in paths {
            let unreadable = |source| LoadError::Unreadable { path: path.clone(), source };
            all.extend(read(path, fs::read_to_string(path).map_err(unreadable)?)?);
        }
        Ok(Self(all))
    }

    /// What is known about a case: the first entry that names it.
    pub fn about(&self, case: &CaseRef) -> Option<&Known> {
        self.0.iter().find(|known| known.names(case))
    }
}

fn read(path: &Path, text: String) -> Result<Vec<Known>, LoadError> {
    let file = SourceFile { path: path.to_path_buf(), text: text.into() };
    let read = Document::parse(&file).and_then(|document| document.read::<File>());
    read.map(|file| file.known).map_err(LoadError::Scenario)
}

impl Known {
    fn names(&self, case: &CaseRef) -> bool {
        let scenario = case.id.split('[').next().unwrap_or_default();
        let named = |pattern: &String| matches(pattern, &case.id) || pattern == scenario;
        matches(&self.client, &case.client) && self.cases.iter().any(named)
    }

    /// The requirement that this entry adds to a case: that it comes out as it is known to.
    pub fn check(&self, verdict: Verdict) -> Check {
        Check {
            check: "known fault".to_owned(),
            expected: format!("{}, as it is listed: {}", self.verdict, self.because),
            actual: verdict.to_string(),
            ok: verdict == self.verdict,
            level: Level::Must,
        }
    }
}

/// Whether `text` is what `pattern` says, in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    // The first place at which a piece stands is as good as any later one, but for the last piece.
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let mut text = text;
    for piece in middle.split('*') {
        let Some(at) = text.find(piece) else { return false };
        text = text.get(at + piece.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(id: &str) -> CaseRef {
        let (client, server) = ("pg_basebackup=/opt/bin/pg_basebackup".to_owned(), "mock".to_owned());
        CaseRef { id: id.to_owned(), client, server, path: "x.toml".into() }
    }

    const FILE: &str = "[[known]]\nclient = \"pg_basebackup*\"\ncases = [\"tar/empty\", \"wal/*[*tar*]\"]\n\
                        verdict = \"silent_corruption\"\nbecause = \"so it is\"\n";

    #[test]
    fn an_entry_names_scenarios_cases_and_patterns() {
        let known = KnownFaults(read(Path::new("known.toml"), FILE.to_owned()).expect("a valid file"));
        for id in ["tar/empty", "tar/empty[server.version=15]", "wal/x[server.version=15,client.format=tar]"] {
            assert!(known.about(&case(id)).is_some(), "{id}");
        }
        for id in ["tar/empty-archive", "tar", "wal/x[server.version=15]", "wal/tar"] {
            assert!(known.about(&case(id)).is_none(), "{id}");
        }
        assert!(known.about(&CaseRef { client: "builtin".to_owned(), ..case("tar/empty") }).is_none());
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("a**", "a", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_mistake_has_a_place() {
        let wrong = FILE.replace("silent_corruption", "corrupt");
        let error = read(Path::new("known.toml"), wrong).expect_err("no such verdict").to_string();
        assert!(error.starts_with("known.toml:4:"), "{error}");
        assert!(read(Path::new("known.toml"), FILE.replace("cases", "case")).is_err());
    }
}
