//! The files that the blocks of one relation file come from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::incremental::{FIXED_SIZE, IncrementalHeader};
use backstop_protocol::page::BLOCK_SIZE;

use crate::error::ClientError;

/// A whole file, or an incremental one.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// In bytes.
    pub(super) length: u64,
    /// Of an incremental file.
    pub(super) header: Option<IncrementalHeader>,
    /// How many blocks are taken from it, and where the last of them ends.
    pub(super) blocks_read: u32,
    pub(super) highest: u64,
}

impl Source {
    /// Opens a file that holds all blocks; nothing, if there is none.
    pub(super) fn whole(path: &Path) -> Result<Option<Self>, ClientError> {
        match File::open(path) {
            Ok(file) => Self::new(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClientError::local("open file", path)(error)),
        }
    }

    /// Opens an incremental file and reads its header.
    pub(super) fn incremental(path: &Path) -> Result<Self, ClientError> {
        let file = File::open(path).map_err(ClientError::local("open file", path))?;
        let mut source = Self::new(path, file)?;
        source.header = Some(source.read_header()?);
        Ok(source)
    }

    fn new(path: &Path, file: File) -> Result<Self, ClientError> {
        let length = file.metadata().map_err(ClientError::local("stat file", path))?.len();
        Ok(Self { path: path.to_path_buf(), file, length, header: None, blocks_read: 0, highest: 0 })
    }

    fn refuse(&self, problem: impl std::fmt::Display) -> ClientError {
        ClientError::Unusable(format!("file \"{}\" {problem}", self.path.display()))
    }

    fn short(&self, read: usize, wanted: usize) -> ClientError {
        let path = self.path.display();
        ClientError::Unusable(format!("could not read file \"{path}\": read {read} of {wanted}"))
    }

    fn read_header(&self) -> Result<IncrementalHeader, ClientError> {
        let mut start = Vec::new();
        self.read_up_to(FIXED_SIZE, &mut start)?;
        if let Some(fixed) = start.first_chunk::<FIXED_SIZE>() {
            let size = IncrementalHeader::size_from_start(*fixed).map_err(|error| self.refuse(error))?;
            start.clear();
            self.read_up_to(size, &mut start)?;
            if start.len() < size {
                return Err(self.short(start.len(), size));
            }
            return IncrementalHeader::parse(&start).map_err(|error| self.refuse(error));
        }
        // Three numbers of four bytes, each of them read on its own by the original.
        let magic = start.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        if let Some(magic) = magic
            && let Err(error) = IncrementalHeader::size_from_start(padded(magic))
        {
            return Err(self.refuse(error));
        }
        Err(self.short(start.len() % 4, 4))
    }

    /// Reads from the beginning, as many bytes as there are.
    fn read_up_to(&self, length: usize, into: &mut Vec<u8>) -> Result<(), ClientError> {
        into.resize(length, 0);
        let mut filled = 0;
        while filled < length {
            let rest = into.get_mut(filled..).unwrap_or_default();
            match self.file.read_at(rest, filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::local("read file", &self.path)(error)),
            }
        }
        into.truncate(filled);
        Ok(())
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read_blocks(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ClientError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return self.too_short(offset);
            }
            ClientError::local("read from file", &self.path)(error)
        })
    }

    /// A block that is not there.
    fn too_short(&self, offset: u64) -> ClientError {
        let path = self.path.display();
        let block = offset + self.length.saturating_sub(offset) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let read = self.length.saturating_sub(block);
        ClientError::Unusable(format!(
            "could not read from file \"{path}\", offset {block}: read {read} of {BLOCK_SIZE}"
        ))
    }

    /// Requires that every block is there, before anything is written.
    pub(super) fn check_length(&self, dry_run: bool) -> Result<(), ClientError> {
        if self.length < self.highest {
            if dry_run {
                let (expected, found) = (self.highest, self.length);
                return Err(self.refuse(format!("is too short: expected {expected}, found {found}")));
            }
            return Err(self.too_short(self.length / BLOCK_SIZE as u64 * BLOCK_SIZE as u64));
        }
        match &self.header {
            Some(header) if header.file_size() != self.length => {
                let (found, expected) = (self.length, header.file_size());
                Err(self.refuse(format!("has {found} bytes, expected {expected}")))
            }
            _ => Ok(()),
        }
    }
}

/// A beginning whose magic number alone is judged.
fn padded(magic: u32) -> [u8; FIXED_SIZE] {
    let mut start = [0; FIXED_SIZE];
    for (to, from) in start.iter_mut().zip(magic.to_le_bytes()) {
        *to = from;
    }
    start
}

/// Where incremental files can be, below the data directory; elsewhere such a name is a file like any other.
pub(super) fn may_be_in(directory: &[u8]) -> bool {
    directory.starts_with(b"base/") || directory == b"global" || directory.starts_with(b"pg_tblspc/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(noise: Vec<u8>, count in 0..3000_u32, cut in 0_usize..20_000) {
            let scratch = tempfile::tempdir().expect("a directory");
            let path = scratch.path().join("INCREMENTAL.1");
            let mut content = IncrementalHeader::new(0, (0..count).collect()).expect("a header").encode();
            content.extend(&noise);
            content.truncate(cut);
            for content in [&noise, &content] {
                std::fs::write(&path, content).expect("a file");
                if let Ok(source) = Source::incremental(&path) {
                    let mut block = [0; BLOCK_SIZE];
                    let _ = source.read_blocks(cut as u64, &mut block);
                    let _ = source.check_length(true);
                }
            }
        }
    }
}
