//! A backup that lies there as a data directory: which files there are, and how large.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Finding;
use super::subject::{Stop, Subject};
use crate::backup_files;
use crate::error::{ClientError, shown};

/// Looks at everything below the backup directory, in the order of names. Links are followed, as PostgreSQL follows them.
pub(super) fn walk(subject: &mut Subject<'_>) -> Result<(), Stop> {
    let top = subject.directory.clone();
    let metadata = std::fs::metadata(&top).map_err(ClientError::local("open directory", &top))?;
    directory(subject, &[], &mut vec![(metadata.dev(), metadata.ino())])
}

fn full(subject: &Subject<'_>, path: &[u8]) -> PathBuf {
    if path.is_empty() { subject.directory.clone() } else { subject.directory.join(OsStr::from_bytes(path)) }
}

/// `above` are the directories that lead to this one and itself: a link can lead back to one of them.
fn directory(subject: &mut Subject<'_>, path: &[u8], above: &mut Vec<(u64, u64)>) -> Result<(), Stop> {
    let full = full(subject, path);
    let names: Result<Vec<Vec<u8>>, std::io::Error> = std::fs::read_dir(&full)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect());
    let mut names = match names {
        Ok(names) => names,
        Err(error) => {
            subject.found(&Finding::local("open directory", full.as_os_str().as_bytes(), &error))?;
            subject.ignore(path);
            return Ok(());
        }
    };
    names.sort_unstable();
    for name in names {
        let path = if path.is_empty() { name } else { [path, b"/", &name].concat() };
        if !subject.ignored.contains(&path) {
            entry(subject, &path, above)?;
        }
    }
    Ok(())
}

fn entry(subject: &mut Subject<'_>, path: &[u8], above: &mut Vec<(u64, u64)>) -> Result<(), Stop> {
    let full = full(subject, path);
    let metadata = match std::fs::metadata(&full) {
        Ok(metadata) => metadata,
        Err(error) => {
            subject.found(&Finding::local("stat file or directory", path, &error))?;
            subject.ignore(path);
            return Ok(());
        }
    };
    if metadata.is_dir() {
        let identity = (metadata.dev(), metadata.ino());
        if above.contains(&identity) {
            let text = format!("\"{}\" leads back to a directory that holds it", shown(path));
            return subject.found(&Finding::not_restorable(text));
        }
        above.push(identity);
        let result = directory(subject, path, above);
        above.pop();
        return result;
    }
    if !metadata.is_file() {
        return subject.found(&Finding::new(format!("\"{}\" is not a regular file or directory", shown(path))));
    }
    let Some((index, file)) = subject.listed.file(path) else {
        return subject.found(&Finding::new(format!("\"{}\" is present on disk but not in the manifest", shown(path))));
    };
    let bad = metadata.len() != file.size;
    if let Some(state) = subject.state(index) {
        state.matched = true;
        state.bad = bad;
    }
    if bad {
        let text =
            format!("\"{}\" has size {} on disk but size {} in the manifest", shown(path), metadata.len(), file.size);
        subject.found(&Finding::new(text))?;
    }
    if subject.listed.names_cluster() && path == b"global/pg_control" {
        let control = backup_files::read_control(&full)?;
        // A manifest of version 2 that does not name the cluster is of cluster 0.
        let ours = subject.listed.manifest.system_identifier.unwrap_or(0);
        if control.system_identifier != ours {
            let (path, theirs) = (full.display(), control.system_identifier);
            let text = format!("{path}: manifest system identifier is {ours}, but control file has {theirs}");
            return Err(ClientError::Unusable(text).into());
        }
    }
    Ok(())
}
