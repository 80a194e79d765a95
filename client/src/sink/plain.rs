//! A directory that a server can start in.
//!
//! `global/pg_control` is written as `global/pg_control.tmp` and the manifest as `backup_manifest.tmp`. Both get their names
//! when everything else is on disk, the manifest last: without the former no server starts, without the latter nobody takes
//! the directory for a backup. So a backup of a server without manifests is protected as well.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind};
use bytes::Bytes;

use super::wal::WalDirectory;
use super::{Directory, Sink, SinkSettings, WalFiles, recovery};
use crate::archive_check::{Kind, Member};
use crate::disk::File;
use crate::error::{ClientError, shown};
use crate::mutation::Mutation;
use crate::options::{UnmappedTablespace, WalMethod};
use crate::receive::Tablespace;
use crate::tree::Tree;

const CONTROL: &[u8] = b"global/pg_control";
pub(crate) const CONTROL_UNPUBLISHED: &[u8] = b"global/pg_control.tmp";
const MANIFEST: &[u8] = b"backup_manifest";
const MANIFEST_UNPUBLISHED: &[u8] = b"backup_manifest.tmp";

/// A data directory and the directories of its tablespaces.
pub(crate) struct Plain {
    // Dropped in this order: what lies inside of something else goes first.
    waldir: Option<Tree>,
    /// By index in the list; none for the base directory and for tablespaces inside of it.
    tablespaces: Vec<Option<Tree>>,
    base: Tree,
    settings: SinkSettings,
    current: usize,
    file: Option<(File, PathBuf)>,
    manifest: bool,
}

impl Plain {
    /// Makes the directories, or takes them if they are there and empty.
    pub(crate) fn open(directory: &Path, waldir: Option<&Path>, settings: SinkSettings) -> Result<Self, ClientError> {
        if let Some(waldir) = waldir
            && !waldir.is_absolute()
        {
            return Err(ClientError::Refused("WAL directory location must be an absolute path".to_owned()));
        }
        if settings.mapping.iter().any(|(old, new)| !old.is_absolute() || !new.is_absolute()) {
            return Err(ClientError::Refused("tablespace mapping needs absolute paths".to_owned()));
        }
        let base = Tree::create(directory, settings.modes, &settings.disk)?;
        let waldir = waldir.map(|waldir| Tree::create(waldir, settings.modes, &settings.disk)).transpose()?;
        Ok(Self { waldir, tablespaces: Vec::new(), base, settings, current: 0, file: None, manifest: false })
    }

    fn wal_name(&self) -> &'static str {
        self.settings.version.wal_directory()
    }

    /// Where a tablespace goes.
    fn place(&self, tablespace: &Tablespace) -> Result<PathBuf, ClientError> {
        let location = canonical(Path::new(std::ffi::OsStr::from_bytes(&tablespace.location)));
        let mapped = self.settings.mapping.iter().find(|(old, _)| canonical(old) == location);
        match (mapped, self.settings.unmapped) {
            (Some((_, new)), _) => Ok(canonical(new)),
            (None, UnmappedTablespace::ServerLocation) => Ok(location),
            (None, UnmappedTablespace::Refuse) => Err(ClientError::Refused(format!(
                "no tablespace mapping was given for \"{}\", the server's own location",
                shown(&tablespace.location)
            ))),
        }
    }

    /// Makes the directories of the tablespaces. None may be, hold, or lie in another directory of the backup.
    fn make_tablespaces(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        let absolute = |path: &Path| std::path::absolute(path).map(|path| canonical(&path));
        let mut taken =
            vec![absolute(self.base.path()).map_err(ClientError::local("access directory", self.base.path()))?];
        taken.extend(self.waldir.as_ref().map(|tree| canonical(tree.path())));
        for tablespace in tablespaces {
            if tablespace.oid.is_none() || tablespace.in_place() {
                self.tablespaces.push(None);
                continue;
            }
            let place = self.place(tablespace)?;
            if let Some(other) = taken.iter().find(|other| other.starts_with(&place) || place.starts_with(other)) {
                let (place, other) = (place.display(), other.display());
                return Err(ClientError::Refused(format!(
                    "tablespace directory \"{place}\" overlaps with \"{other}\""
                )));
            }
            self.tablespaces.push(Some(Tree::create(&place, self.settings.modes, &self.settings.disk)?));
            taken.push(place);
        }
        Ok(())
    }

    /// The tree that a member goes to, and its name there.
    fn route<'a>(&'a mut self, member: &'a Member) -> (&'a mut Tree, &'a [u8]) {
        if let Some(Some(tree)) = self.tablespaces.get_mut(self.current) {
            return (tree, &member.name);
        }
        let wal = self.settings.version.wal_directory().as_bytes();
        let in_wal = member.path.strip_prefix(wal).and_then(|rest| rest.strip_prefix(b"/"));
        match (&mut self.waldir, in_wal) {
            (Some(waldir), Some(name)) => (waldir, name),
            _ => (&mut self.base, &member.path),
        }
    }

    /// The tree of the tablespace with this index, or of the data directory: also for those that are inside of it.
    pub(crate) fn tree(&mut self, tablespace: Option<usize>) -> &mut Tree {
        match tablespace.and_then(|index| self.tablespaces.get_mut(index)) {
            Some(Some(tree)) => tree,
            _ => &mut self.base,
        }
    }

    /// Where the tablespace with this index is; none if it is inside the data directory.
    pub(crate) fn location(&self, tablespace: usize) -> Option<&Path> {
        self.tablespaces.get(tablespace)?.as_ref().map(Tree::path)
    }

    /// Makes the link of a tablespace.
    pub(crate) fn link(&mut self, name: &[u8], tablespace: usize) -> Result<(), ClientError> {
        let Some(target) = self.location(tablespace).map(Path::to_path_buf) else {
            return Err(ClientError::Incomplete("a link to an unknown tablespace".to_owned()));
        };
        self.base.create_link(name, &target)
    }

    fn trees(&mut self) -> impl Iterator<Item = &mut Tree> {
        self.waldir.iter_mut().chain(self.tablespaces.iter_mut().flatten()).chain([&mut self.base])
    }

    fn write_recovery(&mut self) -> Result<(), ClientError> {
        let Some(recovery) = &self.settings.recovery else { return Ok(()) };
        let version = self.settings.version;
        let name = recovery::settings_file(version).as_bytes();
        let text = recovery::settings(recovery, version);
        let mut file =
            if self.base.made_file(name) { self.base.append_file(name)? } else { self.base.create_file(name)? };
        if !version.has_recovery_signal() {
            // recovery.conf is all about how this server was made.
            file.set_len(0).map_err(ClientError::local("truncate file", self.base.full(name)))?;
        }
        file.write_all(text.as_bytes()).map_err(ClientError::local("write to file", self.base.full(name)))?;
        if version.has_recovery_signal() && !self.base.made_file(b"standby.signal") {
            self.base.create_file(b"standby.signal")?;
        }
        Ok(())
    }
}

impl Sink for Plain {
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        self.make_tablespaces(tablespaces)?;
        let wal = self.wal_name().as_bytes();
        if let Some(waldir) = &self.waldir {
            let target = canonical(waldir.path());
            self.base.create_link(wal, &target)?;
        } else if self.settings.wal == WalMethod::Stream {
            self.base.ensure_directory(wal)?;
        }
        if tablespaces.iter().any(Tablespace::in_place) {
            self.base.ensure_directory(b"pg_tblspc")?;
            for tablespace in tablespaces.iter().filter(|tablespace| tablespace.in_place()) {
                self.base.ensure_directory(&tablespace.location)?;
            }
        }
        Ok(())
    }

    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError> {
        let tree = if let Some(waldir) = &mut self.waldir {
            waldir.ensure_directory(b"archive_status")?;
            waldir.below(b"")?
        } else {
            let wal = self.wal_name();
            self.base.ensure_directory(format!("{wal}/archive_status").as_bytes())?;
            self.base.below(wal.as_bytes())?
        };
        Ok(Box::new(WalDirectory::new(tree, self.settings.sync_method)))
    }

    fn begin_archive(&mut self, tablespace: usize) -> Result<(), ClientError> {
        self.current = tablespace;
        Ok(())
    }

    fn begin_member(&mut self, header: &MemberHeader, member: &Member) -> Result<(), ClientError> {
        match member.kind {
            Kind::Directory => {
                // These may have been made before their member came: by us, or as a link of ours.
                let early =
                    member.path.starts_with(self.wal_name().as_bytes()) || member.path.starts_with(b"pg_tblspc");
                let (tree, name) = self.route(member);
                if early { tree.ensure_directory(name) } else { tree.create_directory(name) }
            }
            Kind::File { .. } => {
                let (tree, name) = self.route(member);
                let name = if name == CONTROL { CONTROL_UNPUBLISHED } else { name };
                let file = tree.create_file(name)?;
                self.file = Some((file, tree.full(name)));
                Ok(())
            }
            Kind::Link { tablespace } => {
                if let (true, MemberKind::Symlink { target }) =
                    (self.settings.weakness.is(Mutation::TrustsLinks), &header.kind)
                {
                    return self.base.create_link(&member.path, Path::new(std::ffi::OsStr::from_bytes(target)));
                }
                self.link(&member.path, tablespace)
            }
        }
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| ClientError::Local {
            doing: "write to file",
            path: path.clone(),
            source,
        })
    }

    fn end_member(&mut self) -> Result<(), ClientError> {
        self.file = None;
        Ok(())
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError> {
        self.write_recovery()?;
        if let Some(manifest) = manifest {
            let mut file = self.base.create_file(MANIFEST_UNPUBLISHED)?;
            file.write_all(manifest)
                .map_err(ClientError::local("write to file", self.base.full(MANIFEST_UNPUBLISHED)))?;
            self.manifest = true;
        }
        Ok(())
    }

    fn sync_some(&mut self) -> Result<bool, ClientError> {
        let method = self.settings.sync_method;
        for tree in self.trees() {
            if !tree.sync_some(method)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn profile(&mut self, text: &[u8], listed: bool) -> Result<(), ClientError> {
        for (name, content) in super::profile_files(text, listed) {
            let mut file = self.base.create_file(name.as_bytes())?;
            let full = self.base.full(name.as_bytes());
            file.write_all(&content).map_err(ClientError::local("write to file", full))?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), ClientError> {
        self.base.rename(CONTROL_UNPUBLISHED, CONTROL)?;
        if self.settings.sync {
            self.base.sync_directory(b"global")?;
        }
        if self.manifest {
            self.base.rename(MANIFEST_UNPUBLISHED, MANIFEST)?;
        }
        if self.settings.sync {
            self.base.sync_directory(b"")?;
        }
        self.keep();
        Ok(())
    }

    fn directory(&self) -> Option<Directory> {
        Some(Directory { path: self.base.path().to_path_buf(), existed: self.base.existed() })
    }

    fn keep(&mut self) {
        self.trees().for_each(Tree::keep);
    }
}

/// The path without doubled, trailing and `.` components, as `canonicalize_path` makes it.
fn canonical(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstop_protocol::version::ServerVersion;

    use super::*;
    use crate::clock::FixedClock;
    use crate::compression::ArchiveCompression;
    use crate::disk::RealDisk;
    use crate::mutation::Weakness;
    use crate::options::SyncMethod;
    use crate::tree::Modes;

    fn settings(mapping: &[(&str, &Path)], unmapped: UnmappedTablespace) -> SinkSettings {
        SinkSettings {
            version: ServerVersion::V15,
            modes: Modes::new(false),
            wal: WalMethod::None,
            mapping: mapping.iter().map(|(old, new)| (PathBuf::from(old), new.to_path_buf())).collect(),
            unmapped,
            recovery: None,
            compression: ArchiveCompression::None,
            sync: true,
            sync_method: SyncMethod::Fsync,
            clock: Arc::new(FixedClock::EPOCH),
            disk: Arc::new(RealDisk),
            weakness: Weakness::NONE,
        }
    }

    fn list(location: &str) -> Vec<Tablespace> {
        vec![
            Tablespace { oid: Some(5), location: location.into(), size: None },
            Tablespace { oid: None, location: Vec::new(), size: None },
        ]
    }

    #[test]
    fn a_server_does_not_choose_where_files_are_made() {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = scratch.path().join("data");
        let mut plain = Plain::open(&root, None, settings(&[], UnmappedTablespace::Refuse)).expect("a sink");
        let elsewhere = scratch.path().join("elsewhere");
        let error = plain.prepare(&list(&elsewhere.display().to_string())).expect_err("unmapped");
        assert!(error.to_string().starts_with("no tablespace mapping was given for"), "{error}");
        assert!(!elsewhere.exists());
    }

    #[test]
    fn tablespaces_keep_apart() {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = scratch.path().join("data");
        for inside in ["", "ts", "ts/deeper"] {
            let place = root.join(inside);
            let settings = settings(&[("/srv//ts/", &place)], UnmappedTablespace::Refuse);
            let mut plain = Plain::open(&root, None, settings).expect("a sink");
            assert!(plain.prepare(&list("/srv/ts")).is_err(), "{inside}");
        }
        let settings = settings(&[("/srv/ts", scratch.path())], UnmappedTablespace::Refuse);
        assert!(Plain::open(&root, None, settings).expect("a sink").prepare(&list("/srv/ts")).is_err());
        assert!(!root.exists());
    }

    #[test]
    fn mappings_compare_as_paths() {
        let scratch = tempfile::tempdir().expect("a directory");
        let place = scratch.path().join("ts");
        let settings = settings(&[("/srv//ts/", &place)], UnmappedTablespace::Refuse);
        let mut plain = Plain::open(&scratch.path().join("data"), None, settings).expect("a sink");
        plain.prepare(&list("/srv/./ts")).expect("mapped");
        assert!(place.is_dir());
        drop(plain);
        assert!(!place.exists());
    }
}
