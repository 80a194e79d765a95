//! Whether the server itself ended the backup as a good one.

use backstop_mock::BackupOutcome;

use super::Evidence;

/// Success needs a BASE_BACKUP whose end position, CommandComplete and ReadyForQuery were sent.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    match evidence.backup.map(|backup| &backup.ended) {
        None => vec!["the server never ran BASE_BACKUP for this client".to_owned()],
        Some(BackupOutcome::Complete) => Vec::new(),
        Some(BackupOutcome::Running) => vec!["the server had not ended the backup".to_owned()],
        Some(BackupOutcome::Failed(why)) => vec![format!("the server ended the backup with: {why}")],
    }
}
