//! A text that grows without bound and takes no memory: PostgreSQL's `BufFile`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// What is kept in memory: the manifest of some ten thousand files.
const MEMORY: usize = 4 << 20;

/// Bytes of which the first lie in a temporary file without a name, once there are too many for memory.
#[derive(Debug, Default)]
pub(super) struct Spool {
    file: Option<File>,
    /// How many bytes are in the file.
    spilled: u64,
    tail: Vec<u8>,
}

impl Spool {
    /// Where to append. Then [`spill`](Self::spill) is due.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Moves what is too much for memory into the file.
    pub(super) fn spill(&mut self) -> io::Result<()> {
        if self.tail.len() < MEMORY {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.tail)?;
        self.spilled += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.spilled + self.tail.len() as u64
    }

    /// Fills `buf` from `offset`, less of it only at the end.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let in_file = usize::try_from(self.spilled.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let (from_file, from_memory) = buf.split_at_mut(in_file);
        if let Some(file) = self.file.as_ref().filter(|_| in_file > 0) {
            file.read_exact_at(from_file, offset)?;
        }
        let skip = usize::try_from(offset.saturating_sub(self.spilled)).unwrap_or(usize::MAX);
        let rest = self.tail.get(skip..).unwrap_or_default();
        let length = rest.len().min(from_memory.len());
        for (place, byte) in from_memory.iter_mut().zip(rest) {
            *place = *byte;
        }
        Ok(in_file + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spilled_is_read_again() {
        let mut spool = Spool::default();
        let mut expected = Vec::new();
        for number in 0..200_000_u32 {
            let line = format!("line {number} of a text that does not fit into memory\n");
            spool.tail().extend_from_slice(line.as_bytes());
            spool.spill().expect("a temporary file");
            expected.extend_from_slice(line.as_bytes());
            assert!(spool.tail.len() < MEMORY);
        }
        assert!(spool.spilled > 0 && !spool.tail.is_empty() && spool.len() == expected.len() as u64);
        for piece in [8192, 32768, 1_000_003] {
            let (mut read, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                let length = spool.read_at(read.len() as u64, &mut buffer).expect("read");
                assert!(length == piece || read.len() + length == expected.len());
                if length == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..length]);
            }
            assert!(read == expected, "in pieces of {piece}");
        }
        assert_eq!(spool.read_at(u64::MAX, &mut [0; 4]).expect("read"), 0);
    }
}
