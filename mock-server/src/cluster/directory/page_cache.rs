//! Reads files and leaves the page cache as it was.
//!
//! Whoever serves a directory of this machine reads each file once. Would all of it stay in the page cache, it would push out
//! what others on the machine work with; would all of it be dropped afterwards, theirs would go with it where they work with the
//! same files. So only those pages go that were not there before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads a file from `offset`, as far as it goes.
pub(super) fn read(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return linux::read(file, offset, buf);
    #[cfg(not(target_os = "linux"))]
    read_fully(file, offset, buf)
}

fn read_fully(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{self, IoSliceMut};
    use std::num::NonZeroU64;
    use std::ops::Range;

    use rustix::fs::{Advice, fadvise};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::read_fully;

    /// What is asked for at once. Where pages are larger, parts of them are dropped by nobody, which does no harm.
    const PAGE: u64 = 4096;

    /// How much of a read the page cache held.
    enum Probe {
        /// Up to the end of the file or of the buffer; the pieces were not there, and were not read.
        Read { end: usize, cold: Vec<Range<usize>> },
        /// A file system that does not tell.
        Unknown,
    }

    pub(super) fn read(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // Read-ahead would bring pages of which nobody would know that they are ours. Only an advice, both here and below.
        let _ = fadvise(file, 0, None, Advice::Random);
        let Probe::Read { end, cold } = probe(file, offset, buf)? else { return read_fully(file, offset, buf) };
        for piece in cold {
            let (start, length) = (piece.start, piece.len());
            let at = offset.saturating_add(start as u64);
            let count = read_fully(file, at, buf.get_mut(piece).unwrap_or_default())?;
            // Whole pages: parts of one would stay.
            let first = at - at % PAGE;
            let pages = at.saturating_add(length as u64).saturating_sub(first).next_multiple_of(PAGE);
            let _ = fadvise(file, first, NonZeroU64::new(pages), Advice::DontNeed);
            if count < length {
                return Ok(start + count);
            }
        }
        Ok(end)
    }

    /// Reads what is cached, page by page: a longer request would have the kernel fetch all of it behind the first page that
    /// is missing.
    fn probe(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<Probe> {
        let mut cold: Vec<Range<usize>> = Vec::new();
        let (mut start, length) = (0, buf.len());
        while start < length {
            let at = offset.saturating_add(start as u64);
            let to_page_end = usize::try_from(PAGE - at % PAGE).unwrap_or(length);
            let end = start.saturating_add(to_page_end).min(length);
            let Some(piece) = buf.get_mut(start..end) else { break };
            match preadv2(file, &mut [IoSliceMut::new(piece)], at, ReadWriteFlags::NOWAIT) {
                Ok(count) if start + count < end => return Ok(Probe::Read { end: start + count, cold }),
                Ok(_) => {}
                Err(Errno::AGAIN) => match cold.last_mut().filter(|last| last.end == start) {
                    Some(last) => last.end = end,
                    None => cold.push(start..end),
                },
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(Probe::Unknown),
                Err(error) => return Err(error.into()),
            }
            start = end;
        }
        Ok(Probe::Read { end: length, cold })
    }

    #[cfg(test)]
    mod tests {
        use std::fs;
        use std::path::Path;
        use std::process::Command;

        use super::*;

        const PAGES: usize = 64;

        fn content() -> Vec<u8> {
            (0..PAGES * 4096).map(|index| u8::try_from(index % 251).expect("small")).collect()
        }

        /// Bytes of a file that are in the page cache, as `fincore` of util-linux sees them.
        fn cached(path: &Path) -> Option<u64> {
            let output =
                Command::new("fincore").args(["--noheadings", "--bytes", "--output", "RES"]).arg(path).output();
            String::from_utf8_lossy(&output.ok()?.stdout).trim().parse().ok()
        }

        /// A file of which nothing is cached, or why there is none.
        fn cold_file(path: &Path) -> Result<File, &'static str> {
            fs::write(path, content()).expect("a file");
            let file = File::open(path).expect("a file");
            file.sync_all().expect("on disk");
            fadvise(&file, 0, None, Advice::DontNeed).expect("an advice");
            match cached(path) {
                None => Err("no fincore"),
                Some(0) => Ok(file),
                Some(_) => Err("a file system that keeps files in memory"),
            }
        }

        /// What of a file is cached once all of it was read, once somebody else has read nine of its pages, and what is not once all of it was
        /// read again.
        type Seen = (Option<u64>, Option<u64>, Vec<Range<usize>>);

        fn read_and_look() -> Result<Seen, &'static str> {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("16384");
            let file = cold_file(&path)?;
            let mut buf = vec![0; PAGES * 4096];
            assert_eq!(read(&file, 0, &mut buf).expect("a read"), buf.len());
            assert!(buf == content());
            let nothing = cached(&path);

            // Somebody works with eight pages in the middle, and with the last.
            let theirs = File::open(&path).expect("a file");
            fadvise(&theirs, 0, None, Advice::Random).expect("an advice");
            for page in [20, 21, 22, 23, 24, 25, 26, 27, PAGES as u64 - 1] {
                read_fully(&theirs, page * 4096, &mut [0; 4096]).expect("a page");
            }
            let nine = cached(&path);
            for piece in [32768, 5000] {
                let mut buf = vec![0; piece];
                let mut at = 0;
                while let count @ 1.. = read(&file, at as u64, &mut buf).expect("a read") {
                    assert!(buf[..count] == content()[at..at + count]);
                    at += count;
                }
                assert_eq!(at, PAGES * 4096);
            }
            let Probe::Read { cold, .. } = probe(&file, 0, &mut vec![0; PAGES * 4096]).expect("a probe") else {
                unreachable!("it could be told before")
            };
            Ok((nothing, nine, cold))
        }

        #[test]
        fn pages_that_were_not_cached_are_not_cached_afterwards_and_the_others_stay() {
            let expected = (Some(0), Some(9 * 4096), vec![0..20 * 4096, 28 * 4096..(PAGES - 1) * 4096]);
            let mut seen = None;
            // The kernel lets a page be that another processor is about to put on a list: on a busy machine not every try tells.
            for _ in 0..20 {
                match read_and_look() {
                    Err(reason) => return println!("skipped: reading leaves the page cache alone: {reason}"),
                    Ok(found) => seen = Some(found),
                }
                if seen.as_ref() == Some(&expected) {
                    break;
                }
            }
            assert_eq!(seen, Some(expected));
        }

        #[test]
        fn what_is_cached_stays() {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("16384");
            fs::write(&path, content()).expect("a file");
            let before = cached(&path);
            let file = File::open(&path).expect("a file");
            let mut buf = vec![0; PAGES * 4096 + 1];
            assert_eq!(read(&file, 0, &mut buf).expect("a read"), PAGES * 4096);
            assert!(buf[..PAGES * 4096] == content());
            assert_eq!(cached(&path), before);
            assert_eq!(read(&file, PAGES as u64 * 4096, &mut buf).expect("a read"), 0);
        }
    }
}
