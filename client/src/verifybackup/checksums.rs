//! Checksums of files, several at once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, ManifestFile};

use super::Finding;
use super::subject::{Stop, Subject};
use crate::error::shown;
use crate::ordered::in_order;

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// Compares the checksum of every file that is there, has the right size and a checksum.
pub(super) fn verify(subject: &mut Subject<'_>) -> Result<(), Stop> {
    let manifest = subject.listed.manifest;
    let files: Vec<(usize, &ManifestFile)> = manifest
        .files
        .iter()
        .enumerate()
        .filter(|(index, file)| {
            let sound = subject.states.get(*index).is_some_and(|state| state.matched && !state.bad);
            sound && has_checksum(file)
        })
        .collect();
    // The total is of every file that was there, as it is counted in the original.
    let total = files.iter().map(|(_, file)| file.size).sum();
    let done = AtomicU64::new(0);
    subject.progress(0, total, false);
    let directory = subject.directory.clone();
    let ignored = subject.ignored.clone();
    in_order(
        &files,
        |(_, file), stop| {
            if ignored.contains(&file.path) { None } else { check(&directory, file, &done, stop) }
        },
        |result| {
            let Some((number, Some(finding))) = result else {
                subject.progress(done.load(Ordering::Relaxed), total, false);
                return Ok(());
            };
            if let Some(state) = files.get(number).and_then(|(index, _)| subject.state(*index)) {
                state.bad = true;
            }
            subject.found(&finding)
        },
    )?;
    subject.progress(done.load(Ordering::Relaxed), total, true);
    Ok(())
}

/// `should_verify_checksum`, but for what is known of the file.
pub(super) fn has_checksum(file: &ManifestFile) -> bool {
    file.checksum.is_some()
}

/// Reads a file and compares. Nothing comes back if all is well, or if nobody wants to know any more.
fn check(directory: &Path, file: &ManifestFile, done: &AtomicU64, stop: &AtomicBool) -> Option<Finding> {
    let path = file.path.as_slice();
    let mut input = match File::open(directory.join(OsStr::from_bytes(path))) {
        Ok(input) => input,
        Err(error) => return Some(Finding::local("open file", path, &error)),
    };
    let mut sum = FileSum::new(file)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                sum.update(buffer.get(..length).unwrap_or_default());
                done.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Some(Finding::local("read file", path, &error)),
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
    }
    sum.finish(None)
}

/// The checksum of a file while it is read.
pub(super) struct FileSum<'a> {
    file: &'a ManifestFile,
    algorithm: ChecksumAlgorithm,
    expected: &'a [u8],
    hasher: ChecksumHasher,
    length: u64,
}

impl<'a> FileSum<'a> {
    /// Nothing, if the manifest has no checksum.
    pub(super) fn new(file: &'a ManifestFile) -> Option<Self> {
        let (algorithm, expected) = file.checksum.as_ref()?;
        Some(Self { file, algorithm: *algorithm, expected, hasher: ChecksumHasher::new(*algorithm), length: 0 })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// What is wrong with the file, which lies in `archive` if it lies in one.
    pub(super) fn finish(self, archive: Option<&str>) -> Option<Finding> {
        let name = match archive {
            None => format!("file \"{}\"", shown(&self.file.path)),
            Some(archive) => format!("file \"{}\" in archive \"{archive}\"", shown(&self.file.path)),
        };
        let (size, length) = (self.file.size, self.length);
        if length != size {
            return Some(Finding::new(match archive {
                None => format!("{name} should contain {size} bytes, but read {length}"),
                Some(_) => format!("{name} should contain {size} bytes, but {length} bytes were read"),
            }));
        }
        if self.expected.len() != self.algorithm.digest_len() {
            let (found, expected) = (self.expected.len(), self.algorithm.digest_len());
            return Some(Finding::new(format!("{name} has checksum of length {found}, but expected {expected}")));
        }
        (self.hasher.finish() != self.expected).then(|| Finding::new(format!("checksum mismatch for {name}")))
    }
}
