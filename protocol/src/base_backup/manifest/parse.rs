//! Reading a manifest as strictly as `parse_manifest.c`, with its texts.

use std::borrow::Cow;
use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::json::{self, JsonError};
use super::numbers::Numbers;
use super::{ChecksumAlgorithm, Manifest, ManifestFile, UnrecognizedAlgorithm, WalRange, hex};
use crate::timeline::TimelineId;

/// A manifest that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not the JSON of a manifest.
    #[error("could not parse backup manifest: {problem}")]
    Parse {
        /// What is wrong.
        problem: Cow<'static, str>,
        /// At which byte.
        offset: usize,
    },
    /// A file with an algorithm that does not exist.
    #[error(transparent)]
    Algorithm(#[from] UnrecognizedAlgorithm),
    /// A file whose checksum is not an even number of hexadecimal digits.
    #[error("invalid checksum for file \"{}\": \"{}\"", .path.escape_debug(), .checksum.escape_debug())]
    FileChecksum {
        /// The file.
        path: String,
        /// What the manifest says.
        checksum: String,
    },
    /// A path that occurs twice.
    #[error("duplicate path name in backup manifest: \"{}\"", .0.escape_debug())]
    DuplicatePath(String),
    /// A checksum of the manifest that is not 64 hexadecimal digits.
    #[error("invalid manifest checksum: \"{}\"", .0.escape_debug())]
    ManifestChecksum(String),
    /// The checksum of the manifest is another one.
    #[error("manifest checksum mismatch")]
    ChecksumMismatch,
    /// A manifest of a server before 17, uploaded for an incremental backup.
    #[error("backup manifest version 1 does not support incremental backup")]
    NoIncremental,
    /// A manifest of another cluster, uploaded for an incremental backup.
    #[error("system identifier in backup manifest is {theirs}, but database system identifier is {ours}")]
    SystemIdentifier {
        /// What the manifest says.
        theirs: u64,
        /// The server's own.
        ours: u64,
    },
    /// An uploaded manifest with more names, or a longer word, than is kept.
    #[error("out of memory")]
    OutOfMemory,
}

impl ManifestError {
    /// A path that occurs twice.
    pub fn duplicate(path: &[u8]) -> Self {
        Self::DuplicatePath(lossy(path))
    }
}

impl From<JsonError> for ManifestError {
    fn from(JsonError { problem, offset }: JsonError) -> Self {
        Self::Parse { problem, offset }
    }
}

fn fail<T>(problem: &'static str, offset: usize) -> Result<T, ManifestError> {
    Err(ManifestError::Parse { problem: problem.into(), offset })
}

/// Reads a manifest and checks its own checksum: see [`Manifest::parse`].
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let mut files = Vec::new();
    let manifest = scan(bytes, keep(&mut files))?;
    Ok(Manifest { files, ..manifest })
}

/// The same, with every file told instead of kept: see [`Manifest::scan`].
pub(super) fn scan(
    bytes: &[u8],
    on_file: impl FnMut(ManifestFile) -> Result<(), ManifestError>,
) -> Result<Manifest, ManifestError> {
    let parser = ManifestParser::new(Told::new(on_file), Numbers::Strict);
    parser.finish(bytes).map(|told| told.manifest)
}

/// Keeps files, and refuses those that occur twice.
pub(super) fn keep(files: &mut Vec<ManifestFile>) -> impl FnMut(ManifestFile) -> Result<(), ManifestError> {
    let mut paths = HashSet::new();
    move |file| {
        if !paths.insert(file.path.clone()) {
            return Err(ManifestError::duplicate(&file.path));
        }
        files.push(file);
        Ok(())
    }
}

/// Who is told what stands in a manifest (`JsonManifestParseContext`), and may refuse it.
pub(super) trait Visitor {
    fn version(&mut self, version: u64) -> Result<(), ManifestError>;
    fn system_identifier(&mut self, identifier: u64) -> Result<(), ManifestError>;
    fn file(&mut self, file: ManifestFile) -> Result<(), ManifestError>;
    fn wal_range(&mut self, range: WalRange) -> Result<(), ManifestError>;
}

/// Keeps everything but the files.
pub(super) struct Told<F> {
    pub(super) manifest: Manifest,
    on_file: F,
}

impl<F> Told<F> {
    pub(super) fn new(on_file: F) -> Self {
        Self { manifest: Manifest::default(), on_file }
    }
}

impl<F: FnMut(ManifestFile) -> Result<(), ManifestError>> Visitor for Told<F> {
    fn version(&mut self, version: u64) -> Result<(), ManifestError> {
        self.manifest.version = version;
        Ok(())
    }

    fn system_identifier(&mut self, identifier: u64) -> Result<(), ManifestError> {
        self.manifest.system_identifier = Some(identifier);
        Ok(())
    }

    fn file(&mut self, file: ManifestFile) -> Result<(), ManifestError> {
        (self.on_file)(file)
    }

    fn wal_range(&mut self, range: WalRange) -> Result<(), ManifestError> {
        self.manifest.wal_ranges.push(range);
        Ok(())
    }
}

/// `json_parse_manifest_incremental_*`: a manifest that comes in pieces.
#[derive(Debug)]
pub(super) struct ManifestParser<V> {
    json: json::Parser,
    reader: Reader<V>,
    /// Of everything that was read before the last piece.
    sum: Sha256,
}

impl<V: Visitor> ManifestParser<V> {
    pub(super) fn new(visitor: V, numbers: Numbers) -> Self {
        Self { json: json::Parser::default(), reader: Reader::new(visitor, numbers), sum: Sha256::new() }
    }

    /// Reads a piece that is not the last, and returns how much of it is done with.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<usize, ManifestError> {
        let used = self.json.read(piece, false, &mut self.reader)?;
        self.sum.update(piece.get(..used).unwrap_or_default());
        Ok(used)
    }

    /// Reads the last piece, which must hold the last two lines, and checks the checksum.
    pub(super) fn finish(mut self, piece: &[u8]) -> Result<V, ManifestError> {
        self.json.read(piece, true, &mut self.reader)?;
        let Some(checksum) = self.reader.checksum.filter(|_| self.reader.state == State::End) else {
            return fail("manifest ended unexpectedly", piece.len());
        };
        verify_checksum(self.sum, piece, &checksum)?;
        Ok(self.reader.visitor)
    }
}

/// `verify_manifest_checksum`: SHA-256 of everything before the last line, of which `sum` knows what came before `bytes`.
fn verify_checksum(sum: Sha256, bytes: &[u8], checksum: &[u8]) -> Result<(), ManifestError> {
    let mut newlines = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let (Some(last), Some(penultimate)) = (newlines.next(), newlines.next()) else {
        return fail("expected at least 2 lines", bytes.len());
    };
    if last + 1 != bytes.len() {
        return fail("last line not newline-terminated", bytes.len());
    }
    let Some(expected) = hex::decode(checksum).filter(|expected| expected.len() == 32) else {
        return Err(ManifestError::ManifestChecksum(lossy(checksum)));
    };
    let computed = sum.chain_update(bytes.get(..=penultimate).unwrap_or_default()).finalize();
    if computed.as_slice() == expected { Ok(()) } else { Err(ManifestError::ChecksumMismatch) }
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    TopLevelStart,
    /// The first field, which must be the version.
    VersionField,
    TopLevelField,
    VersionValue,
    SystemIdentifierValue,
    FilesStart,
    FilesNext,
    FileField,
    FileValue(FileField),
    RangesStart,
    RangesNext,
    RangeField,
    RangeValue(RangeField),
    ChecksumValue,
    TopLevelEnd,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileField {
    Path,
    EncodedPath,
    Size,
    LastModified,
    Algorithm,
    Checksum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeField {
    Timeline,
    Start,
    End,
}

/// The fields of a file as they come. A field that comes twice counts the second time, as in PostgreSQL.
#[derive(Debug, Default)]
struct RawFile {
    path: Option<Vec<u8>>,
    encoded_path: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    last_modified: Option<Vec<u8>>,
    algorithm: Option<Vec<u8>>,
    checksum: Option<Vec<u8>>,
}

/// The fields of a WAL range as they come.
#[derive(Debug, Default)]
struct RawRange {
    timeline: Option<Vec<u8>>,
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Reader<V> {
    state: State,
    file: RawFile,
    range: RawRange,
    checksum: Option<Vec<u8>>,
    numbers: Numbers,
    visitor: V,
}

impl<V: Visitor> json::Handler for Reader<V> {
    type Error = ManifestError;

    fn object_start(&mut self, offset: usize) -> Result<(), ManifestError> {
        self.state = match self.state {
            State::TopLevelStart => State::VersionField,
            State::FilesNext => State::FileField,
            State::RangesNext => State::RangeField,
            _ => return fail("unexpected object start", offset),
        };
        Ok(())
    }

    fn object_end(&mut self, offset: usize) -> Result<(), ManifestError> {
        self.state = match self.state {
            State::TopLevelEnd => State::End,
            State::FileField => {
                self.end_file(offset)?;
                State::FilesNext
            }
            State::RangeField => {
                self.end_range(offset)?;
                State::RangesNext
            }
            _ => return fail("unexpected object end", offset),
        };
        Ok(())
    }

    fn array_start(&mut self, offset: usize) -> Result<(), ManifestError> {
        self.state = match self.state {
            State::FilesStart => State::FilesNext,
            State::RangesStart => State::RangesNext,
            _ => return fail("unexpected array start", offset),
        };
        Ok(())
    }

    fn array_end(&mut self, offset: usize) -> Result<(), ManifestError> {
        self.state = match self.state {
            State::FilesNext | State::RangesNext => State::TopLevelField,
            _ => return fail("unexpected array end", offset),
        };
        Ok(())
    }

    fn field(&mut self, name: &[u8], offset: usize) -> Result<(), ManifestError> {
        self.state = match (self.state, name) {
            (State::VersionField, b"PostgreSQL-Backup-Manifest-Version") => State::VersionValue,
            (State::VersionField, _) => return fail("expected version indicator", offset),
            (State::TopLevelField, b"System-Identifier") => State::SystemIdentifierValue,
            (State::TopLevelField, b"Files") => State::FilesStart,
            (State::TopLevelField, b"WAL-Ranges") => State::RangesStart,
            (State::TopLevelField, b"Manifest-Checksum") => State::ChecksumValue,
            (State::TopLevelField, _) => return fail("unrecognized top-level field", offset),
            (State::FileField, b"Path") => State::FileValue(FileField::Path),
            (State::FileField, b"Encoded-Path") => State::FileValue(FileField::EncodedPath),
            (State::FileField, b"Size") => State::FileValue(FileField::Size),
            (State::FileField, b"Last-Modified") => State::FileValue(FileField::LastModified),
            (State::FileField, b"Checksum-Algorithm") => State::FileValue(FileField::Algorithm),
            (State::FileField, b"Checksum") => State::FileValue(FileField::Checksum),
            (State::FileField, _) => return fail("unexpected file field", offset),
            (State::RangeField, b"Timeline") => State::RangeValue(RangeField::Timeline),
            (State::RangeField, b"Start-LSN") => State::RangeValue(RangeField::Start),
            (State::RangeField, b"End-LSN") => State::RangeValue(RangeField::End),
            (State::RangeField, _) => return fail("unexpected WAL range field", offset),
            _ => return fail("unexpected object field", offset),
        };
        Ok(())
    }

    fn scalar(&mut self, text: Vec<u8>, offset: usize) -> Result<(), ManifestError> {
        self.state = match self.state {
            State::VersionValue => {
                let Some(version) = self.numbers.version(&text) else {
                    return fail("manifest version not an integer", offset);
                };
                if !(1..=2).contains(&version) {
                    return fail("unexpected manifest version", offset);
                }
                self.visitor.version(version)?;
                State::TopLevelField
            }
            State::SystemIdentifierValue => {
                let Some(identifier) = self.numbers.number(&text) else {
                    return fail("system identifier in manifest not an integer", offset);
                };
                self.visitor.system_identifier(identifier)?;
                State::TopLevelField
            }
            State::FileValue(field) => {
                let slot = match field {
                    FileField::Path => &mut self.file.path,
                    FileField::EncodedPath => &mut self.file.encoded_path,
                    FileField::Size => &mut self.file.size,
                    FileField::LastModified => &mut self.file.last_modified,
                    FileField::Algorithm => &mut self.file.algorithm,
                    FileField::Checksum => &mut self.file.checksum,
                };
                *slot = Some(text);
                State::FileField
            }
            State::RangeValue(field) => {
                let slot = match field {
                    RangeField::Timeline => &mut self.range.timeline,
                    RangeField::Start => &mut self.range.start,
                    RangeField::End => &mut self.range.end,
                };
                *slot = Some(text);
                State::RangeField
            }
            State::ChecksumValue => {
                self.checksum = Some(text);
                State::TopLevelEnd
            }
            _ => return fail("unexpected scalar", offset),
        };
        Ok(())
    }
}

impl<V: Visitor> Reader<V> {
    fn new(visitor: V, numbers: Numbers) -> Self {
        let (file, range) = (RawFile::default(), RawRange::default());
        Self { state: State::default(), file, range, checksum: None, numbers, visitor }
    }

    /// `json_manifest_finalize_file`.
    fn end_file(&mut self, offset: usize) -> Result<(), ManifestError> {
        let file = std::mem::take(&mut self.file);
        if file.path.is_none() && file.encoded_path.is_none() {
            return fail("missing path name", offset);
        }
        if file.path.is_some() && file.encoded_path.is_some() {
            return fail("both path name and encoded path name", offset);
        }
        let Some(size) = file.size else {
            return fail("missing size", offset);
        };
        if file.algorithm.is_none() && file.checksum.is_some() {
            return fail("checksum without algorithm", offset);
        }
        let Some(path) = file.path.or_else(|| hex::decode(&file.encoded_path.unwrap_or_default())) else {
            return fail("could not decode file name", offset);
        };
        let Some(size) = self.numbers.number(&size) else {
            return fail("file size is not an integer", offset);
        };
        let algorithm: Option<ChecksumAlgorithm> = file.algorithm.map(|name| lossy(&name).parse()).transpose()?;
        let digits = file.checksum.unwrap_or_default();
        let Some(checksum) = hex::decode(&digits) else {
            return Err(ManifestError::FileChecksum { path: lossy(&path), checksum: lossy(&digits) });
        };
        let checksum = algorithm.filter(|&algorithm| algorithm != ChecksumAlgorithm::None).map(|a| (a, checksum));
        let last_modified = lossy(&file.last_modified.unwrap_or_default());
        self.visitor.file(ManifestFile { path, size, last_modified, checksum })
    }

    /// `json_manifest_finalize_wal_range`.
    fn end_range(&mut self, offset: usize) -> Result<(), ManifestError> {
        let range = std::mem::take(&mut self.range);
        let Some(timeline) = range.timeline else {
            return fail("missing timeline", offset);
        };
        let Some(start) = range.start else {
            return fail("missing start LSN", offset);
        };
        let Some(end) = range.end else {
            return fail("missing end LSN", offset);
        };
        let Some(timeline) = self.numbers.timeline(&timeline) else {
            return fail("timeline is not an integer", offset);
        };
        let Some(start) = self.numbers.position(&start) else {
            return fail("could not parse start LSN", offset);
        };
        let Some(end) = self.numbers.position(&end) else {
            return fail("could not parse end LSN", offset);
        };
        self.visitor.wal_range(WalRange { timeline: TimelineId(timeline), start, end })
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
