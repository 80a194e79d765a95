//! Incremental backups (since 17): the manifest of the backup before, which goes to the server, and the files that hold changed
//! blocks only, which come back.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::incremental::{FIXED_SIZE, IncrementalHeader, plain_name};
use backstop_protocol::base_backup::manifest::{ManifestError, ManifestUpload, PriorBackup};
use backstop_protocol::base_backup::relation::RelationFile;
use backstop_protocol::command::Command;
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Bytes, BytesMut};

use crate::connection::Connection;
use crate::error::ClientError;

/// What `pg_basebackup` sends at once, in bytes.
const PIECE: usize = 65536;

/// UPLOAD_MANIFEST: gives the server the manifest at `path`, and returns what is in it.
///
/// The server judges the manifest. It is read here as well: what an incremental backup may hold follows from it.
pub(crate) async fn upload(
    connection: &mut Connection,
    path: &Path,
    system_identifier: u64,
) -> Result<PriorBackup, ClientError> {
    let version = connection.version();
    if !version.has_incremental() {
        return Err(ClientError::Refused("server does not support incremental backup".to_owned()));
    }
    let mut file = File::open(path).map_err(ClientError::local("open file", path))?;
    connection.set_doing("could not upload manifest");
    connection.query(&Command::UploadManifest.to_sql(version)).await?;
    match connection.receive().await? {
        BackendMessage::CopyInResponse => {}
        other => return Err(connection.unexpected("CopyInResponse", other.name())),
    }
    let mut upload = ManifestUpload::new(system_identifier);
    let mut problem: Result<(), ManifestError> = Ok(());
    let mut piece = vec![0; PIECE];
    let mut out = BytesMut::new();
    loop {
        let length = file.read(&mut piece).map_err(ClientError::local("read file", path))?;
        let bytes = piece.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if problem.is_ok() {
            problem = upload.append(bytes);
        }
        out.clear();
        FrontendMessage::CopyData(Bytes::copy_from_slice(bytes)).encode(&mut out);
        if let Err(error) = connection.send(&out).await {
            return Err(last_word(connection, error).await);
        }
    }
    out.clear();
    FrontendMessage::CopyDone.encode(&mut out);
    connection.send(&out).await?;
    match connection.receive().await? {
        BackendMessage::CommandComplete(_) => {}
        other => return Err(connection.unexpected("CommandComplete", other.name())),
    }
    match connection.receive().await? {
        BackendMessage::ReadyForQuery(_) => {}
        other => return Err(connection.unexpected("ReadyForQuery", other.name())),
    }
    let prior = problem.and_then(|()| upload.finish());
    prior.map_err(|error| ClientError::Manifest(format!("\"{}\": {error}", path.display())))
}

/// What the server said before it went away, which tells more than that it went.
async fn last_word(connection: &mut Connection, error: ClientError) -> ClientError {
    match connection.receive().await {
        Err(said @ ClientError::Server { .. }) => said,
        _ => error,
    }
}

/// Whether a file of this path holds changed blocks only, if it stands in an incremental backup. The files of relations are
/// known by their names: what a user called `INCREMENTAL.conf` is a file like any other.
pub(crate) fn relation(path: &[u8]) -> Option<Vec<u8>> {
    plain_name(path).filter(|plain| RelationFile::parse(plain).is_some())
}

/// Follows the content of a file that holds changed blocks.
#[derive(Debug)]
pub(crate) struct BlockFile {
    size: u64,
    /// The header, as far as it has come.
    header: Vec<u8>,
    /// How long it is: at most half a megabyte.
    wanted: usize,
    checked: bool,
}

impl BlockFile {
    /// A file of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, header: Vec::new(), wanted: FIXED_SIZE, checked: false }
    }

    /// Takes the next bytes of the file.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !self.checked {
            let step = bytes.len().min(self.wanted - self.header.len());
            let (now, later) = bytes.split_at(step);
            self.header.extend_from_slice(now);
            bytes = later;
            if self.header.len() < self.wanted {
                return Ok(());
            }
            self.check()?;
        }
        Ok(())
    }

    /// Acts on a header that is complete, or on its beginning.
    fn check(&mut self) -> Result<(), String> {
        if let (FIXED_SIZE, Some(start)) = (self.wanted, self.header.first_chunk()) {
            self.wanted = IncrementalHeader::size_from_start(*start).map_err(|error| error.to_string())?;
            if self.wanted > FIXED_SIZE {
                return Ok(());
            }
        }
        let header = IncrementalHeader::parse(&self.header).map_err(|error| error.to_string())?;
        if header.file_size() != self.size {
            return Err(format!("has {} bytes, expected {}", self.size, header.file_size()));
        }
        self.checked = true;
        self.header = Vec::new();
        Ok(())
    }

    /// The file is complete.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.checked { Ok(()) } else { Err(format!("has {} bytes, too few for its header", self.size)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(blocks: Vec<u32>) -> Vec<u8> {
        let header = IncrementalHeader::new(14, blocks).expect("a header");
        let mut bytes = header.encode();
        bytes.resize(usize::try_from(header.file_size()).expect("small"), 7);
        bytes
    }

    fn judge(bytes: &[u8], size: u64, piece: usize) -> Result<(), String> {
        let mut file = BlockFile::new(size);
        bytes.chunks(piece.max(1)).try_for_each(|piece| file.push(piece))?;
        file.finish()
    }

    #[test]
    fn what_a_server_sends_is_sound() {
        for blocks in [vec![], vec![0], vec![0, 3, 13]] {
            let bytes = file(blocks);
            for piece in [1, 12, 13, 8192, bytes.len()] {
                assert_eq!(judge(&bytes, bytes.len() as u64, piece), Ok(()));
            }
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let sound = file(vec![0, 3]);
        let said = |spoil: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            spoil(&mut bytes);
            judge(&bytes, bytes.len() as u64, 1000).expect_err("spoilt")
        };
        let told = [
            said(&|bytes| bytes[0] ^= 1),
            said(&|bytes| bytes[4] = 1),
            said(&|bytes| bytes[7] = 1),
            said(&|bytes| bytes[10] = 3),
            said(&|bytes| bytes[12] = 9),
            said(&|bytes| bytes[100] = 1),
            said(&|bytes| bytes.truncate(20_000)),
            said(&|bytes| bytes.truncate(100)),
            said(&|bytes| bytes.truncate(5)),
            said(&Vec::clear),
        ];
        insta::assert_snapshot!(told.join("\n"), @r#"
        has bad incremental magic number (0xd3ae1f0c, expected 0xd3ae1f0d)
        has data in the padding of its header at byte 16
        has block count 16777218 in excess of segment size 131072
        has truncation block length 196622 in excess of segment size 131072
        has block number 3 out of order
        has data in the padding of its header at byte 100
        has 20000 bytes, expected 24576
        has 100 bytes, too few for its header
        has 5 bytes, too few for its header
        has 0 bytes, too few for its header
        "#);
    }

    #[test]
    fn only_files_of_relations_count() {
        assert_eq!(relation(b"base/5/INCREMENTAL.1259.1"), Some(b"base/5/1259.1".to_vec()));
        assert_eq!(relation(b"global/INCREMENTAL.1260_vm"), Some(b"global/1260_vm".to_vec()));
        for path in [&b"INCREMENTAL.1259"[..], b"base/5/INCREMENTAL.conf", b"base/5/1259", b"pg_xact/INCREMENTAL.0000"]
        {
            assert_eq!(relation(path), None, "{}", path.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(noise: Vec<u8>, size: u64, piece in 1_usize..100) {
            let _ = judge(&noise, size, piece);
        }
    }
}
