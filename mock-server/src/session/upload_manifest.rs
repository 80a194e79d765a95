//! UPLOAD_MANIFEST.

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::frontend::FrontendMessage;

use super::{Ending, Session, Stop};

/// The most bytes of a manifest that are taken: a real one has about 150 for each file.
const MAX_MANIFEST: usize = 64 << 20;

impl Session {
    /// Takes the manifest of a previous backup and checks it. No incremental backup can follow, since this server keeps no WAL
    /// summaries; BASE_BACKUP says so.
    pub(super) async fn upload_manifest(&mut self) -> Result<(), Stop> {
        self.send(BackendMessage::CopyInResponse).await?;
        let mut manifest = Vec::new();
        loop {
            match self.receive().await? {
                FrontendMessage::CopyData(data) => {
                    if manifest.len().saturating_add(data.len()) > MAX_MANIFEST {
                        let message = "out of memory";
                        return Err(Diagnostic::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message).into());
                    }
                    manifest.extend_from_slice(&data);
                }
                FrontendMessage::CopyDone => break,
                FrontendMessage::CopyFail(reason) => {
                    let message = format!("COPY from stdin failed: {reason}");
                    return Err(Diagnostic::error(SqlState::QUERY_CANCELED, message).into());
                }
                FrontendMessage::Flush | FrontendMessage::Sync => {}
                FrontendMessage::Terminate => return Err(Ending::Terminated.into()),
                other => {
                    let tag = char::from(other.tag());
                    let message = format!("unexpected message type 0x{:02X} during COPY from stdin", tag as u32);
                    return Err(Ending::Fatal(Diagnostic::fatal(SqlState::PROTOCOL_VIOLATION, message)).into());
                }
            }
        }
        let internal = |message: String| Stop::from(Diagnostic::error(SqlState::INTERNAL_ERROR, message));
        let manifest = Manifest::parse(&manifest).map_err(|error| internal(error.to_string()))?;
        let ours = self.shared.cluster.system_identifier();
        match manifest.system_identifier {
            Some(theirs) if theirs != ours => Err(internal(format!(
                "system identifier in backup manifest is {theirs}, but database system identifier is {ours}"
            ))),
            None => Err(internal("backup manifest version 1 does not support incremental backup".to_owned())),
            Some(_) => Ok(()),
        }
    }
}
