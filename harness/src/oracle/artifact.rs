//! What a client left, read without believing it: plain directories and tar archives as one tree of names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::profile;
use tempfile::TempDir;

use super::unpack;

/// A name as it stands in a manifest: relative, with `/`, tablespaces below `pg_tblspc/<oid>/`. Not necessarily UTF-8.
pub type MemberPath = Vec<u8>;

/// Directories are walked no deeper than this: nothing that PostgreSQL writes comes near it.
const MAX_DEPTH: usize = 64;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A regular file, and where its bytes are.
    File(Content),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(PathBuf),
    /// A socket, a fifo, a device, a hard link.
    Other(&'static str),
}

/// Bytes of a file on disk: a whole file, or a member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    path: PathBuf,
    offset: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Content {
    /// A reader of exactly these bytes.
    pub fn open(&self) -> io::Result<impl Read + use<>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.size))
    }

    /// Its first `size` bytes, if it has so many.
    pub fn beginning(&self, size: u64) -> Option<Self> {
        (size <= self.size).then(|| Self { size, ..self.clone() })
    }

    /// All of it, if it is not longer than `limit`.
    pub fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} bytes, at most {limit} expected", self.size),
            ));
        }
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The tree that a client left.
#[derive(Debug, Default)]
pub struct Artifact {
    /// Everything but the manifest.
    pub items: BTreeMap<MemberPath, Item>,
    /// `backup_manifest`, if it was published.
    pub manifest: Option<Content>,
    /// Permission bits, with set-user-ID and its like, of the files and directories in a directory; empty if archives were
    /// stored.
    pub modes: BTreeMap<MemberPath, u32>,
    /// Whether the client stored archives instead of a directory.
    pub is_tar: bool,
    /// What is wrong with the form itself: unreadable archives, duplicate members, missing trailers.
    pub problems: Vec<String>,
    /// Where compressed archives were unpacked.
    unpacked: Option<TempDir>,
}

impl Artifact {
    /// Reads what lies in `target`. A directory that holds `*.tar` files, compressed or not, and no `PG_VERSION` is a backup in tar format.
    pub fn load(target: &Path) -> Self {
        let mut artifact = Self::default();
        let archives = archives_in(target);
        artifact.is_tar = !archives.is_empty() && !target.join("PG_VERSION").exists();
        if artifact.is_tar {
            for (prefix, path) in archives {
                artifact.load_archive(&prefix, &path);
            }
            // Lies beside the archives.
            for name in [profile::FILE_NAME, profile::CHECKSUM_FILE_NAME] {
                let found = whole_file(&target.join(name)).map(|content| (name.into(), Item::File(content)));
                artifact.items.extend(found);
            }
        } else if let Err(error) = artifact.walk(target, &[], 0) {
            artifact.problems.push(format!("{}: {error}", target.display()));
        }
        artifact.manifest = match artifact.items.remove(&b"backup_manifest"[..]) {
            Some(Item::File(content)) => Some(content),
            _ => whole_file(&target.join("backup_manifest")),
        };
        artifact
    }

    /// Whether nothing at all was left: no name but empty directories.
    pub fn is_empty(&self) -> bool {
        self.manifest.is_none() && self.items.values().all(|item| *item == Item::Directory)
    }

    /// The regular file under `path`.
    pub fn file(&self, path: &str) -> Option<&Content> {
        match self.items.get(path.as_bytes()) {
            Some(Item::File(content)) => Some(content),
            _ => None,
        }
    }

    fn walk(&mut self, directory: &Path, prefix: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("more than {MAX_DEPTH} directories deep")));
        }
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let mut name = prefix.to_vec();
            name.extend_from_slice(entry.file_name().as_bytes());
            let path = entry.path();
            let kind = entry.file_type()?;
            let item = if kind.is_symlink() {
                let target = fs::read_link(&path)?;
                // Tablespaces and a WAL directory elsewhere belong to the backup; no other link does.
                let followed =
                    prefix == b"pg_tblspc/" || (prefix.is_empty() && (name == b"pg_wal" || name == b"pg_xlog"));
                if followed && path.is_dir() {
                    self.walk(&path, &[&name[..], b"/"].concat(), depth + 1)?;
                }
                Item::Symlink(target)
            } else if kind.is_dir() {
                self.walk(&path, &[&name[..], b"/"].concat(), depth + 1)?;
                Item::Directory
            } else if kind.is_file() {
                Item::File(Content { size: entry.metadata()?.len(), path, offset: 0 })
            } else {
                Item::Other("special file")
            };
            if matches!(item, Item::File(_) | Item::Directory) {
                self.modes.insert(name.clone(), entry.metadata()?.permissions().mode() & 0o7777);
            }
            self.items.insert(name, item);
        }
        Ok(())
    }

    fn load_archive(&mut self, prefix: &[u8], path: &Path) {
        if let Err(error) = self.try_load_archive(prefix, path) {
            self.problems.push(format!("{}: {error}", file_name(path)));
        }
    }

    /// The archive at `path`, unpacked if it is compressed.
    fn plain_archive(&mut self, path: &Path) -> io::Result<PathBuf> {
        if unpack::compression(path).is_none() {
            return Ok(path.to_owned());
        }
        let name = file_name(path);
        if self.unpacked.is_none() {
            self.unpacked = Some(tempfile::Builder::new().prefix("backstop-").tempdir()?);
        }
        let to = self.unpacked.as_ref().map(|directory| directory.path().join(&name)).unwrap_or_default();
        unpack::unpack(path, &to)?;
        Ok(to)
    }

    fn try_load_archive(&mut self, prefix: &[u8], path: &Path) -> io::Result<()> {
        let path = &self.plain_archive(path)?;
        let length = fs::metadata(path)?.len();
        let mut archive = tar::Archive::new(File::open(path)?);
        let mut end_of_members = 0;
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let raw = entry.path_bytes();
            let plain = raw.strip_prefix(b"./").unwrap_or(&raw);
            let name = [prefix, plain.strip_suffix(b"/").unwrap_or(plain)].concat();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            end_of_members = offset + size.next_multiple_of(512);
            let item = match entry.header().entry_type() {
                tar::EntryType::Regular => Item::File(Content { path: path.to_owned(), offset, size }),
                tar::EntryType::Directory => Item::Directory,
                tar::EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    Item::Symlink(PathBuf::from(std::ffi::OsString::from_vec(target)))
                }
                _ => Item::Other("neither file nor directory nor symbolic link"),
            };
            let repeated_directory = item == Item::Directory && self.items.get(&name) == Some(&Item::Directory);
            if self.items.insert(name.clone(), item).is_some() && !repeated_directory {
                self.problems.push(format!("{}: duplicate member \"{}\"", file_name(path), name.escape_ascii()));
            }
        }
        self.check_trailer(path, length, end_of_members)
    }

    /// Two zero blocks must follow the last member, and nothing else.
    fn check_trailer(&mut self, path: &Path, length: u64, end_of_members: u64) -> io::Result<()> {
        let mut problem = |text: String| self.problems.push(format!("{}: {text}", file_name(path)));
        if length < end_of_members {
            problem(format!("ends inside its last member, at byte {length} of {end_of_members}"));
        } else if length - end_of_members < 1024 {
            problem(format!(
                "ends with {} bytes after its last member instead of two zero blocks",
                length - end_of_members
            ));
        } else {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(end_of_members))?;
            let mut rest = file.take(length - end_of_members);
            let mut block = [0; 8192];
            loop {
                let read = rest.read(&mut block)?;
                if read == 0 {
                    return Ok(());
                }
                if block.iter().take(read).any(|byte| *byte != 0) {
                    problem(format!("has data after its end at byte {end_of_members}"));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The archives in a directory, each with the prefix that its members have in the backup.
fn archives_in(target: &Path) -> Vec<(Vec<u8>, PathBuf)> {
    let Ok(entries) = fs::read_dir(target) else { return Vec::new() };
    let mut archives: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let stem = unpack::stem(path.file_name()?.to_str()?)?.to_owned();
            let prefix = match stem.as_str() {
                "base" => String::new(),
                "pg_wal" | "pg_xlog" => format!("{stem}/"),
                oid => format!("pg_tblspc/{oid}/"),
            };
            Some((prefix.into_bytes(), path))
        })
        .collect();
    archives.sort();
    archives
}

fn whole_file(path: &Path) -> Option<Content> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.is_file().then(|| Content { path: path.to_owned(), offset: 0, size: metadata.len() })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_cksum();
        header
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            builder.append(&header(name, content.len() as u64), *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn plain_and_tar_read_alike() {
        let plain = tempfile::tempdir().unwrap();
        fs::create_dir_all(plain.path().join("base/5")).unwrap();
        fs::write(plain.path().join("base/5/1259"), b"pages").unwrap();
        fs::write(plain.path().join("PG_VERSION"), b"18\n").unwrap();
        let packed = tempfile::tempdir().unwrap();
        let members = [("PG_VERSION", &b"18\n"[..]), ("base/5/1259", b"pages")];
        fs::write(packed.path().join("base.tar"), archive(&members)).unwrap();

        for (target, is_tar) in [(plain.path(), false), (packed.path(), true)] {
            let artifact = Artifact::load(target);
            assert_eq!(artifact.is_tar, is_tar);
            assert_eq!(artifact.problems, Vec::<String>::new());
            assert_eq!(artifact.file("base/5/1259").unwrap().read(100).unwrap(), b"pages");
        }
    }

    #[test]
    fn the_form_of_an_archive_is_judged() {
        let problems = |bytes: &[u8]| {
            let target = tempfile::tempdir().unwrap();
            fs::write(target.path().join("base.tar"), bytes).unwrap();
            Artifact::load(target.path()).problems.join("\n")
        };
        let whole = archive(&[("a", b"1"), ("b", b"2")]);
        assert_eq!(problems(&whole), "");
        insta::assert_snapshot!(problems(&whole[..whole.len() - 1024]), @"base.tar: ends with 0 bytes after its last member instead of two zero blocks");
        insta::assert_snapshot!(problems(&[&whole[..], &[7; 512]].concat()), @"base.tar: has data after its end at byte 2048");
        insta::assert_snapshot!(problems(&archive(&[("a", b"1"), ("a", b"2")])), @r#"base.tar: duplicate member "a""#);
    }

    #[test]
    fn nothing_is_empty_and_a_missing_directory_too() {
        let parent = tempfile::tempdir().unwrap();
        assert!(Artifact::load(&parent.path().join("never made")).is_empty());
        fs::create_dir_all(parent.path().join("target/base/1")).unwrap();
        assert!(Artifact::load(&parent.path().join("target")).is_empty());
        fs::write(parent.path().join("target/PG_VERSION"), b"18\n").unwrap();
        assert!(!Artifact::load(&parent.path().join("target")).is_empty());
    }
}
