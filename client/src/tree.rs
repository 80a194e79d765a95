//! A directory that is being filled, and that knows what it was filled with.
//!
//! Everything happens below handles of directories that were opened without following links, and every file is made anew, so
//! that nothing outside can be reached whatever the names are and whoever else works in the same place. What was made is
//! listed, and exactly that is removed again unless it is kept.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::{Disk, File};
use crate::error::ClientError;
use crate::options::SyncMethod;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// So many files are forced to disk before somebody else has a turn: on a slow disk each may take a good part of a second.
const SYNCED_AT_ONCE: usize = 8;

/// Permissions of what a backup makes: the server's, and no others whatever an archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modes {
    group: bool,
}

impl Modes {
    /// 0600 and 0700, or 0640 and 0750 if the server lets its group read (`data_directory_mode`).
    pub(crate) fn new(group: bool) -> Self {
        Self { group }
    }

    pub(crate) fn file(self) -> u32 {
        if self.group { 0o640 } else { 0o600 }
    }

    pub(crate) fn directory(self) -> u32 {
        if self.group { 0o750 } else { 0o700 }
    }
}

#[derive(Debug)]
enum Made {
    File(Vec<u8>),
    Directory(Vec<u8>),
    Link(Vec<u8>),
}

impl Made {
    fn path(&self) -> &[u8] {
        match self {
            Self::File(path) | Self::Directory(path) | Self::Link(path) => path,
        }
    }
}

/// A directory, and what was made in it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    modes: Modes,
    /// Directories that had to be made for it to exist, outermost first; the last is itself.
    new: Vec<PathBuf>,
    made: Vec<Made>,
    /// How many of these are on disk; nothing once all is.
    synced: Option<usize>,
    /// The directory in which something was last made: archives go from directory to directory.
    near: Option<(Vec<u8>, OwnedFd)>,
    keep: bool,
    disk: Arc<dyn Disk>,
}

impl Tree {
    /// Makes `path` and what is missing above it, or takes it if it exists and is empty.
    pub(crate) fn create(path: &Path, modes: Modes, disk: &Arc<dyn Disk>) -> Result<Self, ClientError> {
        let tree = Self::share(path, modes, disk)?;
        let entries = rustix::fs::Dir::read_from(&tree.root).map_err(ClientError::errno("access directory", path))?;
        for entry in entries {
            let entry = entry.map_err(ClientError::errno("read directory", path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(ClientError::Refused(format!("directory \"{}\" exists but is not empty", path.display())));
            }
        }
        Ok(tree)
    }

    /// Makes `path` and what is missing above it, or takes it as it is, whoever else works in it.
    pub(crate) fn share(path: &Path, modes: Modes, disk: &Arc<dyn Disk>) -> Result<Self, ClientError> {
        let mut new = Vec::new();
        let result = Self::create_listed(path, modes, disk, &mut new);
        if result.is_err() {
            for directory in new.iter().rev() {
                let _ = disk.change(directory, &mut || std::fs::remove_dir(directory));
            }
        }
        result
    }

    fn create_listed(
        path: &Path,
        modes: Modes,
        disk: &Arc<dyn Disk>,
        new: &mut Vec<PathBuf>,
    ) -> Result<Self, ClientError> {
        let mode = Mode::from_raw_mode(modes.directory());
        let missing = path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists());
        let missing: Vec<&Path> = missing.collect();
        for directory in missing.into_iter().rev() {
            match disk.change(directory, &mut || Ok(rustix::fs::mkdir(directory, mode)?)) {
                Ok(()) => new.push(directory.to_path_buf()),
                // `a/./b` and the like.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClientError::local("create directory", directory)(error)),
            }
        }
        // The last component may be a link that the user made; the emptiness of what it leads to is checked like any other.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(ClientError::errno("access directory", path))?;
        if modes.group && !new.is_empty() {
            rustix::fs::fchmod(&root, mode).map_err(ClientError::errno("set permissions of directory", path))?;
        }
        let new = std::mem::take(new);
        Ok(Self {
            root,
            path: path.to_path_buf(),
            modes,
            new,
            made: Vec::new(),
            synced: Some(0),
            near: None,
            keep: false,
            disk: Arc::clone(disk),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was there before.
    pub(crate) fn existed(&self) -> bool {
        self.new.is_empty()
    }

    /// Where `name` is, for messages.
    pub(crate) fn full(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    /// A tree of its own in the directory `name` of this one, for somebody else to fill.
    pub(crate) fn below(&self, name: &[u8]) -> Result<Self, ClientError> {
        let path = self.full(name);
        let root = self.walk(name).map_err(ClientError::errno("open directory", &path))?;
        let disk = Arc::clone(&self.disk);
        Ok(Self {
            root,
            path,
            modes: self.modes,
            new: Vec::new(),
            made: Vec::new(),
            synced: Some(0),
            near: None,
            keep: false,
            disk,
        })
    }

    /// Opens the directory `name` step by step, following no link.
    fn walk(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let mut current = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for component in name.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            current = rustix::fs::openat(&current, OsStr::from_bytes(component), DIRECTORY, Mode::empty())?;
        }
        Ok(current)
    }

    /// Does `work` in the directory that holds `name`, with the name in it.
    fn beside<T>(&mut self, name: &[u8], work: impl FnOnce(&OwnedFd, &OsStr) -> Result<T, Errno>) -> Result<T, Errno> {
        let (parent, leaf) = split(name);
        if self.near.as_ref().is_none_or(|(near, _)| near != parent) {
            self.near = Some((parent.to_vec(), self.walk(parent)?));
        }
        let (_, directory) = self.near.as_ref().ok_or(Errno::NOENT)?;
        work(directory, OsStr::from_bytes(leaf))
    }

    /// Does `work` as [`beside`](Self::beside) does it, if the disk lets it.
    fn change<T>(&mut self, name: &[u8], work: impl FnOnce(&OwnedFd, &OsStr) -> Result<T, Errno>) -> io::Result<T> {
        let (disk, full) = (Arc::clone(&self.disk), self.full(name));
        let mut work = Some(work);
        let mut made = None;
        disk.change(&full, &mut || {
            if let Some(work) = work.take() {
                made = Some(self.beside(name, work)?);
            }
            Ok(())
        })?;
        made.ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Makes a file that was not there.
    pub(crate) fn create_file(&mut self, name: &[u8]) -> Result<File, ClientError> {
        let mode = Mode::from_raw_mode(self.modes.file());
        let group = self.modes.group;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.change(name, |directory, leaf| {
            let file = rustix::fs::openat(directory, leaf, flags, mode)?;
            Ok((group.then(|| rustix::fs::fchmod(&file, mode)).transpose(), file))
        });
        let full = self.full(name);
        let (permissions, file) = made.map_err(ClientError::local("create file", &full))?;
        self.made.push(Made::File(name.to_vec()));
        permissions.map_err(ClientError::errno("set permissions of file", &full))?;
        Ok(File::new(file.into(), full, Arc::clone(&self.disk)))
    }

    /// Makes a directory that was not there.
    pub(crate) fn create_directory(&mut self, name: &[u8]) -> Result<(), ClientError> {
        let mode = Mode::from_raw_mode(self.modes.directory());
        let made = self.change(name, |directory, leaf| rustix::fs::mkdirat(directory, leaf, mode));
        let full = self.full(name);
        made.map_err(ClientError::local("create directory", &full))?;
        self.made.push(Made::Directory(name.to_vec()));
        if self.modes.group {
            let changed = self.walk(name).and_then(|directory| rustix::fs::fchmod(directory, mode));
            changed.map_err(ClientError::errno("set permissions of directory", full))?;
        }
        Ok(())
    }

    /// Opens a file that this tree made, to append to it.
    pub(crate) fn append_file(&mut self, name: &[u8]) -> Result<File, ClientError> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.beside(name, |directory, leaf| rustix::fs::openat(directory, leaf, flags, Mode::empty()));
        let full = self.full(name);
        let opened = opened.map_err(ClientError::errno("open file", &full))?;
        Ok(File::new(opened.into(), full, Arc::clone(&self.disk)))
    }

    /// Removes a file that this tree made.
    pub(crate) fn remove_file(&mut self, name: &[u8]) -> Result<(), ClientError> {
        let removed = self.change(name, |directory, leaf| rustix::fs::unlinkat(directory, leaf, AtFlags::empty()));
        removed.map_err(ClientError::local("remove file", self.full(name)))?;
        // What was made last goes first as a rule.
        if let Some(place) = self.made.iter().rposition(|made| matches!(made, Made::File(path) if path == name)) {
            self.made.remove(place);
        }
        Ok(())
    }

    /// Whether this tree made a file of this name.
    pub(crate) fn made_file(&self, name: &[u8]) -> bool {
        self.made.iter().any(|made| matches!(made, Made::File(path) if path == name))
    }

    /// Makes a directory unless this tree made it before.
    pub(crate) fn ensure_directory(&mut self, name: &[u8]) -> Result<(), ClientError> {
        let ours =
            self.made.iter().any(|made| matches!(made, Made::Directory(path) | Made::Link(path) if path == name));
        if ours { Ok(()) } else { self.create_directory(name) }
    }

    /// Makes a directory and those above it, unless they are there, made by whomever.
    pub(crate) fn share_directory(&mut self, name: &[u8]) -> Result<(), ClientError> {
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain([name.len()]) {
            let directory = name.get(..end).unwrap_or_default();
            match self.walk(directory) {
                Ok(_) => {}
                Err(Errno::NOENT) => match self.create_directory(directory) {
                    // Somebody else was faster.
                    Err(ClientError::Local { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                },
                Err(error) => return Err(ClientError::errno("open directory", self.full(directory))(error)),
            }
        }
        Ok(())
    }

    /// Makes a symbolic link that was not there.
    pub(crate) fn create_link(&mut self, name: &[u8], target: &Path) -> Result<(), ClientError> {
        let made = self.change(name, |directory, leaf| rustix::fs::symlinkat(target, directory, leaf));
        let full = self.full(name);
        made.map_err(ClientError::local("create symbolic link", full))?;
        self.made.push(Made::Link(name.to_vec()));
        Ok(())
    }

    /// Gives a file that is there already a name in this tree.
    pub(crate) fn create_hard_link(&mut self, name: &[u8], source: &Path) -> io::Result<()> {
        self.change(name, |directory, leaf| {
            rustix::fs::linkat(rustix::fs::CWD, source, directory, leaf, AtFlags::empty())
        })?;
        self.made.push(Made::File(name.to_vec()));
        Ok(())
    }

    /// Renames a file of this tree within its directory.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), ClientError> {
        let (_, leaf) = split(to);
        let leaf = OsStr::from_bytes(leaf);
        let renamed = self.change(from, |directory, old| rustix::fs::renameat(directory, old, directory, leaf));
        let full = self.full(from);
        renamed.map_err(ClientError::local("rename file", full))?;
        if let Some(made) = self.made.iter_mut().rev().find(|made| made.path() == from) {
            *made = Made::File(to.to_vec());
        }
        Ok(())
    }

    /// Forces every file and directory that was made to disk, then the directory itself and those that were made above it: some
    /// of them with each call. Whether that was the last is returned.
    pub(crate) fn sync_some(&mut self, method: SyncMethod) -> Result<bool, ClientError> {
        let Some(synced) = self.synced else { return Ok(true) };
        if method == SyncMethod::Syncfs {
            let synced = self.disk.sync(&self.path, &mut || Ok(rustix::fs::syncfs(&self.root)?));
            synced.map_err(ClientError::local("synchronize file system for file", &self.path))?;
            // What was made above it may lie on another file system.
        } else {
            let made = std::mem::take(&mut self.made);
            let mut some = made.iter().skip(synced).take(SYNCED_AT_ONCE);
            let result = some.try_for_each(|entry| self.sync_one(entry));
            self.made = made;
            result?;
            self.synced = Some(synced + SYNCED_AT_ONCE);
            if synced + SYNCED_AT_ONCE < self.made.len() {
                return Ok(false);
            }
        }
        self.sync_root()?;
        self.synced = None;
        Ok(true)
    }

    fn sync_one(&mut self, entry: &Made) -> Result<(), ClientError> {
        let (disk, full) = (Arc::clone(&self.disk), self.full(entry.path()));
        let synced = match entry {
            Made::Link(_) => Ok(()),
            Made::Directory(name) => disk.sync(&full, &mut || Ok(self.walk(name).and_then(rustix::fs::fsync)?)),
            Made::File(name) => disk.sync(&full, &mut || {
                let synced = self.beside(name, |directory, leaf| {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::fsync(rustix::fs::openat(directory, leaf, flags, Mode::empty())?)
                });
                Ok(synced?)
            }),
        };
        synced.map_err(ClientError::local("fsync file", full))
    }

    /// Forces the names in the directory `name` to disk.
    pub(crate) fn sync_directory(&self, name: &[u8]) -> Result<(), ClientError> {
        let full = self.full(name);
        let synced = self.disk.sync(&full, &mut || Ok(self.walk(name).and_then(rustix::fs::fsync)?));
        synced.map_err(ClientError::local("fsync file", full))
    }

    fn sync_root(&self) -> Result<(), ClientError> {
        let synced = self.disk.sync(&self.path, &mut || Ok(rustix::fs::fsync(&self.root)?));
        synced.map_err(ClientError::local("fsync file", &self.path))?;
        for directory in &self.new {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let synced = self.disk.sync(parent, &mut || std::fs::File::open(parent)?.sync_all());
            synced.map_err(ClientError::local("fsync file", parent))?;
        }
        Ok(())
    }

    /// Leaves what was made where it is.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes what was made, and nothing else.
    fn remove(&mut self) {
        let made = std::mem::take(&mut self.made);
        for entry in made.iter().rev() {
            let flags = if matches!(entry, Made::Directory(_)) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // What somebody else put there stays, and so does what holds it.
            let _ = self.change(entry.path(), |directory, leaf| rustix::fs::unlinkat(directory, leaf, flags));
        }
        self.near = None;
        for directory in self.new.iter().rev() {
            let _ = self.disk.change(directory, &mut || std::fs::remove_dir(directory));
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.keep {
            self.remove();
        }
    }
}

/// The directory part and the last component.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (name.get(..slash).unwrap_or_default(), name.get(slash + 1..).unwrap_or_default()),
        None => (&[], name),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::disk::RealDisk;

    fn owner() -> Modes {
        Modes::new(false)
    }

    fn disk() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o7777
    }

    #[test]
    fn removes_exactly_what_it_made() {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = scratch.path().join("a/b");
        let mut tree = Tree::create(&root, owner(), &disk()).expect("a tree");
        tree.create_directory(b"x").expect("a directory");
        tree.create_file(b"x/f").expect("a file");
        tree.create_link(b"l", Path::new("/nowhere")).expect("a link");
        std::fs::write(scratch.path().join("a/foreign"), "").expect("a foreign file");
        drop(tree);
        assert!(!root.exists());
        assert!(scratch.path().join("a/foreign").exists());
    }

    #[test]
    fn an_existing_empty_directory_stays() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut tree = Tree::create(scratch.path(), owner(), &disk()).expect("a tree");
        assert!(tree.existed());
        tree.create_file(b"f").expect("a file");
        drop(tree);
        assert_eq!(std::fs::read_dir(scratch.path()).expect("still there").count(), 0);
    }

    #[test]
    fn a_directory_in_use_is_refused_and_untouched() {
        let scratch = tempfile::tempdir().expect("a directory");
        std::fs::write(scratch.path().join("f"), "old").expect("a file");
        let error = Tree::create(scratch.path(), owner(), &disk()).expect_err("not empty");
        assert!(error.to_string().ends_with("exists but is not empty"), "{error}");
        assert_eq!(std::fs::read_to_string(scratch.path().join("f")).expect("untouched"), "old");
    }

    #[test]
    fn never_writes_through_a_link() {
        let scratch = tempfile::tempdir().expect("a directory");
        let outside = scratch.path().join("outside");
        std::fs::create_dir(&outside).expect("a directory");
        let mut tree = Tree::create(&scratch.path().join("t"), owner(), &disk()).expect("a tree");
        symlink(&outside, tree.path().join("l")).expect("somebody's link");
        symlink(outside.join("f"), tree.path().join("m")).expect("somebody's link");
        assert!(tree.create_file(b"l/f").is_err());
        assert!(tree.create_directory(b"l/d").is_err());
        assert!(tree.create_file(b"m").is_err());
        assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 0);
    }

    #[test]
    fn permissions_are_the_servers() {
        let scratch = tempfile::tempdir().expect("a directory");
        for (group, file, directory) in [(false, 0o600, 0o700), (true, 0o640, 0o750)] {
            let root = scratch.path().join(group.to_string());
            let mut tree = Tree::create(&root, Modes::new(group), &disk()).expect("a tree");
            tree.create_directory(b"d").expect("a directory");
            tree.create_file(b"d/f").expect("a file").write_all(b"x").expect("written");
            assert_eq!((mode(&root), mode(&root.join("d")), mode(&root.join("d/f"))), (directory, directory, file));
        }
    }

    #[test]
    fn keeps_what_is_published() {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = scratch.path().join("t");
        let mut tree = Tree::create(&root, owner(), &disk()).expect("a tree");
        tree.create_file(b"f.tmp").expect("a file");
        tree.rename(b"f.tmp", b"f").expect("renamed");
        while !tree.sync_some(SyncMethod::Fsync).expect("synced") {}
        tree.keep();
        drop(tree);
        assert!(root.join("f").exists());
    }
}
