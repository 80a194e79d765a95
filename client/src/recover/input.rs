//! The inputs, and whether each is whole and all of them are a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, Manifest, ManifestFile};
use backstop_protocol::base_backup::profile::{
    self, BackupProfile, CHECKSUM_FILE_NAME, FILE_NAME, MAX_PROFILE, ProfileFile,
};

use super::RecoverObserver;
use crate::backup_files;
use crate::combine::tablespaces::parse_oid;
use crate::combine::walk::{join, relied_on};
use crate::error::{ClientError, shown};

const MANIFEST: &str = "backup_manifest";

/// A backup in plain format.
pub(super) struct Input {
    pub(super) directory: PathBuf,
    pub(super) label: BackupLabel,
    pub(super) label_text: String,
    /// A base can be without.
    pub(super) profile: Option<BackupProfile>,
    /// By path below the data directory.
    files: BTreeMap<Vec<u8>, ProfileFile>,
    pub(super) manifest: Option<Manifest>,
    listed: BTreeMap<Vec<u8>, usize>,
    pub(super) system_identifier: u64,
    release: Vec<u8>,
    /// All that lies there, WAL excepted.
    pub(super) tree: Contents,
}

/// What lies in a backup: paths below the data directory, tablespaces included.
#[derive(Default)]
pub(super) struct Contents {
    /// With their sizes.
    pub(super) files: BTreeMap<Vec<u8>, u64>,
    pub(super) directories: BTreeSet<Vec<u8>>,
    /// `pg_wal`, or `pg_xlog` before 10.
    pub(super) wal: Option<&'static str>,
}

fn unusable(text: String) -> ClientError {
    ClientError::Unusable(text)
}

pub(super) fn no_inputs() -> ClientError {
    unusable("no backups specified".to_owned())
}

/// Whether a path is that of WAL, which no profile lists.
pub(super) fn is_wal(path: &[u8]) -> bool {
    path.starts_with(b"pg_wal/") || path.starts_with(b"pg_xlog/")
}

impl Input {
    fn shown(&self) -> String {
        format!("backup at \"{}\"", self.directory.display())
    }

    fn load(directory: &Path, observer: &mut dyn RecoverObserver) -> Result<Self, ClientError> {
        let backup = directory.display();
        let is_there = |name: &str| directory.join(name).exists();
        if !is_there("PG_VERSION") && std::fs::metadata(directory).is_ok() {
            let tar = ["base.tar", "base.tar.gz", "base.tar.lz4", "base.tar.zst"].into_iter().any(is_there);
            let why = if tar { "is in tar format: unpack it first" } else { "has no file \"PG_VERSION\"" };
            return Err(unusable(format!("backup at \"{backup}\" {why}")));
        }
        let release = backup_files::read(&directory.join("PG_VERSION"), 64)?;
        if !is_there("backup_label") && is_there("backup_label.old") {
            return Err(unusable(format!("backup at \"{backup}\" is none any more: a server was started on it")));
        }
        let path = directory.join("backup_label");
        let text = backup_files::read(&path, backup_files::MAX_LABEL)?;
        let label_text = String::from_utf8(text)
            .map_err(|_| unusable(format!("invalid data in file \"{}\": not UTF-8", path.display())))?;
        let label = BackupLabel::parse(&label_text).map_err(|error| unusable(format!("{backup}: {error}")))?;
        if label.incremental_from.is_some() {
            return Err(unusable(format!(
                "backup at \"{backup}\" is incremental by blocks: pg_combinebackup puts it together"
            )));
        }
        let control = directory.join("global/pg_control");
        let content = backup_files::read(&control, 8192)?;
        let identifier = content.first_chunk().filter(|_| content.len() == 8192);
        let Some(system_identifier) = identifier.map(|bytes| u64::from_le_bytes(*bytes)) else {
            return Err(unusable(format!("file \"{}\" has {} bytes, not 8192", control.display(), content.len())));
        };
        let manifest = optional(&directory.join(MANIFEST), backup_files::MAX_MANIFEST)?;
        let manifest = manifest.map(|text| Manifest::parse(&text)).transpose();
        let manifest = manifest.map_err(|error| unusable(format!("backup at \"{backup}\": {error}")))?;
        let paths = manifest.iter().flat_map(|manifest| manifest.files.iter().enumerate());
        let listed = paths.map(|(index, file)| (file.path.clone(), index)).collect();
        let tree = Contents::walk(directory)?;
        let mut input = Self {
            directory: directory.to_path_buf(),
            label,
            label_text,
            profile: None,
            files: BTreeMap::new(),
            manifest,
            listed,
            system_identifier,
            release,
            tree,
        };
        input.load_profile(observer)?;
        Ok(input)
    }

    fn load_profile(&mut self, observer: &mut dyn RecoverObserver) -> Result<(), ClientError> {
        let path = self.directory.join(FILE_NAME);
        let Some(text) = optional(&path, MAX_PROFILE as u64)? else { return Ok(()) };
        let shown = path.display();
        self.check_checksum(&text, observer)?;
        let profile = BackupProfile::parse(&text).map_err(|error| unusable(format!("\"{shown}\": {error}")))?;
        if profile.label_text != self.label_text {
            return Err(unusable(format!("\"{shown}\" is not of this backup: its header is not the \"backup_label\"")));
        }
        self.files = profile.files.iter().map(|file| (file.path_in_data_directory(), file.clone())).collect();
        self.profile = Some(profile);
        self.check_files()
    }

    /// Nothing in a profile itself tells whether a line was taken out of it.
    fn check_checksum(&self, text: &[u8], observer: &mut dyn RecoverObserver) -> Result<(), ClientError> {
        let shown = self.directory.join(FILE_NAME);
        let shown = shown.display();
        let in_manifest = self.listed(FILE_NAME.as_bytes()).and_then(|file| file.checksum.as_ref());
        let matches = if let Some((algorithm, checksum)) = in_manifest {
            let mut hasher = ChecksumHasher::new(*algorithm);
            hasher.update(text);
            Some(hasher.finish() == *checksum)
        } else {
            let beside = optional(&self.directory.join(CHECKSUM_FILE_NAME), 1024)?;
            beside.map(|beside| beside == profile::checksum_file(text).into_bytes())
        };
        match matches {
            Some(true) => Ok(()),
            Some(false) => Err(unusable(format!("\"{shown}\" was changed after the backup: checksum mismatch"))),
            None => {
                observer.warning(&format!("\"{shown}\" has no checksum: it cannot be told whether it was changed"));
                Ok(())
            }
        }
    }

    /// Whether the files that lie there are those that the profile lists as sent.
    fn check_files(&self) -> Result<(), ClientError> {
        let profile = self.directory.join(FILE_NAME);
        let (shown_profile, shown_backup) = (profile.display(), self.shown());
        for (path, file) in &self.files {
            let name = shown(path);
            match (file.sent, self.tree.files.get(path)) {
                _ if is_wal(path) => {}
                (true, None) => {
                    return Err(unusable(format!("{shown_backup} lacks \"{name}\", which was sent by its profile")));
                }
                (true, Some(size)) if *size != file.size && relied_on(path) => {
                    let listed = file.size;
                    let text = format!("\"{name}\" has size {size} in {shown_backup} but size {listed} in its profile");
                    return Err(unusable(text));
                }
                (false, Some(_)) => {
                    return Err(unusable(format!(
                        "{shown_backup} has \"{name}\", which was not sent by \"{shown_profile}\""
                    )));
                }
                _ => {}
            }
        }
        let own = [MANIFEST, FILE_NAME, CHECKSUM_FILE_NAME].map(str::as_bytes);
        let known = |path: &[u8]| self.files.contains_key(path) || own.contains(&path) || !relied_on(path);
        match self.tree.files.keys().find(|path| !known(path)) {
            None => Ok(()),
            Some(path) => {
                let name = shown(path);
                Err(unusable(format!("{shown_backup} has \"{name}\", which is not in \"{shown_profile}\"")))
            }
        }
    }

    /// What the profile says of a file.
    pub(super) fn file(&self, path: &[u8]) -> Option<&ProfileFile> {
        self.files.get(path)
    }

    /// What the manifest says of a file.
    pub(super) fn listed(&self, path: &[u8]) -> Option<&ManifestFile> {
        self.manifest.as_ref()?.files.get(*self.listed.get(path)?)
    }

    /// The checksum of a file, if it must be what the manifest says.
    pub(super) fn checksum(&self, path: &[u8]) -> Option<&(ChecksumAlgorithm, Vec<u8>)> {
        self.listed(path).filter(|_| relied_on(path))?.checksum.as_ref()
    }
}

/// Loads all inputs, and checks that each builds on the one before.
pub(super) fn load_chain(
    directories: &[PathBuf],
    observer: &mut dyn RecoverObserver,
) -> Result<Vec<Input>, ClientError> {
    if directories.is_empty() {
        return Err(no_inputs());
    }
    let inputs: Result<Vec<Input>, _> = directories.iter().map(|directory| Input::load(directory, observer)).collect();
    let inputs = inputs?;
    for (index, input) in inputs.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| inputs.get(before));
        check_link(before, input)?;
    }
    Ok(inputs)
}

fn check_link(before: Option<&Input>, input: &Input) -> Result<(), ClientError> {
    let shown = input.shown();
    let (before, from) = match (before, input.label.incremental_from_location) {
        (None, None) => return Ok(()),
        (None, Some(_)) => {
            return Err(unusable(format!(
                "{shown} is an incremental backup, but the first backup should be a full backup"
            )));
        }
        (Some(_), None) => {
            return Err(unusable(format!(
                "{shown} is a full backup, but only the first backup should be a full backup"
            )));
        }
        (Some(before), Some(from)) => (before, from),
    };
    let base = before.shown();
    if input.profile.is_none() {
        return Err(unusable(format!("{shown} has no file \"{FILE_NAME}\"")));
    }
    if input.system_identifier != before.system_identifier {
        let (ours, theirs) = (input.system_identifier, before.system_identifier);
        return Err(unusable(format!("{shown} is of system {ours}, but {base} of system {theirs}")));
    }
    if input.release != before.release {
        return Err(unusable(format!("{shown} and {base} are of different releases of PostgreSQL")));
    }
    let (ours, theirs) = (input.label.start_file.timeline, before.label.start_file.timeline);
    if ours != theirs {
        return Err(unusable(format!(
            "{shown} starts on timeline {ours}, but {base} on timeline {theirs}: a full backup is needed after a promotion"
        )));
    }
    let start = before.label.start;
    if from != start {
        return Err(unusable(format!(
            "{shown} builds on a backup that started at {from}, but {base} started at {start}"
        )));
    }
    if input.label.start < start {
        return Err(unusable(format!("{shown} started at {}, before {base}, at {start}", input.label.start)));
    }
    Ok(())
}

/// Reads a file that need not be there.
fn optional(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ClientError> {
    match backup_files::read(path, limit) {
        Ok(content) => Ok(Some(content)),
        Err(ClientError::Local { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Contents {
    fn walk(directory: &Path) -> Result<Self, ClientError> {
        let mut contents = Self::default();
        contents.directory(directory, b"")?;
        Ok(contents)
    }

    fn directory(&mut self, directory: &Path, prefix: &[u8]) -> Result<(), ClientError> {
        let entries = std::fs::read_dir(directory).map_err(ClientError::local("open directory", directory))?;
        for entry in entries {
            let entry = entry.map_err(ClientError::local("read directory", directory))?;
            let name = entry.file_name();
            let path = [prefix, name.as_bytes()].concat();
            let full = join(directory, name.as_bytes());
            let metadata = entry.metadata().map_err(ClientError::local("stat file", &full))?;
            let wal = ["pg_wal", "pg_xlog"].into_iter().find(|wal| wal.as_bytes() == path);
            if wal.is_some() {
                self.wal = wal;
                continue;
            }
            let tablespace = prefix == b"pg_tblspc/" && parse_oid(name.as_bytes()).is_some();
            if metadata.is_file() {
                self.files.insert(path, metadata.len());
            } else if metadata.is_dir() || (metadata.is_symlink() && tablespace) {
                self.directory(&full, &[&path[..], b"/"].concat())?;
                self.directories.insert(path);
            } else {
                return Err(unusable(format!("\"{}\" is neither a file nor a directory", full.display())));
            }
        }
        Ok(())
    }
}
