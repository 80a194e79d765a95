//! What no manifest says: whether a server could start from the backup.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::manifest::WalRange;
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind};
use backstop_protocol::control::ControlFile;
use backstop_protocol::version::ServerVersion;

use super::Finding;
use super::subject::{Stop, Subject};
use crate::backup_files;

/// Files that say what a backup is, and how large they may be.
const KEPT: [(&str, u64); 3] = [("PG_VERSION", 64), ("backup_label", backup_files::MAX_LABEL), (CONTROL, 8192)];

const CONTROL: &str = "global/pg_control";

/// What a backup holds besides files that a manifest lists.
#[derive(Debug, Default)]
pub(super) struct Essentials {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    directories: BTreeSet<Vec<u8>>,
    /// Where to look for directories, in a plain backup.
    root: Option<PathBuf>,
    /// Whether the archive of the data directory holds WAL.
    pub(super) holds_wal: bool,
}

impl Essentials {
    /// Of a plain backup. What cannot be read is not there: it was told before, or the manifest does not know it.
    pub(super) fn read(directory: &Path) -> Self {
        let read = |(name, limit): (&str, u64)| {
            let content = backup_files::read(&directory.join(name), limit).ok()?;
            Some((name.as_bytes().to_vec(), content))
        };
        let files = KEPT.into_iter().filter_map(read).collect();
        Self { files, root: Some(directory.to_path_buf()), ..Self::default() }
    }

    /// Whether the content of the member at `path` is wanted.
    pub(super) fn keeps(path: &[u8], size: u64) -> bool {
        KEPT.iter().any(|(name, limit)| name.as_bytes() == path && size <= *limit)
    }

    pub(super) fn keep(&mut self, path: &[u8], content: Vec<u8>) {
        self.files.insert(path.to_vec(), content);
    }

    /// A member of an archive goes by.
    pub(super) fn seen(&mut self, path: &[u8], header: &MemberHeader) {
        match header.kind {
            // Only the top is asked for, and an archive may hold any number of directories.
            MemberKind::Directory if !path.contains(&b'/') => {
                self.directories.insert(path.to_vec());
            }
            MemberKind::File if path.starts_with(b"pg_wal/0") => self.holds_wal = true,
            _ => {}
        }
    }

    /// Adds what another archive holds.
    pub(super) fn absorb(&mut self, other: Self) {
        self.files.extend(other.files);
        self.directories.extend(other.directories);
        self.holds_wal |= other.holds_wal;
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name.as_bytes()).map(Vec::as_slice)
    }

    fn has_directory(&self, name: &str) -> bool {
        match &self.root {
            Some(root) => root.join(OsStr::from_bytes(name.as_bytes())).is_dir(),
            None => self.directories.contains(name.as_bytes()),
        }
    }

    /// The control file, if it can be read.
    pub(super) fn control(&self) -> Result<ControlFile, String> {
        let content = self.file(CONTROL).ok_or_else(|| format!("\"{CONTROL}\" is missing"))?;
        backup_files::control(content, CONTROL).map_err(|error| error.to_string())
    }
}

/// Looks at what `pg_verifybackup` does not look at.
pub(super) fn verify(subject: &mut Subject<'_>, essentials: &Essentials) -> Result<(), Stop> {
    for problem in problems(subject, essentials) {
        subject.found(&Finding::not_restorable(problem))?;
    }
    Ok(())
}

fn problems(subject: &Subject<'_>, essentials: &Essentials) -> Vec<String> {
    let mut problems = Vec::new();
    let ignored = |name: &str| subject.ignored.contains(name.as_bytes());
    for (name, _) in KEPT {
        // Missing from the disk alone: that was told.
        if subject.listed.file(name.as_bytes()).is_none() && !ignored(name) {
            problems.push(format!("\"{name}\" is not in the manifest"));
        }
    }
    // What is known to be damaged is not looked into.
    let content = |name: &str| {
        let known = !ignored(name) && subject.trusted(name.as_bytes());
        if known { essentials.file(name) } else { None }
    };
    let version = content("PG_VERSION").and_then(|content| version(content, &mut problems));
    let control = content(CONTROL).and_then(|content| {
        let control = backup_files::control(content, CONTROL);
        control.map_err(|error| problems.push(error.to_string())).ok()
    });
    let label = content("backup_label").and_then(|content| {
        let label = BackupLabel::parse(&String::from_utf8_lossy(content));
        label.map_err(|error| problems.push(error.to_string())).ok()
    });
    if let (Some(version), Some(control)) = (version, &control)
        && control.version != version
    {
        problems.push(format!("\"PG_VERSION\" is of version {version}, but \"{CONTROL}\" is of {}", control.version));
    }
    if let (Some(label), Some(control)) = (&label, &control)
        && control.checkpoint < label.checkpoint
    {
        let (found, wanted) = (control.checkpoint, label.checkpoint);
        problems.push(format!("checkpoint {found} in \"{CONTROL}\" is before the backup's, {wanted}"));
    }
    check_ranges(&subject.listed.manifest.wal_ranges, label.as_ref(), &mut problems);
    if let Some(version) = version.or(control.map(|control| control.version)) {
        let directories = ["base", "global"].into_iter().chain(version.data_directories());
        // WAL may lie elsewhere: what is asked of it is asked when it is read.
        let missing = directories
            .filter(|name| *name != version.wal_directory() && !ignored(name) && !essentials.has_directory(name));
        problems.extend(missing.map(|name| format!("directory \"{name}\" is missing")));
    }
    problems
}

fn version(content: &[u8], problems: &mut Vec<String>) -> Option<ServerVersion> {
    let name = str::from_utf8(content).ok().and_then(|text| text.strip_suffix('\n'));
    let version = name.and_then(|name| name.parse().ok());
    if version.is_none() {
        problems.push("\"PG_VERSION\" names no release from 9.1 to 18".to_owned());
    }
    version
}

/// The ranges must follow each other, newest timeline first, as servers list them, from where the label says.
fn check_ranges(ranges: &[WalRange], label: Option<&BackupLabel>, problems: &mut Vec<String>) {
    let Some(oldest) = ranges.last() else {
        problems.push("the manifest asks for no WAL".to_owned());
        return;
    };
    if let Some(range) = ranges.iter().find(|range| range.start >= range.end) {
        problems.push(format!("the manifest's WAL range from {} to {} is empty", range.start, range.end));
    }
    let joined = ranges
        .windows(2)
        .all(|pair| matches!(pair, [newer, older] if newer.timeline > older.timeline && newer.start == older.end));
    if !joined {
        problems.push("the manifest's WAL ranges do not follow each other".to_owned());
    }
    let Some(label) = label else { return };
    if label.start != oldest.start || label.start_file.timeline != oldest.timeline {
        problems.push(format!(
            "\"backup_label\" starts at {} on timeline {}, but the manifest's WAL at {} on timeline {}",
            label.start, label.start_file.timeline, oldest.start, oldest.timeline
        ));
    }
}
