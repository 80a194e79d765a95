//! What is made: the data directory, the directories of tablespaces, and the manifest.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::manifest::{
    ChecksumAlgorithm, ManifestFile, ManifestWriter, WalRange, format_last_modified,
};

use super::tablespaces::Tablespace;
use super::{CombineObserver, CombineOptions};
use crate::disk::File;
use crate::error::ClientError;
use crate::tree::{Modes, Tree};

/// When so much of the manifest is there, it is written, in bytes.
const MANIFEST_PIECE: usize = 128 << 10;

/// Without this file no server starts. It gets its name last.
const CONTROL: &[u8] = b"global/pg_control";
const CONTROL_TMP: &[u8] = b"global/pg_control.tmp";
const MANIFEST: &[u8] = b"backup_manifest";
const MANIFEST_TMP: &[u8] = b"backup_manifest.tmp";

/// The directory that something is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Data,
    /// The tablespace with this number in the list.
    Tablespace(usize),
}

/// Where a file of the output is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    /// Below it.
    pub(crate) name: Vec<u8>,
    /// All of it, for messages.
    pub(crate) full: PathBuf,
}

struct ManifestFileWriter {
    writer: ManifestWriter,
    buffer: Vec<u8>,
    file: File,
    path: PathBuf,
}

impl ManifestFileWriter {
    fn flush(&mut self) -> Result<(), ClientError> {
        self.file.write_all(&self.buffer).map_err(ClientError::local("write file", &self.path))?;
        self.buffer.clear();
        Ok(())
    }
}

/// All that is made; nothing in a dry run. What was not published is removed when it is dropped.
#[derive(Default)]
pub(crate) struct Output {
    data: Option<Tree>,
    /// As many as there are tablespaces; nothing for those in place.
    tablespaces: Vec<Option<Tree>>,
    manifest: Option<ManifestFileWriter>,
    algorithm: Option<ChecksumAlgorithm>,
}

impl Output {
    /// Makes the directories, all of which must be empty if they exist, with the permissions of `last`.
    pub(crate) fn create(
        &mut self,
        options: &CombineOptions,
        last: &Path,
        tablespaces: &[Tablespace],
        observer: &mut dyn CombineObserver,
    ) -> Result<(), ClientError> {
        let metadata = std::fs::metadata(last).map_err(ClientError::local("stat file", last))?;
        let modes = Modes::new(metadata.permissions().mode() & 0o750 == 0o750);
        for directory in std::iter::once(&options.output).chain(tablespaces.iter().map(|one| &one.new)) {
            refuse_inside(directory, &options.inputs)?;
        }
        self.data = directory(&options.output, modes, options, observer)?;
        for tablespace in tablespaces {
            let tree = if tablespace.in_place { None } else { directory(&tablespace.new, modes, options, observer)? };
            self.tablespaces.push(tree);
        }
        Ok(())
    }

    /// Begins a manifest of this version, with checksums as `options` say.
    pub(crate) fn begin_manifest(
        &mut self,
        options: &CombineOptions,
        version: u64,
        system_identifier: Option<u64>,
    ) -> Result<(), ClientError> {
        self.algorithm = options.manifest;
        let (Some(data), Some(_)) = (&mut self.data, options.manifest) else { return Ok(()) };
        let file = data.create_file(MANIFEST_TMP)?;
        let writer = ManifestWriter::new(version, system_identifier, false);
        let path = options.output.join("backup_manifest");
        self.manifest = Some(ManifestFileWriter { writer, buffer: Vec::new(), file, path });
        Ok(())
    }

    /// Whether files have to be made, and not only the decision whether they could be.
    pub(crate) fn tree(&mut self, root: Root) -> Option<&mut Tree> {
        match root {
            Root::Data => self.data.as_mut(),
            Root::Tablespace(index) => self.tablespaces.get_mut(index)?.as_mut(),
        }
    }

    /// Makes the file at `place`; nothing in a dry run.
    pub(super) fn create_file(&mut self, place: &Place) -> Result<Option<File>, ClientError> {
        self.tree(place.root).map(|tree| tree.create_file(Self::working_name(place))).transpose()
    }

    /// Makes the file at `place` another name of `source`; false in a dry run.
    pub(super) fn hard_link(&mut self, place: &Place, source: &Path) -> std::io::Result<bool> {
        let Some(tree) = self.tree(place.root) else { return Ok(false) };
        tree.create_hard_link(Self::working_name(place), source).map(|()| true)
    }

    /// What the file at `place` is called until everything is there.
    pub(crate) fn working_name(place: &Place) -> &[u8] {
        if place.root == Root::Data && place.name == CONTROL { CONTROL_TMP } else { &place.name }
    }

    /// How files are checksummed for the manifest.
    pub(crate) fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm.unwrap_or(ChecksumAlgorithm::None)
    }

    /// Adds the file at `place`, called `path` there, to the manifest.
    pub(crate) fn list(
        &mut self,
        path: &[u8],
        place: &Place,
        checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
    ) -> Result<(), ClientError> {
        let name = Self::working_name(place).to_vec();
        let Some(full) = self.tree(place.root).map(|tree| tree.full(&name)) else { return Ok(()) };
        let Some(manifest) = &mut self.manifest else { return Ok(()) };
        let metadata = std::fs::symlink_metadata(&full).map_err(ClientError::local("stat file", &full))?;
        let last_modified = format_last_modified(metadata.mtime());
        let file = ManifestFile { path: path.to_vec(), size: metadata.len(), last_modified, checksum };
        manifest.writer.add_file(&file, &mut manifest.buffer);
        if manifest.buffer.len() >= MANIFEST_PIECE { manifest.flush() } else { Ok(()) }
    }

    /// Ends the manifest, forces everything to disk, and then gives the files their names that make the output a backup.
    pub(crate) fn publish(
        &mut self,
        options: &CombineOptions,
        ranges: &[WalRange],
        observer: &mut dyn CombineObserver,
    ) -> Result<(), ClientError> {
        let has_manifest = self.manifest.is_some();
        if let Some(manifest) = self.manifest.take() {
            let ManifestFileWriter { writer, mut buffer, mut file, path } = manifest;
            writer.finish(ranges, &mut buffer);
            file.write_all(&buffer).map_err(ClientError::local("write file", path))?;
        }
        let shown = options.output.display();
        let Some(data) = &mut self.data else {
            if options.sync.is_some() {
                observer.debug(&format!("would recursively fsync \"{shown}\""));
            }
            return Ok(());
        };
        let mut trees: Vec<&mut Tree> = self.tablespaces.iter_mut().flatten().collect();
        if let Some(method) = options.sync {
            observer.debug(&format!("recursively fsyncing \"{shown}\""));
            for tree in trees.iter_mut().map(|tree| &mut **tree).chain(std::iter::once(&mut *data)) {
                while !tree.sync_some(method)? {
                    options.check_canceled()?;
                }
            }
        }
        options.check_canceled()?;
        data.rename(CONTROL_TMP, CONTROL)?;
        if options.sync.is_some() {
            data.sync_directory(b"global")?;
        }
        if has_manifest {
            data.rename(MANIFEST_TMP, MANIFEST)?;
        }
        if options.sync.is_some() {
            data.sync_directory(b"")?;
        }
        data.keep();
        for tree in trees {
            tree.keep();
        }
        Ok(())
    }

    /// Tells what will be removed.
    pub(crate) fn tell_removal(&self, observer: &mut dyn CombineObserver) {
        for tree in self.tablespaces.iter().rev().flatten().chain(&self.data) {
            observer.removing(tree.path(), tree.existed());
        }
    }
}

/// `create_output_directory`.
fn directory(
    path: &Path,
    modes: Modes,
    options: &CombineOptions,
    observer: &mut dyn CombineObserver,
) -> Result<Option<Tree>, ClientError> {
    let shown = path.display();
    if options.dry_run {
        match std::fs::read_dir(path).map(Iterator::count) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                observer.debug(&format!("would create directory \"{shown}\""));
            }
            Err(error) => return Err(ClientError::local("access directory", path)(error)),
            Ok(1..) => {
                return Err(ClientError::Unusable(format!("directory \"{shown}\" exists but is not empty")));
            }
            Ok(0) => observer.debug(&format!("using existing directory \"{shown}\"")),
        }
        return Ok(None);
    }
    let what = if path.exists() { "using existing directory" } else { "creating directory" };
    let tree = Tree::create(path, modes, &options.disk)?;
    observer.debug(&format!("{what} \"{shown}\""));
    Ok(Some(tree))
}

/// An output within an input would change the input.
fn refuse_inside(directory: &Path, inputs: &[PathBuf]) -> Result<(), ClientError> {
    let absolute = std::path::absolute(directory).map_err(ClientError::local("access directory", directory))?;
    // What exists is followed; the rest cannot lead anywhere else.
    let resolved = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = resolved else { return Ok(()) };
    let real = real.join(absolute.strip_prefix(above).unwrap_or(Path::new("")));
    let inside = |input: &&PathBuf| input.canonicalize().is_ok_and(|input| real.starts_with(input));
    match inputs.iter().find(inside) {
        None => Ok(()),
        Some(input) => Err(ClientError::Unusable(format!(
            "output directory \"{}\" is inside input directory \"{}\"",
            directory.display(),
            input.display()
        ))),
    }
}
