//! The file system of the server's machine, as far as BASE_BACKUP with TARGET 'server' writes there.
//!
//! What is written is always known by name, size and SHA-256. It lands on a disk only if the configuration gives a
//! [root](crate::config::Config::server_root): every path of the server then lies below that directory, links are not
//! followed, and nothing is written anywhere else. Without a root the directories are a table: those that a machine has anyway,
//! and those above the locations of tablespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::version::ServerVersion;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Tablespace;

/// Directories of any machine.
const USUAL: [&str; 10] =
    ["/", "/home", "/mnt", "/srv", "/tmp", "/var", "/var/backups", "/var/lib", "/var/lib/postgresql", "/var/tmp"];

/// The most files that are kept in mind: then the disk is full.
const MOST_FILES: usize = 65536;

/// A file that a backup with TARGET 'server' has left on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its path on the server, without `.`, `..` and doubled slashes.
    pub path: String,
    /// Its bytes so far.
    pub size: u64,
    /// The SHA-256 of its content, once it was closed.
    pub sha256: Option<[u8; 32]>,
}

/// The directories and files of the server's machine.
#[derive(Debug)]
pub(crate) struct ServerFiles {
    root: Option<PathBuf>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Without a root: the directories that exist.
    directories: BTreeSet<String>,
    files: BTreeMap<String, Written>,
}

#[derive(Debug, Default)]
struct Written {
    size: u64,
    sha256: Option<[u8; 32]>,
}

/// A path without `.`, `..` and doubled slashes. `..` does not lead above the root.
fn normalized(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory above a normalized path.
fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

impl Table {
    fn is_empty(&self, directory: &str) -> bool {
        let below = format!("{}/", directory.trim_end_matches('/'));
        let first = |next: Option<&String>| next.is_some_and(|name| name.starts_with(&below));
        let beyond = || (std::ops::Bound::Excluded(below.clone()), std::ops::Bound::Unbounded);
        !first(self.directories.range(beyond()).next())
            && !first(self.files.range(beyond()).next().map(|(name, _)| name))
    }
}

impl ServerFiles {
    pub(super) fn new(root: Option<PathBuf>, tablespaces: &[Tablespace], version: ServerVersion) -> Self {
        let mut directories: BTreeSet<String> = USUAL.map(str::to_owned).into();
        for tablespace in tablespaces.iter().filter(|tablespace| !tablespace.in_place) {
            let location = normalized(&tablespace.location);
            // A tablespace is never an empty directory.
            directories.insert(format!("{location}/{}", version.tablespace_version_directory()));
            let mut directory = location.as_str();
            while directories.insert(directory.to_owned()) {
                directory = parent(directory);
            }
        }
        Self { root, table: Mutex::new(Table { directories, files: BTreeMap::new() }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What is behind the lock is whole between statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file that was written, by path.
    pub(super) fn stored(&self) -> Vec<StoredFile> {
        let file = |(path, written): (&String, &Written)| StoredFile {
            path: path.clone(),
            size: written.size,
            sha256: written.sha256,
        };
        self.table().files.iter().map(file).collect()
    }

    /// Where a normalized path lies on this machine. A link on the way is refused.
    fn on_disk(root: &Path, path: &str) -> io::Result<PathBuf> {
        let mut place = root.to_owned();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(metadata) if metadata.is_symlink() => return Err(Errno::LOOP.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(place)
    }

    /// `pg_check_dir`: whether a directory exists, and then whether it is empty.
    fn look(&self, path: &str) -> io::Result<Option<bool>> {
        let Some(root) = &self.root else {
            let table = self.table();
            if table.files.contains_key(path) {
                return Err(Errno::NOTDIR.into());
            }
            return Ok(table.directories.contains(path).then(|| table.is_empty(path)));
        };
        match fs::read_dir(Self::on_disk(root, path)?) {
            Ok(mut entries) => Ok(Some(entries.next().is_none())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `MakePGDirectory`.
    fn make(&self, path: &str) -> io::Result<()> {
        if let Some(root) = &self.root {
            return DirBuilder::new().mode(0o700).create(Self::on_disk(root, path)?);
        }
        let mut table = self.table();
        let above = parent(path).to_owned();
        if table.files.contains_key(&above) {
            return Err(Errno::NOTDIR.into());
        }
        if !table.directories.contains(&above) {
            return Err(Errno::NOENT.into());
        }
        table.directories.insert(path.to_owned());
        Ok(())
    }

    /// `bbsink_server_new`: an empty directory for a backup, made if need be.
    pub(crate) fn prepare(&self, path: &str) -> Result<(), Diagnostic> {
        let place = normalized(path);
        match self.look(&place) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => {
                let message = format!("directory \"{path}\" exists but is not empty");
                Err(Diagnostic::error(SqlState::DUPLICATE_FILE, message))
            }
            Ok(None) => self
                .make(&place)
                .map_err(|error| file_access(&format!("could not create directory \"{path}\""), &error)),
            Err(error) => Err(file_access(&format!("could not access directory \"{path}\""), &error)),
        }
    }

    /// Creates a file, which must not exist.
    pub(crate) fn create(self: &Arc<Self>, path: String) -> Result<ServerFile, Diagnostic> {
        let place = normalized(&path);
        let created = || -> io::Result<Option<File>> {
            let mut table = self.table();
            if table.files.len() >= MOST_FILES {
                return Err(Errno::NOSPC.into());
            }
            let file = match &self.root {
                Some(root) => {
                    let place = Self::on_disk(root, &place)?;
                    Some(OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?)
                }
                None if table.files.contains_key(&place) => return Err(Errno::EXIST.into()),
                None => None,
            };
            table.files.insert(place.clone(), Written::default());
            Ok(file)
        };
        let file = created().map_err(|error| file_access(&format!("could not create file \"{path}\""), &error))?;
        Ok(ServerFile { files: Arc::clone(self), path, place, file, hasher: Sha256::new() })
    }

    /// Gives a closed file another name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Diagnostic> {
        let (old, new) = (normalized(from), normalized(to));
        let renamed = || -> io::Result<()> {
            if let Some(root) = &self.root {
                fs::rename(Self::on_disk(root, &old)?, Self::on_disk(root, &new)?)?;
            }
            let mut table = self.table();
            if let Some(written) = table.files.remove(&old) {
                table.files.insert(new.clone(), written);
            }
            Ok(())
        };
        let failed = format!("could not rename file \"{from}\" to \"{to}\"");
        renamed().map_err(|error| file_access(&failed, &error))
    }
}

/// A file on the server that is being written.
#[derive(Debug)]
pub(crate) struct ServerFile {
    files: Arc<ServerFiles>,
    /// As in messages.
    path: String,
    /// As in the table.
    place: String,
    file: Option<File>,
    hasher: Sha256,
}

impl ServerFile {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Diagnostic> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes).map_err(|error| {
                let failed = format!("could not write file \"{}\"", self.path);
                file_access(&failed, &error).with_hint("Check free disk space.")
            })?;
        }
        self.hasher.update(bytes);
        if let Some(written) = self.files.table().files.get_mut(&self.place) {
            written.size += bytes.len() as u64;
        }
        Ok(())
    }

    /// Closes the file. What is on disk is not synchronised: it need not outlive this machine.
    pub(crate) fn close(self) {
        if let Some(written) = self.files.table().files.get_mut(&self.place) {
            written.sha256 = Some(self.hasher.finalize().into());
        }
    }
}

/// `errcode_for_file_access`, and `%m` after what failed.
pub(crate) fn file_access(failed: &str, error: &io::Error) -> Diagnostic {
    let code = match error.kind() {
        ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => SqlState::INSUFFICIENT_PRIVILEGE,
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => SqlState::DUPLICATE_FILE,
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => SqlState::WRONG_OBJECT_TYPE,
        ErrorKind::StorageFull => SqlState::DISK_FULL,
        _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => SqlState::IO_ERROR,
        _ => SqlState::INTERNAL_ERROR,
    };
    let text = error.to_string();
    // The standard library appends the number.
    let text = text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    Diagnostic::error(code, format!("{failed}: {text}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tablespace() -> Tablespace {
        Tablespace { oid: 16400, location: "/srv/cap/pg/ts1".to_owned(), in_place: false }
    }

    fn refusal(files: &ServerFiles, path: &str) -> String {
        let Diagnostic { code, message, .. } = files.prepare(path).expect_err(path);
        format!("{code} {message}")
    }

    fn store(files: &Arc<ServerFiles>, path: &str, content: &[u8]) -> Result<(), Diagnostic> {
        let mut file = files.create(path.to_owned())?;
        file.write(content)?;
        file.close();
        Ok(())
    }

    #[test]
    fn a_table_knows_what_exists() {
        let files = Arc::new(ServerFiles::new(None, &[tablespace()], ServerVersion::V18));
        files.prepare("/srv/cap/pg/target").expect("a new directory");
        files.prepare("/srv/cap/pg//./target/").expect("an empty one");
        store(&files, "/srv/cap/pg/target/base.tar", b"abc").expect("stored");
        let taken = "58P02 directory \"/srv/cap/pg/target\" exists but is not empty";
        assert_eq!(refusal(&files, "/srv/cap/pg/target"), taken);
        let missing = "58P01 could not create directory \"/nonexistent/x\": No such file or directory";
        assert_eq!(refusal(&files, "/nonexistent/x"), missing);
        for full in ["/", "/srv/../tmp/..", "/srv/cap/pg/ts1"] {
            assert!(refusal(&files, full).ends_with("exists but is not empty"), "{full}");
        }
        let file = "/srv/cap/pg/target/base.tar";
        let not_one = format!("42809 could not access directory \"{file}\": Not a directory");
        assert_eq!(refusal(&files, file), not_one);
        let stored = files.stored();
        assert_eq!((stored.len(), stored[0].path.as_str(), stored[0].size), (1, file, 3));
        assert_eq!(stored[0].sha256, Some(Sha256::digest(b"abc").into()));
    }

    #[test]
    fn a_root_holds_everything() {
        let outside = tempfile::tempdir().expect("a directory");
        let scratch = tempfile::tempdir().expect("a directory");
        let root = scratch.path().join("root");
        fs::create_dir(&root).expect("a root");
        let files = Arc::new(ServerFiles::new(Some(root.clone()), &[], ServerVersion::V18));
        files.prepare("/backup").expect("a new directory");
        store(&files, "/backup/backup_manifest.tmp", b"{}").expect("stored");
        files.rename("/backup/backup_manifest.tmp", "/backup/backup_manifest").expect("renamed");
        assert_eq!(fs::read(root.join("backup/backup_manifest")).expect("on disk"), b"{}");
        assert_eq!(files.stored()[0].path, "/backup/backup_manifest");
        assert!(refusal(&files, "/backup").starts_with("58P02"));
        assert!(refusal(&files, "/tmp/backup").starts_with("58P01 could not create directory"));
        // Above the root is the root.
        files.prepare("/../../escaped").expect("below the root");
        assert!(root.join("escaped").is_dir() && !scratch.path().join("escaped").exists());
        // A link is no way out.
        symlink(outside.path(), root.join("link")).expect("a link");
        for path in ["/link", "/link/x", "/escaped/../link/y"] {
            assert!(refusal(&files, path).contains("could not access directory"), "{path}");
        }
        assert!(store(&files, "/link/file", b"x").is_err());
        symlink(outside.path().join("new"), root.join("escaped/file")).expect("a link");
        assert!(store(&files, "/escaped/file", b"x").is_err());
        assert_eq!(fs::read_dir(outside.path()).expect("a directory").count(), 0);
    }
}
