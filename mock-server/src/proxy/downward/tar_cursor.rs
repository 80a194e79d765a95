//! Where in an archive a byte lies, learned from the headers that come by.

use backstop_protocol::base_backup::tar::{BLOCK, MemberHeader};

/// Follows an archive without keeping it. Whatever is wrong in it passes: judging is the client's.
#[derive(Clone, Debug)]
pub(super) struct TarCursor {
    block: Box<[u8; BLOCK]>,
    filled: usize,
    /// Bytes up to the next block that has a meaning.
    left: u64,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// So many that belong to what came before.
    Inside(u64),
    /// So many that are missing of a header or of a zero block.
    Block(usize),
}

/// What a block was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Member(MemberHeader),
    /// The first of the two zero blocks.
    End,
    /// No header that a server writes: nothing behind it can be told apart.
    Unknown,
}

impl TarCursor {
    /// At the beginning of an archive.
    pub(super) fn new() -> Self {
        Self { block: Box::new([0; BLOCK]), filled: 0, left: 0 }
    }

    /// In something that is no archive.
    pub(super) fn opaque() -> Self {
        Self { left: u64::MAX, ..Self::new() }
    }

    pub(super) fn ahead(&self) -> Ahead {
        if self.left > 0 { Ahead::Inside(self.left) } else { Ahead::Block(BLOCK - self.filled) }
    }

    /// Passes over bytes that [`Ahead::Inside`] counts.
    pub(super) fn skip(&mut self, bytes: u64) {
        if self.left != u64::MAX {
            self.left -= bytes.min(self.left);
        }
    }

    /// Takes in bytes of a block, at most as many as [`Ahead::Block`] says. When it is whole: what it is.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Found> {
        for (place, byte) in self.block.iter_mut().skip(self.filled).zip(bytes) {
            *place = *byte;
        }
        self.filled += bytes.len();
        if self.filled < BLOCK {
            return None;
        }
        self.filled = 0;
        let (found, left) = match MemberHeader::decode(&self.block) {
            Ok(Some(header)) => {
                let left = header.stored_size();
                (Found::Member(header), left)
            }
            Ok(None) => (Found::End, u64::MAX),
            Err(_) => (Found::Unknown, u64::MAX),
        };
        self.left = left;
        Some(found)
    }

    /// The block that was taken in last has yet to pass.
    pub(super) fn put_back(&mut self) {
        self.left = self.left.saturating_add(BLOCK as u64);
    }

    /// The block that was taken in last.
    pub(super) fn block(&self) -> &[u8; BLOCK] {
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::base_backup::tar::MemberKind;
    use proptest::prelude::*;

    use super::*;

    fn archive(sizes: &[u64]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let name = format!("base/1/{index}").into_bytes();
            let header =
                MemberHeader { name, kind: MemberKind::File, mode: 0o600, uid: 0, gid: 0, size: *size, mtime: 0 };
            archive.extend(header.encode().unwrap());
            archive.resize(archive.len() + usize::try_from(header.stored_size()).unwrap(), b'x');
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    /// What is found at which offset, when the archive comes in pieces of `chunk` bytes.
    fn follow(archive: &[u8], chunk: usize) -> Vec<(usize, Found)> {
        let (mut cursor, mut found, mut offset) = (TarCursor::new(), Vec::new(), 0);
        for mut piece in archive.chunks(chunk) {
            while !piece.is_empty() {
                let length = match cursor.ahead() {
                    Ahead::Inside(left) => {
                        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        cursor.skip(length as u64);
                        length
                    }
                    Ahead::Block(missing) => {
                        let length = piece.len().min(missing);
                        let taken = cursor.take(&piece[..length]);
                        found.extend(taken.map(|what| (offset + length - BLOCK, what)));
                        length
                    }
                };
                offset += length;
                piece = &piece[length..];
            }
        }
        found
    }

    proptest! {
        #[test]
        fn finds_every_member_whatever_the_pieces(sizes in proptest::collection::vec(0_u64..3000, 0..8), chunk in 1_usize..2000) {
            let archive = archive(&sizes);
            let found = follow(&archive, chunk);
            let expected = follow(&archive, archive.len());
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(found.len(), sizes.len() + 1);
            prop_assert_eq!(&found.last().unwrap().1, &Found::End);
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>, chunk in 1_usize..700) {
            follow(&bytes, chunk);
        }
    }
}
