//! Making room for a backup where another one is (`--force`).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use backstop_protocol::base_backup::label::BackupLabel;

use crate::backup_files::{self, MAX_LABEL};
use crate::disk::Disk;
use crate::error::ClientError;

/// Empties `directory`, if it is a backup that no server was started on. It need not be there, and may be empty.
pub(super) fn clear(directory: &Path, disk: &Arc<dyn Disk>) -> Result<(), ClientError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(ClientError::local("access directory", directory))?,
    };
    let entries: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let entries = entries.map_err(ClientError::local("read directory", directory))?;
    if entries.is_empty() {
        return Ok(());
    }
    if let Some(problem) = no_backup(directory) {
        return Err(ClientError::Refused(format!(
            "directory \"{}\" is not removed: it does not look like a backup: {problem}",
            directory.display()
        )));
    }
    // The label goes last: what is left of a removal that is cut short can be removed by another.
    let (label, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.ends_with("backup_label"));
    for path in others.into_iter().chain(label) {
        let removed = disk.change(&path, &mut || {
            // Links are removed, not what they lead to.
            let directory = fs::symlink_metadata(&path)?.is_dir();
            if directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
        });
        removed.map_err(ClientError::local("remove", &path))?;
    }
    Ok(())
}

/// Why this is not a backup.
fn no_backup(directory: &Path) -> Option<String> {
    let label = match backup_files::read(&directory.join("backup_label"), MAX_LABEL) {
        Ok(label) => label,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = BackupLabel::parse(&String::from_utf8_lossy(&label)) {
        return Some(error.to_string());
    }
    if directory.join("postmaster.pid").exists() {
        return Some("a server may be running on it (file \"postmaster.pid\" exists)".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n\
        CHECKPOINT LOCATION: 0/3000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 01:46:49 UTC\nLABEL: x\nSTART TIMELINE: 1\n";

    fn clear(directory: &Path) -> Result<(), String> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        super::clear(directory, &disk).map_err(|error| error.to_string())
    }

    #[test]
    fn a_backup_is_removed_and_nothing_that_it_leads_to() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (backup, tablespace) = (scratch.path().join("backup"), scratch.path().join("ts"));
        assert_eq!(clear(&backup), Ok(()), "nothing there");
        fs::create_dir_all(backup.join("pg_tblspc")).expect("a directory");
        fs::create_dir(&tablespace).expect("a directory");
        fs::write(tablespace.join("mine"), "").expect("a file");
        std::os::unix::fs::symlink(&tablespace, backup.join("pg_tblspc/1")).expect("a link");
        fs::write(backup.join("backup_label"), LABEL).expect("a file");
        assert_eq!(clear(&backup), Ok(()));
        assert_eq!(fs::read_dir(&backup).expect("a directory").count(), 0);
        assert!(tablespace.join("mine").exists());
        assert_eq!(clear(&backup), Ok(()), "empty");
    }

    #[test]
    fn anything_else_stays() {
        let scratch = tempfile::tempdir().expect("a directory");
        let here = scratch.path();
        fs::write(here.join("precious"), "").expect("a file");
        let refused = |expected: &str| {
            let error = clear(here).expect_err(expected);
            assert!(error.contains("does not look like a backup") && error.contains(expected), "{error}");
            assert!(here.join("precious").exists());
        };
        refused("No such file or directory");
        fs::write(here.join("backup_label"), "nonsense").expect("a file");
        refused("could not find START WAL LOCATION");
        fs::write(here.join("backup_label"), LABEL).expect("a file");
        fs::write(here.join("postmaster.pid"), "1").expect("a file");
        refused("a server may be running on it");
    }
}
