//! The inputs, and whether they are a chain.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::manifest::{Manifest, ManifestFile};
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use super::CombineObserver;
use super::label::ChainLabel;
use crate::backup_files;
use crate::error::ClientError;
use crate::verifybackup::{Finding, VerifyObserver, VerifyOptions, verify_backup};

/// One input.
pub(super) struct Input {
    pub(super) directory: PathBuf,
    manifest: Option<Manifest>,
    index: HashMap<Vec<u8>, usize>,
}

impl Input {
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    pub(super) fn manifest_path(&self) -> PathBuf {
        self.directory.join("backup_manifest")
    }

    /// What the manifest says of the file at `path`, and its number there.
    pub(super) fn listed(&self, path: &[u8]) -> Option<(usize, &ManifestFile)> {
        let index = *self.index.get(path)?;
        Some((index, self.manifest.as_ref()?.files.get(index)?))
    }
}

/// All inputs, the full backup first.
pub(super) struct Chain {
    pub(super) inputs: Vec<Input>,
    pub(super) system_identifier: u64,
    /// The label of the last input.
    pub(super) label: Vec<u8>,
}

fn unusable(text: String) -> ClientError {
    ClientError::Unusable(text)
}

/// Keeps the first problem.
#[derive(Default)]
struct First(Option<String>);

impl VerifyObserver for First {
    fn found(&mut self, finding: &Finding) {
        self.0.get_or_insert_with(|| finding.to_string());
    }
}

/// Verifies every input with its manifest.
pub(super) fn verify_inputs(inputs: &[PathBuf]) -> Result<(), ClientError> {
    for directory in inputs {
        let options = VerifyOptions { exit_on_error: true, parse_wal: false, ..VerifyOptions::new(directory) };
        let mut first = First::default();
        if !verify_backup(&options, &mut first)? {
            let problem = first.0.unwrap_or_default();
            return Err(unusable(format!("backup at \"{}\" is damaged: {problem}", directory.display())));
        }
    }
    Ok(())
}

impl Chain {
    /// Reads what says what the inputs are, in `pg_combinebackup`'s order.
    pub(super) fn load(directories: &[PathBuf], observer: &mut dyn CombineObserver) -> Result<Self, ClientError> {
        let last = directories.last().ok_or_else(|| unusable("no input directories specified".to_owned()))?;
        let release = release(last, observer)?;
        let system_identifier = check_control_files(directories, release, observer)?;
        let label = check_labels(directories, observer)?;
        let mut inputs = Vec::new();
        for directory in directories {
            inputs.push(load_manifest(directory, observer)?);
        }
        for input in &inputs {
            let theirs = input.manifest().map(|manifest| manifest.system_identifier.unwrap_or(0));
            if let Some(theirs) = theirs.filter(|theirs| *theirs != system_identifier) {
                let path = input.directory.join("global/pg_control");
                return Err(unusable(format!(
                    "{}: manifest system identifier is {theirs}, but control file has {system_identifier}",
                    path.display()
                )));
            }
        }
        Ok(Self { inputs, system_identifier, label })
    }

    pub(super) fn last(&self) -> Result<&Input, ClientError> {
        self.inputs.last().ok_or_else(|| unusable("no input directories specified".to_owned()))
    }
}

/// `read_pg_version_file`.
fn release(directory: &Path, observer: &mut dyn CombineObserver) -> Result<u32, ClientError> {
    let path = directory.join("PG_VERSION");
    let content = backup_files::read(&path, 128)?;
    let digits = content.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = content.split_at(digits);
    let number: Option<u32> = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    match (number, rest.first()) {
        (Some(number), Some(b'\n')) => {
            observer.debug(&format!("read server version {number} from file \"{}\"", path.display()));
            Ok(number)
        }
        (Some(0..10), Some(b'.')) => Err(unusable(format!("{}: server version too old", path.display()))),
        _ => Err(unusable(format!("{}: could not parse version number", path.display()))),
    }
}

/// Reads the control files, last to first, and returns the system identifier that they share.
fn check_control_files(
    directories: &[PathBuf],
    release: u32,
    observer: &mut dyn CombineObserver,
) -> Result<u64, ClientError> {
    let mut last: Option<ControlFile> = None;
    let mut mixed = false;
    for directory in directories.iter().rev() {
        let path = directory.join("global/pg_control");
        let shown = path.display();
        observer.debug(&format!("reading \"{shown}\""));
        let control = backup_files::read_control(&path)?;
        // Before 17 there were no incremental backups.
        if !control.version.has_incremental() {
            return Err(unusable(format!("{shown}: unexpected control file version")));
        }
        let Some(last) = &last else {
            if control.version.name() != release.to_string() {
                let version = control.version;
                return Err(unusable(format!(
                    "{shown}: control file is of version {version}, but PG_VERSION of {release}"
                )));
            }
            last = Some(control);
            continue;
        };
        let (expected, found) = (last.system_identifier, control.system_identifier);
        if expected != found {
            return Err(unusable(format!("{shown}: expected system identifier {expected}, but found {found}")));
        }
        if control.version != last.version {
            return Err(unusable(format!(
                "{shown}: control file is of version {}, expected {release}",
                control.version
            )));
        }
        mixed |= last.data_checksum_version != 0 && last.data_checksum_version != control.data_checksum_version;
    }
    let identifier = last.map_or(0, |last| last.system_identifier);
    observer.debug(&format!("system identifier is {identifier}"));
    if mixed {
        let hint = "Disable, and optionally reenable, checksums on the output directory to avoid failures.";
        observer.warning("only some backups have checksums enabled", Some(hint));
    }
    Ok(identifier)
}

/// Reads the labels, last to first, and returns the last one's content.
fn check_labels(directories: &[PathBuf], observer: &mut dyn CombineObserver) -> Result<Vec<u8>, ClientError> {
    let mut last = Vec::new();
    let mut expected: Option<(TimelineId, Lsn)> = None;
    for (index, directory) in directories.iter().enumerate().rev() {
        let path = directory.join("backup_label");
        observer.debug(&format!("reading \"{}\"", path.display()));
        let content = backup_files::read(&path, backup_files::MAX_LABEL)?;
        let label = ChainLabel::parse(&content);
        let label = label.map_err(|problem| unusable(format!("{}: {problem}", path.display())))?;
        let backup = format!("backup at \"{}\"", directory.display());
        match (index, label.from) {
            (1.., None) => {
                return Err(unusable(format!(
                    "{backup} is a full backup, but only the first backup should be a full backup"
                )));
            }
            (0, Some(_)) => {
                return Err(unusable(format!(
                    "{backup} is an incremental backup, but the first backup should be a full backup"
                )));
            }
            _ => {}
        }
        if let Some((timeline, lsn)) = expected {
            if label.start.0 != timeline {
                let found = label.start.0;
                return Err(unusable(format!("{backup} starts on timeline {found}, but expected {timeline}")));
            }
            if label.start.1 != lsn {
                return Err(unusable(format!("{backup} starts at LSN {}, but expected {lsn}", label.start.1)));
            }
        }
        expected = label.from;
        if index + 1 == directories.len() {
            last = content;
        }
    }
    Ok(last)
}

fn load_manifest(directory: &Path, observer: &mut dyn CombineObserver) -> Result<Input, ClientError> {
    let path = directory.join("backup_manifest");
    let text = match backup_files::read(&path, backup_files::MAX_MANIFEST) {
        Err(ClientError::Local { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            observer.warning(&format!("file \"{}\" does not exist", path.display()), None);
            return Ok(Input { directory: directory.to_path_buf(), manifest: None, index: HashMap::new() });
        }
        read => read?,
    };
    let manifest = Manifest::parse(&text).map_err(|error| unusable(error.to_string()))?;
    if manifest.version == 1 {
        return Err(unusable("backup manifest version 1 does not support incremental backup".to_owned()));
    }
    let index = manifest.files.iter().enumerate().map(|(index, file)| (file.path.clone(), index)).collect();
    Ok(Input { directory: directory.to_path_buf(), manifest: Some(manifest), index })
}
