//! Copying whole files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, ManifestFile};

use super::output::Place;
use super::steps::Job;
use super::{CombineObserver, CombineOptions, CopyMethod};
use crate::error::{ClientError, reason};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// A checksum and how it was made.
pub(super) type Checksum = (ChecksumAlgorithm, Vec<u8>);

/// A file to be copied.
pub(super) struct Whole<'a> {
    pub(super) source: &'a Path,
    /// What the manifest of its backup says of it, if that can be relied on.
    pub(super) listed: Option<&'a ManifestFile>,
    /// How it is to be checksummed.
    pub(super) algorithm: ChecksumAlgorithm,
}

/// The checksums of a file that is being read: the one that its manifest has, and the one that the new manifest gets.
struct Sums<'a> {
    listed: Option<(&'a Checksum, ChecksumHasher)>,
    wanted: Option<(ChecksumAlgorithm, ChecksumHasher)>,
}

impl Sums<'_> {
    fn update(&mut self, bytes: &[u8]) {
        if let Some((_, hasher)) = &mut self.listed {
            hasher.update(bytes);
        }
        if let Some((_, hasher)) = &mut self.wanted {
            hasher.update(bytes);
        }
    }

    /// Compares with the manifest, and returns the checksum that was wanted, if it was not there already.
    fn finish(self, source: &Path) -> Result<Option<Checksum>, ClientError> {
        if let Some(((_, expected), hasher)) = self.listed
            && hasher.finish() != *expected
        {
            let source = source.display();
            return Err(ClientError::Unusable(format!("checksum mismatch for file \"{source}\"")));
        }
        Ok(self.wanted.map(|(algorithm, hasher)| (algorithm, hasher.finish())))
    }
}

impl<'a> Whole<'a> {
    /// The manifest's checksum, if it is of the kind that the new manifest gets.
    fn reused(&self) -> Option<&'a Checksum> {
        let listed = self.listed?.checksum.as_ref()?;
        (listed.0 == self.algorithm).then_some(listed)
    }

    fn sums(&self) -> Sums<'a> {
        let listed = self.listed.and_then(|file| file.checksum.as_ref());
        let wanted = self.algorithm != ChecksumAlgorithm::None && self.reused().is_none();
        Sums {
            listed: listed.map(|listed| (listed, ChecksumHasher::new(listed.0))),
            wanted: wanted.then(|| (self.algorithm, ChecksumHasher::new(self.algorithm))),
        }
    }

    /// Copies the file to `place`, and returns its checksum. In a dry run it is found out whether it could be read.
    pub(super) fn copy(
        &self,
        place: &Place,
        job: &Job<'_>,
        observer: &mut dyn CombineObserver,
    ) -> Result<Option<Checksum>, ClientError> {
        let (source, options) = (self.source, job.options);
        let mut input = File::open(source).map_err(ClientError::local("open file", source))?;
        self.check_size(&input)?;
        let reads = options.copy_method == CopyMethod::Copy;
        let sums = self.sums();
        if observer.debugging() {
            observer.debug(&self.describe(place, options, sums.wanted.is_some()));
        }
        if options.copy_method == CopyMethod::Link {
            let linked = job.output().hard_link(place, source).map_err(|error| {
                let (from, to) = (source.display(), place.full.display());
                ClientError::Unusable(format!("could not create link from \"{from}\" to \"{to}\": {}", reason(&error)))
            })?;
            if !linked {
                return Ok(None);
            }
        } else {
            let Some(mut file) = job.output().create_file(place)? else { return Ok(None) };
            match options.copy_method {
                CopyMethod::Clone => file.share(&input).map_err(|error| self.failed("cloning file", place, &error))?,
                CopyMethod::CopyFileRange => {
                    let failed = |error| self.failed("copying file range from", place, &error);
                    while file.append_range(&input, None, 1 << 30).map_err(failed)? > 0 {
                        job.check_canceled()?;
                    }
                }
                CopyMethod::Copy | CopyMethod::Link => {
                    let sum = read_through(&mut input, source, sums, job, |bytes| {
                        file.write_all(bytes).map_err(ClientError::local("write file", &place.full))
                    })?;
                    return Ok(sum.or_else(|| self.reused().cloned()));
                }
            }
        }
        // Only what has to be computed is worth another look at the file.
        let computed = if !reads && sums.wanted.is_some() {
            let mut again = File::open(source).map_err(ClientError::local("open file", source))?;
            read_through(&mut again, source, sums, job, |_| Ok(()))?
        } else {
            None
        };
        Ok(computed.or_else(|| self.reused().cloned()))
    }

    fn check_size(&self, input: &File) -> Result<(), ClientError> {
        let Some(listed) = self.listed else { return Ok(()) };
        let size = input.metadata().map_err(ClientError::local("stat file", self.source))?.len();
        if size == listed.size {
            return Ok(());
        }
        let (source, expected) = (self.source.display(), listed.size);
        let text = format!("\"{source}\" has size {size} on disk but size {expected} in the manifest");
        Err(ClientError::Unusable(text))
    }

    fn failed(&self, doing: &str, place: &Place, error: &io::Error) -> ClientError {
        let (from, to) = (self.source.display(), place.full.display());
        ClientError::Unusable(format!("error while {doing} \"{from}\" to \"{to}\": {}", reason(error)))
    }

    fn describe(&self, place: &Place, options: &CombineOptions, computes: bool) -> String {
        let (from, to) = (self.source.display(), place.full.display());
        let doing = if options.dry_run { "would copy" } else { "copying" };
        let strategy = match options.copy_method {
            CopyMethod::Clone => " using strategy clone".to_owned(),
            CopyMethod::CopyFileRange => " using strategy copy_file_range".to_owned(),
            CopyMethod::Link => " using strategy link".to_owned(),
            CopyMethod::Copy if computes && !options.dry_run => format!(" and checksumming with {}", self.algorithm),
            CopyMethod::Copy => String::new(),
        };
        format!("{doing} \"{from}\" to \"{to}\"{strategy}")
    }
}

/// Reads a file to its end.
fn read_through(
    input: &mut File,
    path: &Path,
    mut sums: Sums<'_>,
    job: &Job<'_>,
    mut each: impl FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<Option<Checksum>, ClientError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        job.check_canceled()?;
        let length = match input.read(&mut buffer) {
            Ok(0) => return sums.finish(path),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::local("read from file", path)(error)),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        sums.update(bytes);
        each(bytes)?;
    }
}
