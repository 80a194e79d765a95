//! The disk on which a backup is made.
//!
//! Everything that a backup does to files goes through a [`Disk`], which lets it happen or says why it cannot. A real one lets
//! everything happen. One that is full, that does not keep what it was given, or that has become read-only is how a client is
//! shown what it will meet one day.

use std::fmt;
use std::fs;
use std::io::{self, Write};
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
        self.disk.write(&self.path, bytes, &mut |bytes| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
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
}
