//! From paths and ids to cases.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::credentials::Credentials;
use super::document::{Document, MAX_FILE, Part, ScenarioError, SourceFile};
use super::model::{Scenario, Tool, WalMethod};
use super::way::Way;
use super::{Case, explain, matrix, sweep, validate};

/// A directory holds no more scenario files than this.
pub const MAX_FILES: usize = 100_000;

/// Why there are no cases.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A scenario file with something wrong in it.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A file or directory that cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file whose name cannot be an id.
    #[error("{}: the name of a scenario file has letters, digits, dots, hyphens and underscores only", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// Something that is neither the path of a file nor the beginning of an id.
    #[error("there is no case or file {wanted:?}{}", hint(nearest.as_deref()))]
    NoSuchCase {
        /// What was asked for.
        wanted: String,
        /// The id that comes nearest.
        nearest: Option<String>,
    },
    /// A golden transcript whose case is no more.
    #[error(
        "{}: there is no such case beside it: remove the transcript, or give it the case's new name",
        path.display()
    )]
    StaleTranscript {
        /// The transcript.
        path: PathBuf,
    },
    /// A step of a sweep, of a case that is none or has fewer steps.
    #[error("{id} is no sweep, so that it has no step {step}")]
    NoSweep {
        /// The case.
        id: String,
        /// The step that was asked for.
        step: u64,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean \"{nearest}\"?")).unwrap_or_default()
}

/// One scenario file before it is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The id of the scenario: `crash/mid-tablespace`.
    pub id: String,
    /// The path as it was found.
    pub path: PathBuf,
}

/// Finds the scenario files below `directory`, in the order of their ids. Names that begin with a dot are passed over.
pub fn find(directory: &Path) -> Result<Vec<Found>, LoadError> {
    let mut found = Vec::new();
    // Beside the areas stands the folder of the lists of known faults.
    let visible = |entry: &walkdir::DirEntry| match (entry.depth(), entry.file_name().as_encoded_bytes()) {
        (0, _) => true,
        (1, b"known") => false,
        (_, name) => !name.starts_with(b"."),
    };
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name().into_iter().filter_entry(visible) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(directory).to_owned();
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of symbolic links"));
            LoadError::Unreadable { path, source }
        })?;
        let is_toml = entry.path().extension().is_some_and(|extension| extension == "toml");
        // The scenarios lie in a crate of their own.
        if !entry.file_type().is_dir() && is_toml && entry.file_name() != "Cargo.toml" {
            let relative = entry.path().strip_prefix(directory).unwrap_or(entry.path());
            found.push(Found { id: id_of(relative, entry.path())?, path: entry.path().to_owned() });
        }
        if found.len() > MAX_FILES {
            let source = io::Error::other(format!("more than {MAX_FILES} scenario files"));
            return Err(LoadError::Unreadable { path: directory.to_owned(), source });
        }
    }
    found.sort();
    Ok(found)
}

/// The scenario file at `path`. Its id is its path below `root`, or below a directory called `scenarios`, or its name.
pub fn file(path: &Path, root: &Path) -> Result<Found, LoadError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let full = absolute(path);
    let below_root = full.strip_prefix(absolute(root)).ok().map(Path::to_owned);
    let relative = below_root.or_else(|| {
        let parts: Vec<_> = full.components().collect();
        let position = parts.iter().rposition(|part| part.as_os_str() == "scenarios")?;
        Some(parts.get(position + 1..)?.iter().collect())
    });
    let relative = relative.or_else(|| full.file_name().map(PathBuf::from)).unwrap_or_default();
    Ok(Found { id: id_of(&relative, path)?, path: path.to_owned() })
}

fn id_of(relative: &Path, path: &Path) -> Result<String, LoadError> {
    let refuse = || LoadError::Name { path: path.to_owned() };
    let stem = relative.with_extension("");
    let parts: Option<Vec<&str>> = stem.components().map(|part| part.as_os_str().to_str()).collect();
    let id = parts.ok_or_else(refuse)?.join("/");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if id.is_empty() || !id.chars().all(plain) { Err(refuse()) } else { Ok(id) }
}

/// Reads a scenario file: one case for each combination of its matrix.
pub fn load(found: &Found) -> Result<Vec<Case>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: found.path.clone(), source };
    let mut bytes = Vec::new();
    let file = File::open(&found.path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable(io::Error::other("not UTF-8")))?;
    Ok(read(&found.id, &SourceFile { path: found.path.clone(), text: text.into() })?)
}

/// Reads the text of a scenario file: one case for each combination of its matrix.
pub fn read(id: &str, file: &SourceFile) -> Result<Vec<Case>, ScenarioError> {
    let document = Document::parse(file)?;
    let mut cases = Vec::new();
    for combined in matrix::expand(document)? {
        let id = case_id(id, &combined.combination);
        let scenario =
            Arc::new(scenario(combined.document).map_err(|error| error.in_combination(&combined.combination))?);
        cases.push(Case {
            id,
            path: file.path.clone(),
            scenario,
            combination: combined.combination,
            step: None,
            credentials: Credentials::default(),
        });
    }
    Ok(cases)
}

fn scenario(mut document: Document<'_>) -> Result<Scenario, ScenarioError> {
    let mut sweep = sweep::extract(&mut document)?;
    let mut scenario: Scenario = document.read()?;
    if let Some(sweep) = &mut sweep {
        sweep::refuse_unknown_wal(&document, &scenario, sweep)?;
        sweep.wal_begin = sweep::wal_begin(&scenario);
        let Some(fault) = scenario.faults.get_mut(sweep.fault) else {
            // The document has as many faults as the model that was read from it.
            let way = Way::new().to("fault");
            return Err(document.error_at(&way, Part::Key, "the swept fault is not there".to_owned(), None));
        };
        fault.when = sweep.point(sweep.every.first());
    }
    scenario.sweep = sweep;
    for (index, client) in scenario.clients.iter_mut().enumerate() {
        let wal = Way::new().to("client").to(index).to("wal");
        if client.tool == Tool::Parallel && !document.has(&wal) {
            client.wal = WalMethod::Fetch;
        }
    }
    validate::validate(&document, &scenario)?;
    Ok(scenario)
}

/// `sound/plain[server.version=15,client.wal=fetch]`
fn case_id(id: &str, combination: &[(String, String)]) -> String {
    if combination.is_empty() {
        return id.to_owned();
    }
    let pairs: Vec<String> = combination.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{id}[{}]", pairs.join(","))
}

/// The nearest id, for an error.
pub(super) fn nearest_id(wanted: &str, found: &[Found]) -> Option<String> {
    let last = |id: &str| id.rsplit('/').next().unwrap_or_default().to_owned();
    let ids = found.iter().map(|found| found.id.as_str());
    explain::nearest(wanted, ids)
        .map(ToOwned::to_owned)
        .or_else(|| found.iter().find(|found| last(&found.id) == last(wanted)).map(|found| found.id.clone()))
}
