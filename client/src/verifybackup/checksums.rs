//! Checksums of files, several at once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
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

/// Files whose checksum can be put together are read in pieces of so many bytes: a large one keeps every core busy.
const PIECE: u64 = 32 << 20;

/// A file has about so many of them at most; they are larger if they must.
const PIECES: u64 = 1024;

/// A part of a file, or all of it.
struct Piece<'a> {
    /// The file's number in the manifest.
    index: usize,
    file: &'a ManifestFile,
    from: u64,
    /// Nothing for the last piece, which goes on to where the file ends.
    length: Option<u64>,
}

impl<'a> Piece<'a> {
    fn of(index: usize, file: &'a ManifestFile) -> impl Iterator<Item = Self> {
        let divisible = matches!(file.checksum, Some((ChecksumAlgorithm::Crc32c, _)));
        let size = PIECE.max(file.size / PIECES);
        let pieces = if divisible { file.size.div_ceil(size).max(1) } else { 1 };
        (0..pieces).map(move |piece| {
            let last = piece + 1 == pieces;
            Self { index, file, from: piece * size, length: (!last).then_some(size) }
        })
    }
}

/// Compares the checksum of every file that is there, has the right size and a checksum.
pub(super) fn verify(subject: &mut Subject<'_>) -> Result<(), Stop> {
    let manifest = subject.listed.manifest;
    let files = manifest.files.iter().enumerate().filter(|(index, file)| {
        let sound = subject.states.get(*index).is_some_and(|state| state.matched && !state.bad);
        sound && has_checksum(file)
    });
    let pieces: Vec<Piece<'_>> = files.flat_map(|(index, file)| Piece::of(index, file)).collect();
    // The total is of every file that was there, as it is counted in the original.
    let total = pieces.iter().filter(|piece| piece.from == 0).map(|piece| piece.file.size).sum();
    let done = AtomicU64::new(0);
    subject.progress(0, total, false);
    let directory = subject.directory.clone();
    let ignored = subject.ignored.clone();
    // Of the file whose pieces come in.
    let mut sum: Option<FileSum<'_>> = None;
    in_order(
        &pieces,
        |piece, stop| {
            if ignored.contains(&piece.file.path) { Ok(None) } else { read(&directory, piece, &done, stop) }
        },
        |result| {
            let piece = result.as_ref().and_then(|(number, _)| pieces.get(*number));
            let (Some(piece), Some((_, read))) = (piece, result) else {
                subject.progress(done.load(Ordering::Relaxed), total, false);
                return Ok(());
            };
            let finding = match read {
                Ok(read) if piece.from == 0 => {
                    sum = read;
                    None
                }
                Ok(Some(read)) => {
                    sum = sum.take().and_then(|sum| sum.and(&read));
                    None
                }
                Ok(None) => None,
                Err(finding) => {
                    sum = None;
                    Some(finding)
                }
            };
            let ended = if piece.length.is_none() { sum.take() } else { None };
            let Some(finding) = finding.or_else(|| ended.and_then(|sum| sum.finish(None))) else {
                subject.progress(done.load(Ordering::Relaxed), total, false);
                return Ok(());
            };
            let known = subject.state(piece.index).is_some_and(|state| std::mem::replace(&mut state.bad, true));
            if known { Ok(()) } else { subject.found(&finding) }
        },
    )?;
    subject.progress(done.load(Ordering::Relaxed), total, true);
    Ok(())
}

/// `should_verify_checksum`, but for what is known of the file.
pub(super) fn has_checksum(file: &ManifestFile) -> bool {
    file.checksum.is_some()
}

/// Reads a piece of a file. Nothing comes back if nobody wants to know any more.
fn read<'a>(
    directory: &Path,
    piece: &Piece<'a>,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Option<FileSum<'a>>, Finding> {
    let path = piece.file.path.as_slice();
    let mut input = File::open(directory.join(OsStr::from_bytes(path)))
        .map_err(|error| Finding::local("open file", path, &error))?;
    if piece.from > 0 {
        input.seek(SeekFrom::Start(piece.from)).map_err(|error| Finding::local("read file", path, &error))?;
    }
    let mut input = input.take(piece.length.unwrap_or(u64::MAX));
    let Some(mut sum) = FileSum::new(piece.file) else { return Ok(None) };
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(Some(sum)),
            Ok(length) => {
                sum.update(buffer.get(..length).unwrap_or_default());
                done.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Finding::local("read file", path, &error)),
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
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

    /// This and what follows it.
    fn and(mut self, following: &Self) -> Option<Self> {
        self.hasher.append(&following.hasher, usize::try_from(following.length).ok()?).ok()?;
        self.length += following.length;
        Some(self)
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
