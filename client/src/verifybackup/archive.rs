//! One tar file of a backup: its members, compared with the manifest as they pass.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent, TarReader, Trailer};
use bytes::BytesMut;
use flate2::read::MultiGzDecoder;

use super::Finding;
use super::archives::{ArchiveFile, Compression, Role};
use super::checksums::FileSum;
use super::restorable::Essentials;
use super::subject::{Ignored, Listed};
use crate::backup_files;
use crate::error::{ClientError, reason, shown};

/// How much of an archive is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// What every thread needs to know.
pub(super) struct Check<'a> {
    pub(super) listed: Arc<Listed<'a>>,
    pub(super) ignored: Ignored,
    pub(super) skip_checksums: bool,
}

/// What came out of one archive.
#[derive(Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    /// Numbers of files of the manifest that are in it.
    pub(super) matched: Vec<usize>,
    pub(super) bad: Vec<usize>,
    pub(super) essentials: Essentials,
    /// Why nothing further can be said.
    pub(super) fatal: Option<ClientError>,
}

/// Counts what is read from a file.
struct Counting<'a, R> {
    inner: R,
    done: &'a AtomicU64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// A problem of an archive's bytes, or of the machine.
#[derive(Debug)]
pub(super) enum ReadError {
    Open(io::Error),
    Read(io::Error),
    Broken(String),
}

/// Reads an archive from end to end and tells `each` what is in it, until that has enough.
pub(super) fn read(
    path: &Path,
    compression: Compression,
    done: &AtomicU64,
    mut each: impl FnMut(TarEvent) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let file = File::open(path).map_err(ReadError::Open)?;
    let input = BufReader::with_capacity(CHUNK, Counting { inner: file, done });
    let mut input: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input).map_err(ReadError::Read)?),
    };
    let mut reader = TarReader::new(Trailer::Required);
    let mut events = Vec::new();
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let length = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if compression != Compression::None && error.raw_os_error().is_none() => {
                return Err(ReadError::Broken(format!("could not decompress data: {error}")));
            }
            Err(error) => return Err(ReadError::Read(error)),
        };
        chunk.truncate(length);
        let pushed = reader.push(chunk.freeze(), &mut events);
        for event in events.drain(..) {
            if each(event).is_break() {
                return Ok(());
            }
        }
        pushed.map_err(|error| ReadError::Broken(error.to_string()))?;
    }
    reader.finish().map_err(|error| ReadError::Broken(error.to_string()))
}

/// The member that passes.
struct Current<'a> {
    path: Vec<u8>,
    sum: Option<FileSum<'a>>,
    index: Option<usize>,
    /// Content of a file that says what the backup is.
    kept: Option<Vec<u8>>,
    /// Whether it is the control file that the manifest is compared with.
    control: bool,
}

struct Verifier<'a, 'b> {
    check: &'b Check<'a>,
    archive: &'b ArchiveFile,
    report: Report,
    current: Option<Current<'a>>,
    seen: HashSet<usize>,
}

/// Compares one archive with the manifest.
pub(super) fn verify(archive: &ArchiveFile, check: &Check<'_>, done: &AtomicU64, stop: &AtomicBool) -> Report {
    let mut verifier = Verifier { check, archive, report: Report::default(), current: None, seen: HashSet::new() };
    let result = read(&archive.path, archive.compression, done, |event| {
        let fatal = verifier.take(event).err();
        verifier.report.fatal = fatal;
        if stop.load(Ordering::Relaxed) || verifier.report.fatal.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let mut report = verifier.report;
    let name = &archive.name;
    match result {
        Ok(()) => {}
        Err(ReadError::Open(error)) => report.findings.push(Finding::local("open file", name.as_bytes(), &error)),
        Err(ReadError::Read(error)) => report.findings.push(Finding::local("read file", name.as_bytes(), &error)),
        Err(ReadError::Broken(problem)) => {
            report.fatal = Some(ClientError::Unusable(format!("archive \"{name}\": {problem}")));
        }
    }
    report
}

impl Verifier<'_, '_> {
    fn take(&mut self, event: TarEvent) -> Result<(), ClientError> {
        match event {
            TarEvent::Member(header) => self.begin(&header),
            TarEvent::Data(bytes) => {
                if let Some(current) = &mut self.current {
                    if let Some(sum) = &mut current.sum {
                        sum.update(&bytes);
                    }
                    if let Some(kept) = &mut current.kept {
                        kept.extend_from_slice(&bytes);
                    }
                }
                Ok(())
            }
            TarEvent::MemberEnd => self.end(),
            TarEvent::End => Ok(()),
        }
    }

    fn begin(&mut self, header: &MemberHeader) -> Result<(), ClientError> {
        let name = header.path();
        let unsafe_name = name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..");
        if unsafe_name {
            let text = format!("tar member has unsafe path name: \"{}\"", shown(&header.name));
            return Err(ClientError::Unusable(format!("archive \"{}\": {text}", self.archive.name)));
        }
        let path = match self.archive.role {
            Role::Tablespace(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), name].concat(),
            _ => name.to_vec(),
        };
        self.report.essentials.seen(&path, header);
        self.current = None;
        if header.kind != MemberKind::File || self.check.ignored.contains(&path) {
            return Ok(());
        }
        let mut current = Current {
            kept: Essentials::keeps(&path, header.size).then(Vec::new),
            path,
            sum: None,
            index: None,
            control: false,
        };
        let (archive, member) = (&self.archive.name, shown(&header.name));
        let Some((index, file)) = self.check.listed.file(&current.path) else {
            let text = format!("file \"{member}\" is present in archive \"{archive}\" but not in the manifest");
            self.report.findings.push(Finding::new(text));
            return Ok(());
        };
        if self.seen.insert(index) {
            self.report.matched.push(index);
        } else {
            let text = format!("file \"{member}\" is present in archive \"{archive}\" more than once");
            self.report.findings.push(Finding::not_restorable(text));
        }
        current.index = Some(index);
        if file.size == header.size {
            current.sum = if self.check.skip_checksums { None } else { FileSum::new(file) };
            current.control = self.check.listed.names_cluster() && current.path == b"global/pg_control";
        } else {
            let text = format!(
                "file \"{member}\" has size {} in archive \"{archive}\" but size {} in the manifest",
                header.size, file.size
            );
            self.report.findings.push(Finding::new(text));
            self.report.bad.push(index);
        }
        self.current = Some(current);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ClientError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if let Some(finding) = current.sum.and_then(|sum| sum.finish(Some(&self.archive.name))) {
            self.report.findings.push(finding);
            self.report.bad.extend(current.index);
        }
        if current.control
            && let Some(content) = &current.kept
        {
            self.check_control(content)?;
        }
        if let Some(content) = current.kept {
            self.report.essentials.keep(&current.path, content);
        }
        Ok(())
    }

    fn check_control(&self, content: &[u8]) -> Result<(), ClientError> {
        let name = format!("{}: global/pg_control", self.archive.name);
        let theirs = backup_files::control(content, &name)?.system_identifier;
        let ours = self.check.listed.manifest.system_identifier.unwrap_or(0);
        if theirs == ours {
            return Ok(());
        }
        Err(ClientError::Unusable(format!(
            "{name}: manifest system identifier is {ours}, but control file has {theirs}"
        )))
    }
}

/// What is wrong with an archive, in words.
impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => write!(f, "could not open file: {}", reason(error)),
            Self::Read(error) => write!(f, "could not read file: {}", reason(error)),
            Self::Broken(problem) => f.write_str(problem),
        }
    }
}
