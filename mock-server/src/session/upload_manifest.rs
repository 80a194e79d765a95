//! UPLOAD_MANIFEST.

use std::sync::Arc;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::manifest::{ManifestError, ManifestUpload};
use backstop_protocol::frontend::FrontendMessage;

use super::{Ending, Session, Stop};

/// The longest message of an upload, in bytes; clients send some 64 kB. PostgreSQL takes a gigabyte.
const MAX_MESSAGE: usize = 64 << 20;

impl Session {
    /// Takes the manifest of a previous backup, checks it as it comes, and keeps it for the incremental backups of this session,
    /// in the place of one that was uploaded before. One that is refused changes nothing.
    pub(super) async fn upload_manifest(&mut self) -> Result<(), Stop> {
        self.send(BackendMessage::CopyInResponse).await?;
        let mut upload = ManifestUpload::new(self.shared.cluster.system_identifier());
        loop {
            self.flush().await?;
            let received = self.wire.read(MAX_MESSAGE).await;
            match self.heard(received)? {
                FrontendMessage::CopyData(data) => upload.append(&data).map_err(|error| refused(&error))?,
                FrontendMessage::CopyDone => break,
                FrontendMessage::CopyFail(reason) => {
                    let message = format!("COPY from stdin failed: {reason}");
                    return Err(Diagnostic::error(SqlState::QUERY_CANCELED, message).into());
                }
                FrontendMessage::Flush | FrontendMessage::Sync => {}
                other => {
                    // The error leaves the message half read, which is the end.
                    let message = format!("unexpected message type 0x{:02X} during COPY from stdin", other.tag());
                    self.report(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message)).await?;
                    let message = "terminating connection because protocol synchronization was lost";
                    return Err(Ending::Fatal(Diagnostic::fatal(SqlState::PROTOCOL_VIOLATION, message)).into());
                }
            }
        }
        let prior = upload.finish().map_err(|error| refused(&error))?;
        self.uploaded = Some(Arc::new(prior));
        Ok(())
    }
}

/// `manifest_report_error`.
fn refused(error: &ManifestError) -> Diagnostic {
    let code = match error {
        ManifestError::OutOfMemory => SqlState::PROGRAM_LIMIT_EXCEEDED,
        _ => SqlState::INTERNAL_ERROR,
    };
    Diagnostic::error(code, error.to_string())
}
