//! The blocks of a data directory that its WAL holds images of.

use std::io;
use std::path::PathBuf;

use backstop_protocol::page::{BLOCK_SIZE, BLOCKS_PER_FILE};
use backstop_protocol::wal::log::Blocks;
use backstop_protocol::wal::record::block::{BlockTag, RelFileLocator};

use super::super::entry::Origin;
use super::{Directory, read};

/// Files of which blocks are taken: the first that a walk finds, so that memory does not grow with the directory.
const MAX_FILES: usize = 4096;

/// `DEFAULTTABLESPACE_OID` and `GLOBALTABLESPACE_OID`.
const PG_DEFAULT: u32 = 1663;
const PG_GLOBAL: u32 = 1664;

/// Main forks of relations that a backup sends, and that WAL is written for: none of unlogged and temporary ones.
#[derive(Debug)]
pub(super) struct RelationFiles {
    files: Vec<RelationFile>,
    /// Blocks in all of them.
    count: u64,
}

#[derive(Debug)]
struct RelationFile {
    path: PathBuf,
    /// Its first block.
    first: BlockTag,
    /// The number of its first block among all.
    number: u64,
}

impl RelationFiles {
    /// What a walk of the data directory and its tablespaces finds.
    pub(super) fn of(directory: &Directory) -> io::Result<Self> {
        let mut this = Self { files: Vec::new(), count: 0 };
        let tablespaces = directory.tablespaces().iter().map(|tablespace| Some(tablespace.oid));
        for oid in std::iter::once(None).chain(tablespaces) {
            for entry in directory.entries(oid)? {
                if this.files.len() == MAX_FILES {
                    return Ok(this);
                }
                let entry = entry?;
                let blocks = (entry.size() / BLOCK_SIZE as u64).min(BLOCKS_PER_FILE.into());
                let (Some(first), Origin::Disk(path)) = (first_block(&entry.name, oid), entry.origin) else { continue };
                if blocks > 0 {
                    this.files.push(RelationFile { path, first, number: this.count });
                    this.count += blocks;
                }
            }
        }
        Ok(this)
    }
}

impl Blocks for RelationFiles {
    fn count(&self) -> u64 {
        self.count
    }

    fn read(&self, number: u64, page: &mut [u8; BLOCK_SIZE]) -> io::Result<BlockTag> {
        let index = self.files.partition_point(|file| file.number <= number);
        let file = index.checked_sub(1).and_then(|index| self.files.get(index)).ok_or(io::ErrorKind::NotFound)?;
        let within = number - file.number;
        if read(&file.path, within * BLOCK_SIZE as u64, page)? < BLOCK_SIZE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let within = u32::try_from(within).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(BlockTag { block: file.first.block + within, ..file.first })
    }
}

/// The first block of the file that an archive names so, if it is a main fork's: `base/5/1259`, `global/1262`,
/// `PG_15_202209061/5/16384.1` in a tablespace.
fn first_block(name: &[u8], tablespace: Option<u32>) -> Option<BlockTag> {
    let parts: Vec<_> = std::str::from_utf8(name).ok()?.split('/').collect();
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (tablespace, database, file) = match (parts[..].as_ref(), tablespace) {
        (["global", file], None) => (PG_GLOBAL, 0, *file),
        (["base", database, file], None) => (PG_DEFAULT, number(database)?, *file),
        ([_, database, file], Some(oid)) => (oid, number(database)?, *file),
        _ => return None,
    };
    let (relation, segment) = match file.split_once('.') {
        Some((relation, segment)) => (number(relation)?, number(segment)?),
        None => (number(file)?, 0),
    };
    let locator = RelFileLocator { tablespace, database, relation };
    Some(BlockTag { locator, fork: 0, block: segment.checked_mul(BLOCKS_PER_FILE)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_blocks() {
        let tag = |tablespace, database, relation, block| {
            Some(BlockTag { locator: RelFileLocator { tablespace, database, relation }, fork: 0, block })
        };
        assert_eq!(first_block(b"base/5/1259", None), tag(1663, 5, 1259, 0));
        assert_eq!(first_block(b"base/5/16384.2", None), tag(1663, 5, 16_384, 262_144));
        assert_eq!(first_block(b"global/1262", None), tag(1664, 0, 1262, 0));
        assert_eq!(first_block(b"PG_15_202209061/5/16390", Some(16_385)), tag(16_385, 5, 16_390, 0));
        for other in
            ["base/5/1259_fsm", "base/5/PG_VERSION", "global/pg_filenode.map", "pg_xact/0000", "base/5/16384_init", "1"]
        {
            assert_eq!(first_block(other.as_bytes(), None), None, "{other}");
        }
        assert_eq!(first_block(b"base/5/1.99999", None), None, "more blocks than a relation can have");
    }
}
