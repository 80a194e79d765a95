//! Tar files that are put together here.

use std::io::{self, Write};

use backstop_protocol::base_backup::tar::{BLOCK, MemberHeader, MemberKind, padding};

/// The two zero blocks at the end of a tar file.
pub(super) const TRAILER: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Writes members one after the other.
pub(super) struct TarWriter<W> {
    out: W,
    /// Bytes of content still to come, and then of padding.
    left: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Begins a member. The one before must be complete.
    pub(super) fn begin(&mut self, header: &MemberHeader) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("a member is incomplete"));
        }
        let block = header.encode().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        self.out.write_all(&block)?;
        self.left = header.size;
        self.padding = padding(header.size);
        Ok(())
    }

    /// Writes content of the member.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left =
            self.left.checked_sub(bytes.len() as u64).ok_or_else(|| io::Error::other("a member is too long"))?;
        self.out.write_all(bytes)
    }

    /// Fills what is left of the member with zeros, and pads it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        const ZEROS: [u8; 8192] = [0; 8192];
        while self.left > 0 {
            let step = self.left.min(ZEROS.len() as u64);
            self.out.write_all(ZEROS.get(..usize::try_from(step).unwrap_or(0)).unwrap_or_default())?;
            self.left -= step;
        }
        self.out.write_all(TRAILER.get(..self.padding).unwrap_or_default())?;
        self.padding = 0;
        Ok(())
    }

    /// Writes a whole file.
    pub(super) fn file(&mut self, name: &[u8], mode: u32, unix_seconds: u64, content: &[u8]) -> io::Result<()> {
        self.begin(&file_header(name, mode, unix_seconds, content.len() as u64))?;
        self.data(content)?;
        self.end()
    }

    /// Ends the archive.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(&TRAILER)?;
        self.out.flush()
    }

    pub(super) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

/// The header of a file that did not come from the server.
pub(super) fn file_header(name: &[u8], mode: u32, unix_seconds: u64, size: u64) -> MemberHeader {
    MemberHeader { name: name.to_vec(), kind: MemberKind::File, mode, uid: 0, gid: 0, size, mtime: unix_seconds }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn writes_what_others_read() {
        let mut writer = TarWriter::new(Vec::new());
        writer.file(b"a", 0o600, 7, b"hello").expect("written");
        writer.begin(&file_header(b"b", 0o640, 7, 1000)).expect("begun");
        writer.data(b"short").expect("written");
        writer.end().expect("padded");
        assert!(writer.data(b"x").is_err());
        writer.finish().expect("finished");
        let bytes = std::mem::take(writer.get_mut());
        let mut archive = tar::Archive::new(&bytes[..]);
        let read = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            (entry.path().expect("a name").display().to_string(), entry.header().mode().expect("a mode"), content)
        });
        let read: Vec<_> = read.collect();
        assert_eq!(read[0], ("a".to_owned(), 0o600, b"hello".to_vec()));
        assert_eq!((read[1].1, read[1].2.len(), &read[1].2[..6]), (0o640, 1000, &b"short\0"[..]));
    }
}
