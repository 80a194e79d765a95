//! The disk on which a backup is made.
//!
//! Everything that a backup does to files goes through a [`Disk`], which lets it happen or says why it cannot. A real one lets
//! everything happen. One that is full, that does not keep what it was given, or that has become read-only is how a client is
//! shown what it will meet one day.

use std::fmt;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What happens to the files of a backup. The methods of this trait do what they are given and nothing else.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Something is made, renamed or removed at `path` by `work`.
    ///
    /// # Errors
    /// What the operating system said, or this disk instead of it.
    fn change(&self, path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let _ = path;
        work()
    }

    /// `bytes` are written to the file at `path` by `work`, or the first of them: how many is returned.
    ///
    /// # Errors
    /// As for [`change`](Self::change).
    fn write(&self, path: &Path, bytes: &[u8], work: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let _ = path;
        work(bytes)
    }

    /// Whether zeros behind the end of a file may become a hole, which takes no room and no time. A backup that is to be used should not
    /// have any: the server would look for room when it writes there, and stop if there is none.
    fn makes_holes(&self) -> bool {
        false
    }

    /// The file or directory at `path` is forced to disk by `work`.
    ///
    /// # Errors
    /// As for [`change`](Self::change).
    fn sync(&self, path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let _ = path;
        work()
    }
}

/// A disk on which everything happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// An open file on a [`Disk`].
#[derive(Debug)]
pub(crate) struct File {
    inner: fs::File,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl File {
    pub(crate) fn new(inner: fs::File, path: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { inner, path, disk }
    }

    /// Makes the file this long. What it gains are zeros, which need no room.
    pub(crate) fn set_len(&self, size: u64) -> io::Result<()> {
        self.disk.change(&self.path, &mut || self.inner.set_len(size))
    }

    /// Writes all of `bytes` at `offset`, wherever the file stands.
    pub(crate) fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.disk.write(&self.path, bytes, &mut |bytes| self.inner.write_at(bytes, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Has the kernel append bytes of `source`, from `offset` or from where it stands; at most `length` of them. Returns how many.
    pub(crate) fn append_range(
        &self,
        source: &fs::File,
        mut offset: Option<&mut u64>,
        length: usize,
    ) -> io::Result<usize> {
        let mut copied = 0;
        self.disk.change(&self.path, &mut || {
            copied = rustix::fs::copy_file_range(source, offset.as_deref_mut(), &self.inner, None, length)?;
            Ok(())
        })?;
        Ok(copied)
    }

    /// Shares the content of `source`, on file systems that can.
    pub(crate) fn share(&self, source: &fs::File) -> io::Result<()> {
        self.disk.change(&self.path, &mut || Ok(rustix::fs::ioctl_ficlone(&self.inner, source)?))
    }

    /// Forces the content to disk.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.disk.sync(&self.path, &mut || self.inner.sync_all())
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = &mut self.inner;
        let holes = self.disk.makes_holes();
        self.disk.write(&self.path, bytes, &mut |bytes| {
            if holes && make_hole(file, bytes)? { Ok(bytes.len()) } else { file.write(bytes) }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The least that is worth a hole, in bytes: a page of most systems.
const HOLE: usize = 4096;

/// Makes the file longer instead of writing zeros to its end. False if that is not what would be written.
fn make_hole(file: &mut fs::File, bytes: &[u8]) -> io::Result<bool> {
    // Put together piece by piece, so that many bytes are looked at at once.
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |any, byte| any | byte) == 0;
    if bytes.len() < HOLE || !bytes.chunks(HOLE).all(zero) {
        return Ok(false);
    }
    let end = file.metadata()?.len();
    if file.stream_position()? != end {
        return Ok(false);
    }
    file.set_len(end + bytes.len() as u64)?;
    file.seek(SeekFrom::End(0))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Mutex;

    use super::*;

    /// Takes three bytes, and tells what it was asked.
    #[derive(Debug, Default)]
    struct Small(Mutex<Vec<String>>);

    impl Disk for Small {
        fn change(&self, path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
            self.0.lock().expect("a list").push(format!("change {}", path.display()));
            work()
        }

        fn write(
            &self,
            path: &Path,
            bytes: &[u8],
            work: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
        ) -> io::Result<usize> {
            let mut asked = self.0.lock().expect("a list");
            asked.push(format!("write {} {}", path.display(), bytes.len()));
            if asked.len() > 1 { Err(io::ErrorKind::StorageFull.into()) } else { work(bytes.get(..3).unwrap_or(bytes)) }
        }

        fn sync(&self, path: &Path, _work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
            self.0.lock().expect("a list").push(format!("sync {}", path.display()));
            Ok(())
        }
    }

    #[test]
    fn a_file_asks_its_disk_before_it_does_anything() {
        let disk = Arc::new(Small::default());
        let file = tempfile::tempfile().expect("a file");
        let mut file = File::new(file, "f".into(), Arc::clone(&disk) as _);
        assert_eq!(file.write_all(b"hello").expect_err("full").kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.inner.metadata().expect("a file").len(), 3);
        file.set_len(10).expect("allowed");
        file.sync_all().expect("pretended");
        assert_eq!(*disk.0.lock().expect("a list"), ["write f 5", "write f 2", "change f", "sync f"]);
    }

    #[derive(Debug)]
    struct Sparse;

    impl Disk for Sparse {
        fn makes_holes(&self) -> bool {
            true
        }
    }

    #[test]
    fn only_zeros_at_the_end_become_a_hole() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("f");
        let open = |disk| {
            let file = fs::File::create(&path).expect("a file");
            File::new(file, path.clone(), disk)
        };
        let mut pieces = vec![vec![1; HOLE], vec![0; 16 * HOLE], vec![0; HOLE - 1], vec![0; 8 * HOLE]];
        pieces.extend([[vec![0; HOLE], vec![7; 1]].concat(), vec![0; HOLE]]);
        let mut rooms = Vec::new();
        for disk in [Arc::new(RealDisk) as Arc<dyn Disk>, Arc::new(Sparse)] {
            let mut file = open(disk);
            for piece in &pieces {
                file.write_all(piece).expect("written");
            }
            assert_eq!(fs::read(&path).expect("a file"), pieces.concat());
            // In the middle of a file zeros are written over what is there.
            file.inner.seek(SeekFrom::Start(0)).expect("a place");
            file.write_all(&[0; HOLE]).expect("written");
            file.write_all(&[3]).expect("written");
            let mut expected = pieces.concat();
            expected[..HOLE].fill(0);
            expected[HOLE] = 3;
            assert_eq!(fs::read(&path).expect("a file"), expected);
            rooms.push(fs::metadata(&path).expect("a file").blocks() * 512);
        }
        // Where the file system knows holes.
        assert!(rooms[1] <= rooms[0], "{rooms:?}");
    }
}
