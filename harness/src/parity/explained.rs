//! Differences between the mock and real servers that have a reason: a file of them, read like that of known faults.
//!
//! ```toml
//! [[explained]]
//! cases   = ["*"]
//! side    = "real"
//! line    = "> NoticeResponse *"
//! because = "The recorded servers were built without it"
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::compare::{Difference, Side};
use crate::known::matches;
use crate::scenario::document::{Document, SourceFile};
use crate::scenario::load::LoadError;

/// The reasons that one or more files list.
#[derive(Clone, Debug, Default)]
pub struct Explanations(Vec<Explanation>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    /// Cases, or scenarios with all their cases. `*` stands for any text.
    cases: Vec<String>,
    /// `mock` or `real`; any without it.
    side: Option<SideName>,
    /// The session, as `backup #2`; any without it. `*` stands for any text.
    session: Option<String>,
    /// The line. `*` stands for any text.
    line: String,
    /// Why.
    because: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SideName {
    Mock,
    Real,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    explained: Vec<Explanation>,
}

impl Explanations {
    /// Reads files of reasons.
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

    /// Why a case differs here, if that is known.
    pub(super) fn about(&self, case: &str, difference: &Difference) -> Option<&str> {
        let scenario = case.split('[').next().unwrap_or_default();
        let fits = |explanation: &&Explanation| {
            let side = match explanation.side {
                None => true,
                Some(SideName::Mock) => difference.side == Side::Mock,
                Some(SideName::Real) => difference.side == Side::Real,
            };
            let session = explanation.session.as_ref().is_none_or(|pattern| matches(pattern, &difference.session));
            let named = |pattern: &String| pattern == scenario || matches(pattern, case);
            side && session && explanation.cases.iter().any(named) && matches(&explanation.line, &difference.line)
        };
        self.0.iter().find(fits).map(|explanation| explanation.because.as_str())
    }
}

fn read(path: &Path, text: String) -> Result<Vec<Explanation>, LoadError> {
    let file = SourceFile { path: path.to_path_buf(), text: text.into() };
    let read = Document::parse(&file).and_then(|document| document.read::<File>());
    read.map(|file| file.explained).map_err(LoadError::Scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_for_a_case_a_side_and_a_line() {
        let text = "[[explained]]\ncases = [\"sound/plain\", \"wal/*\"]\nside = \"real\"\nline = \"> Notice*\"\nbecause = \"so\"\n";
        let all = Explanations(read(Path::new("parity.toml"), text.to_owned()).expect("a valid file"));
        let difference = |side, line: &str| Difference { session: String::new(), side, line: line.to_owned() };
        let notice = difference(Side::Real, "> NoticeResponse x");
        assert_eq!(all.about("sound/plain[server.version=15]", &notice), Some("so"));
        assert_eq!(all.about("wal/x", &notice), Some("so"));
        assert_eq!(all.about("sound/tar", &notice), None);
        assert_eq!(all.about("wal/x", &difference(Side::Mock, "> NoticeResponse x")), None);
        assert_eq!(all.about("wal/x", &difference(Side::Real, "> ErrorResponse x")), None);
        let second = text.replace("line =", "session = \"* #2\"\nline =");
        let second = Explanations(read(Path::new("parity.toml"), second).expect("a valid file"));
        assert_eq!(second.about("wal/x", &notice), None);
        assert_eq!(second.about("wal/x", &Difference { session: "backup #2".to_owned(), ..notice }), Some("so"));
        let wrong = read(Path::new("parity.toml"), text.replace("side", "sides")).expect_err("no such key").to_string();
        assert!(wrong.starts_with("parity.toml:3:"), "{wrong}");
    }
}
