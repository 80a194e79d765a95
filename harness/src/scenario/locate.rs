//! Where a scenario file says what a requirement asks for, so that a report can point at the line.

use std::fs;
use std::path::Path;

use super::document::{Document, Part, SourceFile};
use super::way::Way;

/// The line, from 1, of the requirement `check` (`expect.backup.must.outcome`) in the file at `path`. What stands in no
/// file, such as the built-in law, and a file that cannot be read any more, have the first line.
pub fn line_of(path: &Path, check: &str) -> usize {
    let Ok(text) = fs::read_to_string(path) else { return 1 };
    line_in(&SourceFile { path: path.to_path_buf(), text: text.into() }, check)
}

fn line_in(file: &SourceFile, check: &str) -> usize {
    let Ok(document) = Document::parse(file) else { return 1 };
    let way = check.split('.').fold(Way::new(), Way::to);
    if !document.has(&way) {
        return 1;
    }
    document.error_at(&way, Part::Key, String::new(), None).line()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_has_the_line_that_says_it() {
        let text = "summary = \"x\"\n\n[expect.backup]\nmust.outcome = \"failure\"\nmust.leaves = \"nothing\"\n";
        let file = SourceFile { path: "x.toml".into(), text: text.into() };
        assert_eq!(line_in(&file, "expect.backup.must.leaves"), 5);
        assert_eq!(line_in(&file, "complete: members"), 1);
        assert_eq!(line_in(&file, ""), 1);
        assert_eq!(line_of(Path::new("/nonexistent.toml"), "expect.backup.must.leaves"), 1);
    }
}
