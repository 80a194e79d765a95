//! The files in the directory.
//!
//! Everything happens below one handle of the directory, and no link in it is followed.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_archive::ArchivedSegment;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::form::{self, Writer};
use super::{Trouble, WalEvent};
use crate::disk::{Disk, File};
use crate::error::ClientError;
use crate::tree::Modes;

const COMMON: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// An archive, and the segment that is being written to it.
pub(crate) struct Archive {
    root: OwnedFd,
    path: PathBuf,
    modes: Modes,
    compression: Compression,
    sync: bool,
    disk: Arc<dyn Disk>,
    current: Option<Current>,
}

/// The segment that is being written.
struct Current {
    /// Its name as long as it is not complete.
    partial: String,
    /// Its name from then on.
    complete: String,
    writer: Writer,
    /// Bytes of WAL written.
    written: u64,
    /// A compressed segment that is begun anew lies beside the earlier one until it holds as much.
    replaces: Option<Replaced>,
}

/// What a segment begun anew will replace.
struct Replaced {
    /// Where the new one lies meanwhile.
    beside: String,
    /// How many bytes of WAL the earlier one holds.
    bytes: u64,
}

impl Archive {
    /// Opens the directory, which must exist.
    pub(crate) fn open(
        path: &Path,
        compression: &Compression,
        sync: bool,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, ClientError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(ClientError::errno("open directory", path))?;
        let compression = compression.clone();
        Ok(Self { root, path: path.to_owned(), modes: Modes::new(false), compression, sync, disk, current: None })
    }

    /// The permissions of what is made from now on.
    pub(crate) fn set_modes(&mut self, modes: Modes) {
        self.modes = modes;
    }

    /// Whether a segment is being written.
    pub(crate) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    fn full(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names in the directory that are text.
    pub(crate) fn names(&self) -> Result<Vec<String>, ClientError> {
        let failed = |errno| ClientError::errno("read directory", &self.path)(errno);
        let entries = rustix::fs::Dir::read_from(&self.root).map_err(failed)?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            names
                .extend(entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
        }
        Ok(names)
    }

    /// Opens a file to read it.
    pub(crate) fn read(&self, name: &str) -> io::Result<fs::File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | COMMON;
        let file = fs::File::from(rustix::fs::openat(&self.root, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    }

    /// Begins a segment, whose file may be there from before. What had to be mended for that is returned.
    pub(crate) fn begin(&mut self, file: WalFileName, size: WalSegmentSize) -> Result<Option<WalEvent>, Trouble> {
        let compression = self.compression.algorithm;
        let name = |partial| ArchivedSegment { file, compression, partial }.to_string();
        let (partial, complete) = (name(true), name(false));
        let (opened, replaces, mended) = if compression == CompressionAlgorithm::None {
            let (opened, mended) = self.open_plain(&partial, size.bytes())?;
            (opened, None, mended)
        } else {
            let bytes = self.content_of(&partial, compression, size.bytes());
            let beside = format!("{partial}.tmp");
            let place = if bytes == 0 { &partial } else { &beside };
            let opened = self.create(place, OFlags::WRONLY | OFlags::TRUNC)?;
            (opened, (bytes > 0).then_some(Replaced { beside, bytes }), None)
        };
        let opened = File::new(opened, self.full(&partial), Arc::clone(&self.disk));
        if self.sync {
            self.fsync(&opened, &partial)?;
            self.fsync_names()?;
        }
        let failed = ClientError::local("open write-ahead log file", self.full(&partial));
        let writer = Writer::new(opened, &self.compression).map_err(failed)?;
        self.current = Some(Current { partial, complete, writer, written: 0, replaces });
        Ok(mended)
    }

    fn create(&self, name: &str, flags: OFlags) -> Result<fs::File, ClientError> {
        let mode = Mode::from_raw_mode(self.modes.file());
        let failed = |source| ClientError::Local { doing: "open write-ahead log file", path: self.full(name), source };
        let flags = flags | OFlags::CREATE | OFlags::NONBLOCK | COMMON;
        let mut opened = None;
        self.change(name, &mut || {
            opened = Some(rustix::fs::openat(&self.root, name, flags, mode)?);
            Ok(())
        })
        .map_err(failed)?;
        let file = opened.map(fs::File::from).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_file() { Ok(file) } else { Err(failed(io::Error::other("it is not a regular file"))) }
    }

    /// A file of the size of a segment. What it holds from before stays until it is written over: it may be the only copy.
    fn open_plain(&self, partial: &str, size: u64) -> Result<(fs::File, Option<WalEvent>), ClientError> {
        let failed =
            |source| ClientError::Local { doing: "open write-ahead log file", path: self.full(partial), source };
        let file = self.create(partial, OFlags::WRONLY)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes != size {
            // All of its space now, so that a full disk is found before WAL is on its way.
            let reserve = || match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                reserved => reserved.map_err(io::Error::from),
            };
            self.change(partial, &mut || reserve().and_then(|()| file.set_len(size))).map_err(failed)?;
        }
        let odd = bytes != 0 && bytes != size;
        let mended = odd.then(|| WalEvent::Mended { file: partial.to_owned(), bytes, expected: size });
        Ok((file, mended))
    }

    /// How many bytes of WAL a compressed file holds that a reader can get back; none if it is not there.
    fn content_of(&self, name: &str, algorithm: CompressionAlgorithm, limit: u64) -> u64 {
        let reader = self.read(name).and_then(|file| form::reader(file, algorithm));
        reader.map_or(0, |mut reader| form::count(&mut *reader, limit).0)
    }

    /// Writes the next bytes of the segment.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let failed = ClientError::local("write to WAL file", self.path.join(&current.partial));
        current.writer.write_all(bytes).map_err(failed)?;
        current.written += bytes.len() as u64;
        Ok(())
    }

    /// Forces what was written to disk, in a form that can be read.
    pub(crate) fn flush(&mut self) -> Result<(), Trouble> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let flushed = self.flush_current(&mut current);
        self.current = Some(current);
        flushed
    }

    fn flush_current(&self, current: &mut Current) -> Result<(), Trouble> {
        let failed = ClientError::local("write to WAL file", self.full(&current.partial));
        let file = current.writer.drain().map_err(failed)?;
        if self.sync {
            self.fsync(file, &current.partial)?;
        }
        if let Some(replaced) = current.replaces.take_if(|replaced| replaced.bytes <= current.written) {
            self.rename(&replaced.beside, &current.partial)?;
        }
        Ok(())
    }

    /// The segment is complete: it gets its name, and is on disk under it.
    pub(crate) fn complete(&mut self) -> Result<(), Trouble> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let failed = ClientError::local("write to WAL file", self.full(&current.partial));
        let file = current.writer.finish().map_err(failed)?;
        if self.sync {
            self.fsync(&file, &current.partial)?;
        }
        match &current.replaces {
            None => self.rename(&current.partial, &current.complete),
            Some(replaced) => {
                self.rename(&replaced.beside, &current.complete)?;
                self.remove(&current.partial);
                Ok(())
            }
        }
    }

    /// Leaves the segment as it is, and returns the name that it lies under.
    pub(crate) fn leave(&mut self) -> Result<Option<String>, Trouble> {
        let Some(current) = self.current.take() else { return Ok(None) };
        let failed = ClientError::local("write to WAL file", self.full(&current.partial));
        let file = current.writer.finish().map_err(failed)?;
        if self.sync {
            self.fsync(&file, &current.partial)?;
        }
        match &current.replaces {
            None => {}
            Some(replaced) if replaced.bytes <= current.written => self.rename(&replaced.beside, &current.partial)?,
            // The earlier one holds more.
            Some(replaced) => self.remove(&replaced.beside),
        }
        Ok(Some(current.partial))
    }

    /// Whether the history file of a timeline is there. The first timeline needs none.
    pub(crate) fn has_history(&self, timeline: TimelineId) -> bool {
        timeline == TimelineId::FIRST || self.read(&timeline.history_file_name()).is_ok()
    }

    /// Keeps a history file.
    pub(crate) fn store_history(&mut self, timeline: TimelineId, content: &[u8]) -> Result<(), Trouble> {
        let name = timeline.history_file_name();
        let beside = format!("{name}.tmp");
        let file = self.create(&beside, OFlags::WRONLY | OFlags::TRUNC)?;
        let mut file = File::new(file, self.full(&beside), Arc::clone(&self.disk));
        let failed = ClientError::local("write timeline history file", self.full(&beside));
        file.write_all(content).map_err(failed)?;
        if self.sync {
            self.fsync(&file, &beside)?;
        }
        self.rename(&beside, &name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Trouble> {
        let renamed = self.change(to, &mut || Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?));
        renamed.map_err(ClientError::local("rename file", self.full(from)))?;
        if self.sync { self.fsync_names() } else { Ok(()) }
    }

    /// An error means that nobody knows what is on disk: asking again would not tell.
    fn fsync(&self, file: &File, name: &str) -> Result<(), Trouble> {
        let failed = |source| ClientError::Local { doing: "fsync file", path: self.full(name), source };
        file.sync_all().map_err(|source| Trouble::Fatal(failed(source)))
    }

    fn fsync_names(&self) -> Result<(), Trouble> {
        let failed = |error| Trouble::Fatal(ClientError::local("fsync file", &self.path)(error));
        self.disk.sync(&self.path, &mut || Ok(rustix::fs::fsync(&self.root)?)).map_err(failed)
    }

    fn change(&self, name: &str, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.disk.change(&self.full(name), work)
    }

    /// Removes what has no worth any more. Where it stays it does no harm.
    fn remove(&self, name: &str) {
        let _ = self.change(name, &mut || Ok(rustix::fs::unlinkat(&self.root, name, AtFlags::empty())?));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use backstop_protocol::lsn::Lsn;
    use tempfile::TempDir;

    use super::*;
    use crate::disk::RealDisk;

    const SIZE: u64 = 1 << 20;

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(SIZE).expect("a valid size")
    }

    fn segment() -> WalFileName {
        WalFileName::holding(TimelineId::FIRST, Lsn(3 * SIZE), size())
    }

    fn open(directory: &TempDir, algorithm: CompressionAlgorithm) -> Archive {
        let compression = Compression::plain(algorithm);
        Archive::open(directory.path(), &compression, true, Arc::new(RealDisk)).expect("an archive")
    }

    fn names(archive: &Archive) -> Vec<String> {
        let mut names = archive.names().expect("names");
        names.sort();
        names
    }

    fn content(archive: &Archive, name: &str, algorithm: CompressionAlgorithm) -> Vec<u8> {
        let mut content = Vec::new();
        let mut reader = form::reader(archive.read(name).expect(name), algorithm).expect("a reader");
        reader.read_to_end(&mut content).expect("readable");
        content
    }

    const FORMS: [CompressionAlgorithm; 3] =
        [CompressionAlgorithm::None, CompressionAlgorithm::Gzip, CompressionAlgorithm::Lz4];

    #[test]
    fn a_segment_gets_its_name_when_it_is_complete() {
        for algorithm in FORMS {
            let directory = tempfile::tempdir().expect("a directory");
            let mut archive = open(&directory, algorithm);
            assert!(archive.begin(segment(), size()).expect("begun").is_none());
            let name = format!("{}{}", segment(), algorithm.suffix());
            assert_eq!(names(&archive), [format!("{name}.partial")]);
            let half = vec![7; usize::try_from(SIZE).expect("small") / 2];
            archive.write(&half).expect("written");
            archive.flush().expect("flushed");
            archive.write(&half).expect("written");
            archive.complete().expect("complete");
            assert_eq!(names(&archive), std::slice::from_ref(&name));
            assert!(content(&archive, &name, algorithm) == [half.clone(), half].concat());
            let mode = directory.path().join(&name).metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_was_flushed_can_be_read_in_every_form() {
        for algorithm in FORMS {
            let directory = tempfile::tempdir().expect("a directory");
            let mut archive = open(&directory, algorithm);
            archive.begin(segment(), size()).expect("begun");
            archive.write(b"some WAL").expect("written");
            archive.flush().expect("flushed");
            let name = format!("{}{}.partial", segment(), algorithm.suffix());
            let mut head = [0; 8];
            let mut reader = form::reader(archive.read(&name).expect("there"), algorithm).expect("a reader");
            reader.read_exact(&mut head).expect("the head");
            assert_eq!(&head, b"some WAL", "{algorithm}");
        }
    }

    #[test]
    fn a_plain_segment_is_continued_over_what_is_there_and_mended() {
        let directory = tempfile::tempdir().expect("a directory");
        let partial = format!("{}.partial", segment());
        for (before, mended) in
            [(vec![], false), (vec![9; 1234], true), (vec![9; 2 << 20], true), (vec![9; 1 << 20], false)]
        {
            std::fs::write(directory.path().join(&partial), &before).expect("a file");
            let mut archive = open(&directory, CompressionAlgorithm::None);
            assert_eq!(archive.begin(segment(), size()).expect("begun").is_some(), mended, "{}", before.len());
            archive.write(b"new").expect("written");
            assert_eq!(archive.leave().expect("left").as_deref(), Some(&*partial));
            let after = content(&archive, &partial, CompressionAlgorithm::None);
            assert_eq!(after.len() as u64, SIZE);
            let kept = before.len().min(after.len()).max(3);
            let expected = before.get(3..kept).unwrap_or_default();
            assert!(after.starts_with(b"new") && after.get(3..kept) == Some(expected));
        }
    }

    #[test]
    fn a_compressed_segment_begun_anew_never_holds_less() {
        let gzip = CompressionAlgorithm::Gzip;
        let directory = tempfile::tempdir().expect("a directory");
        let partial = format!("{}.gz.partial", segment());
        let mut archive = open(&directory, gzip);
        archive.begin(segment(), size()).expect("begun");
        archive.write(b"0123456789").expect("written");
        archive.leave().expect("left");
        let holds = |archive: &Archive| String::from_utf8(content(archive, &partial, gzip)).expect("text");

        // Less than was there: nothing changes.
        archive.begin(segment(), size()).expect("begun");
        archive.write(b"01234").expect("written");
        archive.flush().expect("flushed");
        assert_eq!(holds(&archive), "0123456789");
        archive.leave().expect("left");
        assert_eq!((holds(&archive), names(&archive)), ("0123456789".to_owned(), vec![partial.clone()]));

        // As much: the new one takes its place, and goes on.
        archive.begin(segment(), size()).expect("begun");
        archive.write(b"0123456789A").expect("written");
        archive.flush().expect("flushed");
        assert_eq!(names(&archive), std::slice::from_ref(&partial));
        archive.write(b"B").expect("written");
        archive.leave().expect("left");
        assert_eq!(holds(&archive), "0123456789AB");

        // Complete: nothing of the earlier one remains.
        archive.begin(segment(), size()).expect("begun");
        archive.write(b"all").expect("written");
        archive.complete().expect("complete");
        assert_eq!(names(&archive), [format!("{}.gz", segment())]);
    }

    #[test]
    fn no_link_is_followed_and_nothing_odd_is_written_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let outside = tempfile::NamedTempFile::new().expect("a file");
        let partial = directory.path().join(format!("{}.partial", segment()));
        let mut archive = open(&directory, CompressionAlgorithm::None);
        symlink(outside.path(), &partial).expect("a link");
        assert!(archive.begin(segment(), size()).is_err());
        std::fs::remove_file(&partial).expect("removed");
        std::fs::create_dir(&partial).expect("a directory");
        assert!(archive.begin(segment(), size()).is_err());
        assert_eq!(outside.path().metadata().expect("metadata").len(), 0);
    }

    #[test]
    fn histories_are_kept_and_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut archive = open(&directory, CompressionAlgorithm::Gzip);
        let second = TimelineId(2);
        assert!(archive.has_history(TimelineId::FIRST) && !archive.has_history(second));
        archive.store_history(second, b"1\t0/3000000\tno recovery target specified\n").expect("stored");
        assert!(archive.has_history(second));
        assert_eq!(names(&archive), ["00000002.history"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let opened = Archive::open(Path::new("/nowhere"), &Compression::default(), true, Arc::new(RealDisk));
        let problem = opened.err().expect("no directory").to_string();
        assert_eq!(problem, "could not open directory \"/nowhere\": No such file or directory");
    }
}
