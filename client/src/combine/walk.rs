//! Everything in the last input, file by file.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::incremental;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};

use super::chain::{Chain, Input};
use super::incremental::may_be_in;
use super::output::{Output, Place, Root};
use super::steps::{Content, Said, Step, take};
use super::tablespaces::{Tablespace, parse_oid};
use super::{CombineObserver, CombineOptions, label};
use crate::error::{ClientError, shown};

/// So many files are found before they are made: it bounds what is kept of them, and keeps every core busy.
const STEPS_AT_ONCE: usize = 2048;

/// Files that may be changed after the manifest was made, when the backup is.
const CHANGED_LATER: [&[u8]; 3] = [b"postgresql.auto.conf", b"recovery.signal", b"standby.signal"];

/// Whether a file must be what its manifest says.
pub(crate) fn relied_on(path: &[u8]) -> bool {
    !CHANGED_LATER.contains(&path)
}

/// A path below a directory.
pub(crate) fn join(directory: &Path, name: &[u8]) -> PathBuf {
    if name.is_empty() { directory.to_path_buf() } else { directory.join(OsStr::from_bytes(name)) }
}

/// The data directory, or a tablespace.
struct Area {
    input: PathBuf,
    output: PathBuf,
    root: Root,
    /// What stands before names in `root`.
    prefix: Vec<u8>,
    /// What stands before names in manifests: `pg_tblspc/16389/`.
    listed: Vec<u8>,
    tablespace: bool,
}

pub(super) struct Walk<'a> {
    options: &'a CombineOptions,
    chain: &'a Chain,
    last: &'a Input,
    output: &'a mut Output,
    observer: &'a mut dyn CombineObserver,
    /// Which files of the last input's manifest were there.
    found: Vec<bool>,
    /// What was found and is not done yet. Directories exist already.
    steps: Vec<Step<'a>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        options: &'a CombineOptions,
        chain: &'a Chain,
        output: &'a mut Output,
        observer: &'a mut dyn CombineObserver,
    ) -> Result<Self, ClientError> {
        let last = chain.last()?;
        let found = vec![false; last.manifest().map_or(0, |manifest| manifest.files.len())];
        Ok(Self { options, chain, last, output, observer, found, steps: Vec::new() })
    }

    /// Makes the label, then all that is in the last input.
    pub(super) fn everything(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        self.label()?;
        let walked = self.areas(tablespaces);
        // What was found before a directory that could not be read or made comes before it, with its own problems.
        self.take_steps()?;
        walked?;
        self.check_found()
    }

    /// The data directory, then the tablespaces.
    fn areas(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        let input = self.last.directory.clone();
        self.debug(format!("processing backup directory \"{}\"", input.display()));
        let output = self.options.output.clone();
        let (prefix, listed) = (Vec::new(), Vec::new());
        let data = Area { input, output, root: Root::Data, prefix, listed, tablespace: false };
        self.directory(&data, b"")?;
        for (index, tablespace) in tablespaces.iter().enumerate() {
            self.tablespace(index, tablespace)?;
        }
        Ok(())
    }

    fn debug(&mut self, text: String) {
        if self.observer.debugging() {
            self.steps.push(Step::Say(Said::Debug(text)));
        }
    }

    fn take_steps(&mut self) -> Result<(), ClientError> {
        take(&std::mem::take(&mut self.steps), self.chain, self.options, self.output, self.observer)
    }

    fn label(&mut self) -> Result<(), ClientError> {
        let full = self.options.output.join("backup_label");
        let shown = full.display();
        let place = Place { root: Root::Data, name: b"backup_label".to_vec(), full: full.clone() };
        if let Some((index, _)) = self.last.listed(b"backup_label") {
            self.mark(index);
        }
        let doing = if self.options.dry_run { "would generate" } else { "generating" };
        self.observer.debug(&format!("{doing} \"{shown}\""));
        let Some(tree) = self.output.tree(Root::Data) else { return Ok(()) };
        let content = label::of_full_backup(&self.chain.label);
        let mut file = tree.create_file(&place.name)?;
        file.write_all(&content).map_err(ClientError::local("write file", &full))?;
        let algorithm = self.output.algorithm();
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(&content);
        let checksum = (algorithm != ChecksumAlgorithm::None).then(|| (algorithm, hasher.finish()));
        self.output.list(b"backup_label", &place, checksum)
    }

    fn tablespace(&mut self, index: usize, tablespace: &Tablespace) -> Result<(), ClientError> {
        let (old, new) = (&tablespace.old, &tablespace.new);
        self.debug(format!("processing tablespace directory \"{}\"", old.display()));
        let name = format!("pg_tblspc/{}", tablespace.oid).into_bytes();
        let (root, prefix) = if tablespace.in_place {
            self.make_directory(Root::Data, &name, new)?;
            (Root::Data, [&name[..], b"/"].concat())
        } else {
            let (link, new) = (join(&self.options.output, &name), new.display());
            let link = link.display();
            let doing = if self.options.dry_run { "would create" } else { "creating" };
            self.debug(format!("{doing} symbolic link from \"{link}\" to \"{new}\""));
            if let Some(tree) = self.output.tree(Root::Data) {
                tree.create_link(&name, &tablespace.new)?;
            }
            (Root::Tablespace(index), Vec::new())
        };
        let listed = [&name[..], b"/"].concat();
        let area = Area { input: old.clone(), output: new.clone(), root, prefix, listed, tablespace: true };
        self.directory(&area, b"")
    }

    fn make_directory(&mut self, root: Root, name: &[u8], full: &Path) -> Result<(), ClientError> {
        let doing = if self.options.dry_run { "would create" } else { "creating" };
        self.debug(format!("{doing} directory \"{}\"", full.display()));
        self.output.tree(root).map_or(Ok(()), |tree| tree.create_directory(name))
    }

    /// `process_directory_recursively`, in the order of names.
    fn directory(&mut self, area: &Area, relative: &[u8]) -> Result<(), ClientError> {
        let input = join(&area.input, relative);
        if !relative.is_empty() {
            let name = [&area.prefix[..], relative].concat();
            self.make_directory(area.root, &name, &join(&area.output, relative))?;
        }
        let entries = std::fs::read_dir(&input).map_err(ClientError::local("open directory", &input))?;
        let names: Result<Vec<Vec<u8>>, _> = entries.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect();
        let mut names = names.map_err(ClientError::local("read directory", &input))?;
        names.sort_unstable();
        for name in names {
            self.options.check_canceled()?;
            self.entry(area, relative, &name)?;
            if self.steps.len() >= STEPS_AT_ONCE {
                self.take_steps()?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, area: &Area, directory: &[u8], name: &[u8]) -> Result<(), ClientError> {
        let relative = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
        let input = join(&area.input, &relative);
        let kind = std::fs::symlink_metadata(&input).map_err(ClientError::local("stat file", &input))?.file_type();
        let in_data = !area.tablespace;
        // Tablespaces come later.
        if in_data && directory == b"pg_tblspc" && parse_oid(name).is_some() && (kind.is_dir() || kind.is_symlink()) {
            return Ok(());
        }
        // The directory of WAL may be a link to where it is kept. The output holds all of it.
        let linked_wal = in_data && relative == b"pg_wal" && kind.is_symlink();
        if kind.is_dir() || linked_wal {
            return self.directory(area, &relative);
        }
        if !kind.is_file() {
            let what = if kind.is_symlink() { "symbolic link" } else { "special file" };
            self.steps.push(Step::Say(Said::Warning(format!("skipping {what} \"{}\"", input.display()))));
            return Ok(());
        }
        if in_data && matches!(&relative[..], b"backup_label" | b"backup_manifest") {
            return Ok(());
        }
        self.file(area, &relative, input);
        Ok(())
    }

    fn file(&mut self, area: &Area, relative: &[u8], input: PathBuf) {
        let listed = [&area.listed[..], relative].concat();
        let directory = relative.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &relative[..at]);
        let can_be_incremental = area.tablespace || may_be_in(directory);
        let plain = if can_be_incremental { incremental::plain_name(relative) } else { None };
        if let Some((index, _)) = self.last.listed(&listed) {
            self.mark(index);
        }
        let place = |name: &[u8]| Place {
            root: area.root,
            name: [&area.prefix[..], name].concat(),
            full: join(&area.output, name),
        };
        let (path, place, content) = if let Some(plain) = plain {
            ([&area.listed[..], &plain].concat(), place(&plain), Content::Reconstructed)
        } else {
            let content = self.whole(area, &listed);
            (listed, place(relative), content)
        };
        self.steps.push(Step::File { path, input, place, content });
    }

    /// What a file that is there as a whole has to be.
    fn whole(&mut self, area: &Area, path: &[u8]) -> Content<'a> {
        // WAL is in no server's manifest, and is not checksummed.
        let wal = !area.tablespace && path.starts_with(b"pg_wal/");
        let algorithm = if wal { ChecksumAlgorithm::None } else { self.output.algorithm() };
        let listed = self.last.listed(path).map(|(_, file)| file);
        if listed.is_none() && algorithm != ChecksumAlgorithm::None && self.last.manifest().is_some() {
            let manifest = self.last.manifest_path();
            let text =
                format!("manifest file \"{}\" contains no entry for file \"{}\"", manifest.display(), shown(path));
            self.steps.push(Step::Say(Said::Warning(text)));
        }
        Content::Whole { listed: listed.filter(|_| relied_on(path) && !wal), algorithm }
    }

    fn mark(&mut self, index: usize) {
        if let Some(found) = self.found.get_mut(index) {
            *found = true;
        }
    }

    /// A file that the manifest lists and nobody found would be missing from the output, and from its manifest.
    fn check_found(&self) -> Result<(), ClientError> {
        let Some(manifest) = self.last.manifest() else { return Ok(()) };
        let missing = manifest
            .files
            .iter()
            .zip(&self.found)
            .find(|(file, found)| !**found && relied_on(&file.path) && !file.path.starts_with(b"pg_wal/"));
        match missing {
            None => Ok(()),
            Some((file, _)) => Err(ClientError::Unusable(format!(
                "\"{}\" is present in the manifest but not in \"{}\"",
                shown(&file.path),
                self.last.directory.display()
            ))),
        }
    }
}
