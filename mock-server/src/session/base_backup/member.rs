//! Members of archives: what they are, and where their bytes come from.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::base_backup::incremental::{self, IncrementalHeader};
use backstop_protocol::base_backup::tar::MemberKind;
use backstop_protocol::control::ControlFile;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::wal_file::WalFileName;
use bytes::Bytes;

use super::super::Session;
use super::super::start_replication::wal_error;
use crate::cluster::{Entry, file_access};

/// `SINK_BUFFER_LENGTH`: file content comes in pieces of this size.
pub(super) const PIECE: usize = 32768;

/// One thing to be put into an archive.
#[derive(Debug)]
pub(super) struct Member {
    /// As in the archive.
    pub(super) name: Vec<u8>,
    /// As in the manifest.
    pub(super) path: Vec<u8>,
    pub(super) kind: MemberKind,
    pub(super) mode: u32,
    pub(super) mtime: u64,
    pub(super) size: u64,
    pub(super) content: Content,
    /// Whether the manifest names it.
    pub(super) listed: bool,
}

/// Where a member's bytes come from.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Entry(Entry),
    /// The changed blocks of a relation's file, behind their header.
    Blocks {
        header: Bytes,
        blocks: Vec<u32>,
        entry: Entry,
    },
    Wal(WalFileName),
}

impl Member {
    /// A small file that the server makes up.
    pub(super) fn invented(name: impl Into<Vec<u8>>, content: impl Into<Bytes>, mtime: u64) -> Self {
        let (name, content) = (name.into(), content.into());
        Self {
            path: name.clone(),
            name,
            kind: MemberKind::File,
            mode: 0o600,
            mtime,
            size: content.len() as u64,
            content: Content::Bytes(content),
            listed: true,
        }
    }

    /// A fault gives the file another text.
    pub(super) fn rewrite(&mut self, content: String) -> Result<(), Diagnostic> {
        if self.kind != MemberKind::File {
            let message = format!("rewrite-member: \"{}\" is not a file", self.name.escape_ascii());
            return Err(Diagnostic::error(SqlState::INTERNAL_ERROR, message));
        }
        self.size = content.len() as u64;
        self.content = Content::Bytes(content.into());
        Ok(())
    }

    /// A fault makes `pg_control` that of another cluster.
    pub(super) fn change_control(&mut self, system_identifier: u64) -> Result<(), Diagnostic> {
        let problem =
            |problem: String| Diagnostic::error(SqlState::INTERNAL_ERROR, format!("change-control: {problem}"));
        let Content::Bytes(content) = &self.content else { return Err(problem("not made by the server".to_owned())) };
        let control = ControlFile::decode(content).map_err(|error| problem(error.to_string()))?;
        self.content = Content::Bytes(ControlFile { system_identifier, ..control }.encode().into());
        Ok(())
    }

    /// The incremental file for the relation's file at `path`.
    pub(super) fn blocks(path: &[u8], entry: Entry, changed: &IncrementalHeader) -> Self {
        Self {
            name: incremental::name(&entry.name),
            path: incremental::name(path),
            kind: MemberKind::File,
            mode: entry.mode,
            mtime: entry.mtime,
            size: changed.file_size(),
            content: Content::Blocks { header: changed.encode().into(), blocks: changed.blocks().to_vec(), entry },
            listed: true,
        }
    }
}

impl Content {
    /// The number in its file of the block that is read at `offset`; none in the header of an incremental file.
    pub(super) fn block_at(&self, offset: u64) -> Option<u32> {
        let size = BLOCK_SIZE as u64;
        let Self::Blocks { header, blocks, .. } = self else { return u32::try_from(offset / size).ok() };
        let place = offset.checked_sub(header.len() as u64)? / size;
        blocks.get(usize::try_from(place).ok()?).copied()
    }

    /// How many bytes at most are read at once from `offset` on: of an incremental file the header, then block after block.
    pub(super) fn piece_at(&self, offset: u64) -> usize {
        let Self::Blocks { header, .. } = self else { return PIECE };
        let left = (header.len() as u64).saturating_sub(offset);
        if left > 0 { usize::try_from(left).unwrap_or(PIECE).min(PIECE) } else { BLOCK_SIZE }
    }
}

impl Session {
    /// Fills `piece`. What a file has lost since it was announced is zeros.
    pub(super) fn read(&self, content: &Content, offset: u64, piece: &mut [u8], what: &str) -> Result<(), Diagnostic> {
        match content {
            Content::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = bytes.get(from..).unwrap_or_default();
                for (place, byte) in piece.iter_mut().zip(bytes) {
                    *place = *byte;
                }
                Ok(())
            }
            Content::Entry(entry) => self.read_entry(entry, offset, piece, what),
            Content::Blocks { header, entry, .. } => {
                // A piece is one block, or a part of the header.
                if let Some(block) = content.block_at(offset) {
                    return self.read_entry(entry, u64::from(block) * BLOCK_SIZE as u64, piece, what);
                }
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                for (place, byte) in piece.iter_mut().zip(header.get(at..).unwrap_or_default()) {
                    *place = *byte;
                }
                Ok(())
            }
            Content::Wal(file) => {
                self.shared.cluster.read_wal_file(*file, offset, piece).map_err(|error| wal_error(&error))
            }
        }
    }

    fn read_entry(&self, entry: &Entry, offset: u64, piece: &mut [u8], what: &str) -> Result<(), Diagnostic> {
        let mut filled = 0;
        while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = self.shared.cluster.read(entry, offset + filled as u64, rest);
            match read.map_err(|error| unreadable(what, &error))? {
                0 => {
                    rest.fill(0);
                    break;
                }
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// What a server says of a file that it cannot read.
pub(super) fn unreadable(name: &str, error: &std::io::Error) -> Diagnostic {
    file_access(&format!("could not read file \"./{name}\""), error)
}
