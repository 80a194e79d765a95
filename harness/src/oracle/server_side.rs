//! Whether the server itself ended the backup as a good one.

use backstop_mock::{BackupOutcome, BackupRecord};

use super::Evidence;

/// Success needs a BASE_BACKUP whose end position and CommandComplete were sent. What happens between CommandComplete and
/// ReadyForQuery makes the backup no worse: `pg_basebackup` does not wait for it.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    evidence
        .backup
        .map_or_else(|| Some("the server began no backup for this client".to_owned()), objection)
        .into_iter()
        .collect()
}

fn objection(backup: &BackupRecord) -> Option<String> {
    match &backup.ended {
        _ if backup.command_complete => None,
        BackupOutcome::Complete => None,
        BackupOutcome::Running => Some("the server had not ended the backup".to_owned()),
        BackupOutcome::Failed(why) => Some(format!("the server ended the backup with: {why}")),
    }
}
