//! Keeps nothing.

use backstop_protocol::base_backup::tar::MemberHeader;
use bytes::Bytes;

use super::wal::Nowhere;
use super::{Directory, Sink, WalFiles};
use crate::archive_check::Member;
use crate::error::ClientError;
use crate::receive::Tablespace;

/// A sink for backups that are only checked.
pub(super) struct Discard;

impl Sink for Discard {
    fn prepare(&mut self, _tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        Ok(())
    }

    fn wal_files(&mut self) -> Result<Box<dyn WalFiles>, ClientError> {
        Ok(Box::new(Nowhere))
    }

    fn begin_archive(&mut self, _tablespace: usize) -> Result<(), ClientError> {
        Ok(())
    }

    fn begin_member(&mut self, _header: &MemberHeader, _member: &Member) -> Result<(), ClientError> {
        Ok(())
    }

    fn data(&mut self, _bytes: &Bytes) -> Result<(), ClientError> {
        Ok(())
    }

    fn end_member(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    fn finish(&mut self, _manifest: Option<&[u8]>) -> Result<(), ClientError> {
        Ok(())
    }

    fn publish(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    fn directory(&self) -> Option<Directory> {
        None
    }

    fn keep(&mut self) {}
}
