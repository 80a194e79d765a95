//! Making the output, file by file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::base_backup::profile::{self, PageLsns, ProfileFile};

use super::input::{Input, no_inputs};
use super::plan::{Plan, PlannedFile};
use super::{RecoverObserver, Recovered};
use crate::combine::CombineOptions;
use crate::combine::output::{Output, Place, Root};
use crate::combine::tablespaces::Tablespace;
use crate::combine::walk::join;
use crate::error::{ClientError, shown};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

pub(super) struct Writer<'a> {
    options: &'a CombineOptions,
    inputs: &'a [Input],
    last: &'a Input,
    tablespaces: &'a [Tablespace],
    output: &'a mut Output,
    observer: &'a mut dyn RecoverObserver,
    made: BTreeSet<Vec<u8>>,
    done: u64,
    total: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        options: &'a CombineOptions,
        inputs: &'a [Input],
        tablespaces: &'a [Tablespace],
        output: &'a mut Output,
        observer: &'a mut dyn RecoverObserver,
    ) -> Result<Self, ClientError> {
        let last = inputs.last().ok_or_else(no_inputs)?;
        if let Some(manifest) = &last.manifest {
            output.begin_manifest(options, manifest.version, manifest.system_identifier)?;
        }
        let made = BTreeSet::new();
        Ok(Self { options, inputs, last, tablespaces, output, observer, made, done: 0, total: 0 })
    }

    /// Makes all files. They still have to be published.
    pub(super) fn everything(mut self, plan: &Plan) -> Result<Recovered, ClientError> {
        self.total = plan.bytes;
        let last = self.last;
        for tablespace in self.tablespaces {
            let name = format!("pg_tblspc/{}", tablespace.oid).into_bytes();
            self.directory(b"pg_tblspc")?;
            if !tablespace.in_place {
                if let Some(tree) = self.output.tree(Root::Data) {
                    tree.create_link(&name, &tablespace.new)?;
                }
                self.made.insert(name);
            }
        }
        for directory in &last.tree.directories {
            self.directory(directory)?;
        }
        let label = self.label()?;
        let mut recovered = Recovered { bytes: plan.bytes, ..Recovered::default() };
        let number = self.inputs.len() - 1;
        for file in &plan.files {
            self.options.check_canceled()?;
            self.copy(file)?;
            *(if file.input == number { &mut recovered.sent } else { &mut recovered.found }) += 1;
        }
        self.profile(plan, &label)?;
        if let Some(wal) = last.tree.wal {
            self.wal(&join(&last.directory, wal.as_bytes()), wal.as_bytes())?;
        }
        Ok(recovered)
    }

    /// Where the file at `path` below the data directory goes.
    fn place(&self, path: &[u8]) -> Place {
        for (index, tablespace) in self.tablespaces.iter().enumerate().filter(|(_, tablespace)| !tablespace.in_place) {
            let below = format!("pg_tblspc/{}/", tablespace.oid);
            if let Some(name) = path.strip_prefix(below.as_bytes()) {
                let root = Root::Tablespace(index);
                return Place { root, name: name.to_vec(), full: join(&tablespace.new, name) };
            }
        }
        Place { root: Root::Data, name: path.to_vec(), full: join(&self.options.output, path) }
    }

    /// Makes a directory and what is missing above it.
    fn directory(&mut self, path: &[u8]) -> Result<(), ClientError> {
        if self.made.contains(path) {
            return Ok(());
        }
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            self.directory(path.get(..slash).unwrap_or_default())?;
        }
        let place = self.place(path);
        if let Some(tree) = self.output.tree(place.root) {
            tree.create_directory(&place.name)?;
        }
        self.made.insert(path.to_vec());
        Ok(())
    }

    /// A file of our own making.
    fn write(&mut self, path: &str, content: &[u8], listed: bool) -> Result<(), ClientError> {
        let place = self.place(path.as_bytes());
        let algorithm = self.output.algorithm();
        if let Some(tree) = self.output.tree(place.root) {
            let mut file = tree.create_file(&place.name)?;
            file.write_all(content).map_err(ClientError::local("write file", &place.full))?;
        }
        if !listed {
            return Ok(());
        }
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(content);
        let checksum = (algorithm != ChecksumAlgorithm::None).then(|| (algorithm, hasher.finish()));
        self.output.list(path.as_bytes(), &place, checksum)
    }

    /// The label of a full backup: that of the last input without what it builds on.
    fn label(&mut self) -> Result<String, ClientError> {
        let lines = self.last.label_text.split_inclusive('\n');
        let label: String = lines.filter(|line| !line.starts_with("INCREMENTAL FROM LOCATION: ")).collect();
        self.write("backup_label", label.as_bytes(), true)?;
        Ok(label)
    }

    /// The profile of a full backup, and its checksum where no manifest has it.
    fn profile(&mut self, plan: &Plan, label: &str) -> Result<(), ClientError> {
        let mut text = profile::header(label);
        let own = self.last.file(b"backup_label").map(|file| ProfileFile { size: label.len() as u64, ..file.clone() });
        let planned = plan.files.iter().filter_map(|planned| {
            let file = self.last.file(&planned.path)?.clone();
            Some(ProfileFile { sent: true, lsn: None, size: planned.size, ..file })
        });
        for file in own.into_iter().chain(planned) {
            file.write(&mut text);
        }
        self.write(profile::FILE_NAME, &text, true)?;
        if self.last.manifest.is_none() {
            self.write(profile::CHECKSUM_FILE_NAME, profile::checksum_file(&text).as_bytes(), false)?;
        }
        Ok(())
    }

    fn copy(&mut self, file: &PlannedFile) -> Result<(), ClientError> {
        let input = self.inputs.get(file.input).ok_or_else(no_inputs)?;
        if let Some(slash) = file.path.iter().rposition(|byte| *byte == b'/') {
            self.directory(file.path.get(..slash).unwrap_or_default())?;
        }
        let source = join(&input.directory, &file.path);
        let mut opened = File::open(&source).map_err(ClientError::local("open file", &source))?;
        let place = self.place(&file.path);
        let algorithm = self.output.algorithm();
        let mut wanted = ChecksumHasher::new(algorithm);
        let expected = input.checksum(&file.path).filter(|_| file.whole);
        let mut listed = expected.map(|(algorithm, _)| ChecksumHasher::new(*algorithm));
        let mut lsns = PageLsns::default();
        let name = Output::working_name(&place).to_vec();
        let Some(tree) = self.output.tree(place.root) else { return Ok(()) };
        let mut made = tree.create_file(&name)?;
        let (mut buffer, mut left) = (vec![0; CHUNK], file.size);
        while left > 0 {
            self.options.check_canceled()?;
            let wanted_now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let length = match opened.read(buffer.get_mut(..wanted_now).unwrap_or_default()) {
                Ok(0) => return Err(changed(&source)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::local("read from file", &source)(error)),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            made.write_all(bytes).map_err(ClientError::local("write file", &place.full))?;
            wanted.update(bytes);
            if let Some(hasher) = &mut listed {
                hasher.update(bytes);
            }
            if file.lsn.is_some() {
                lsns.update(bytes);
            }
            left -= length as u64;
            self.done += length as u64;
            self.observer.progress(self.done, self.total);
        }
        if file.whole && opened.read(&mut [0]).map_err(ClientError::local("read from file", &source))? > 0 {
            return Err(changed(&source));
        }
        if let (Some(hasher), Some((_, checksum))) = (listed, expected)
            && hasher.finish() != *checksum
        {
            return Err(ClientError::Unusable(format!("checksum mismatch for file \"{}\"", source.display())));
        }
        if let Some(lsn) = file.lsn.filter(|lsn| lsns.highest() != Some(*lsn)) {
            let found = lsns.highest().map_or_else(|| "none".to_owned(), |lsn| lsn.to_string());
            let (name, backup) = (shown(&file.path), input.directory.display());
            return Err(ClientError::Unusable(format!(
                "highest LSN of \"{name}\" in the backup at \"{backup}\" is {found}, but {lsn} in the profile of the one that \
                 left it out: this is not its base"
            )));
        }
        let checksum = (algorithm != ChecksumAlgorithm::None).then(|| (algorithm, wanted.finish()));
        self.output.list(&file.path, &place, checksum)
    }

    /// WAL as it lies there, directories and all. It is in no manifest.
    fn wal(&mut self, source: &Path, path: &[u8]) -> Result<(), ClientError> {
        self.directory(path)?;
        let entries = std::fs::read_dir(source).map_err(ClientError::local("open directory", source))?;
        for entry in entries {
            self.options.check_canceled()?;
            let entry = entry.map_err(ClientError::local("read directory", source))?;
            let (full, name) = (entry.path(), [path, b"/", entry.file_name().as_bytes()].concat());
            let kind = entry.file_type().map_err(ClientError::local("stat file", &full))?;
            if kind.is_dir() {
                self.wal(&full, &name)?;
            } else if kind.is_file() {
                let place = self.place(&name);
                let mut from = File::open(&full).map_err(ClientError::local("open file", &full))?;
                let Some(tree) = self.output.tree(place.root) else { continue };
                let mut to = tree.create_file(&place.name)?;
                io::copy(&mut from, &mut to).map_err(ClientError::local("copy file", &full))?;
            } else {
                return Err(ClientError::Unusable(format!("\"{}\" is neither a file nor a directory", full.display())));
            }
        }
        Ok(())
    }
}

fn changed(source: &Path) -> ClientError {
    ClientError::Unusable(format!("file \"{}\" changed while it was read", source.display()))
}
