//! An incremental backup over ordinary connections: the server knows nothing of it, and the client itself says what it left out.
//!
//! What it says is held against what is there: its label is the server's but for the one line that says where the backup before
//! started, its profile lists what it stored, and what it left out must be in the backup before as the server has it
//! ([`profile`](super::profile)).

use std::collections::BTreeMap;

use backstop_mock::BackupRecord;
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::profile::{BackupProfile, CHECKSUM_FILE_NAME, FILE_NAME, MAX_PROFILE, ProfileFile};

use super::Evidence;
use super::artifact::{Artifact, Item};
use crate::record::Record;
use crate::scenario::Case;
use crate::scenario::model::{Client, Tool};

/// Whether the client finds out itself what has changed since the backup before.
pub fn is_concerned(client: &Client) -> bool {
    client.tool == Tool::Parallel && client.incremental_from.is_some()
}

/// The backup as a server would have told it that takes such backups: with the profile that the client wrote, and with the label that
/// this makes of the server's.
pub(super) fn told(case: &Case, record: &Record, client: &str, artifact: &Artifact) -> Option<BackupRecord> {
    let backup = record.backup_of(client)?;
    let client = case.scenario.client(client).filter(|client| is_concerned(client))?;
    let since = record.backup_of(client.incremental_from.as_deref()?)?.start;
    let label = BackupLabel::parse(&backup.label_text).ok()?;
    let label = BackupLabel { incremental_from_location: Some(since), ..label };
    let profile = artifact.file(FILE_NAME).and_then(|profile| profile.read(MAX_PROFILE as u64).ok());
    Some(BackupRecord {
        label_text: label.to_text(case.scenario.server.version),
        profile: Some(profile.unwrap_or_default()),
        ..backup.clone()
    })
}

/// What the profile says otherwise than it is.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let Some(text) = evidence.backup.and_then(|backup| backup.profile.as_ref()) else { return Vec::new() };
    let profile = match BackupProfile::parse(text) {
        Ok(profile) => profile,
        Err(error) => return vec![format!("backup_profile cannot be read: {error}")],
    };
    let mut listed: BTreeMap<Vec<u8>, &ProfileFile> = BTreeMap::new();
    listed.extend(profile.files.iter().map(|file| (file.path_in_data_directory(), file)));
    let mut problems = Vec::new();
    let wal = format!("{}/", evidence.original.version().wal_directory());
    let unlisted = |name: &[u8]| {
        name.starts_with(wal.as_bytes()) || [FILE_NAME, CHECKSUM_FILE_NAME].iter().any(|own| own.as_bytes() == name)
    };
    for (name, item) in &evidence.artifact.items {
        let Item::File(content) = item else { continue };
        let shown = name.escape_ascii();
        match listed.remove(name) {
            None if unlisted(name) => {}
            None => problems.push(format!("\"{shown}\" is not in backup_profile")),
            Some(file) if !file.sent => {
                problems.push(format!("\"{shown}\" is there, and backup_profile says that it is not"));
            }
            Some(file) if file.size != content.size => {
                problems.push(format!("\"{shown}\" has {} bytes, and backup_profile says {}", content.size, file.size));
            }
            Some(_) => {}
        }
    }
    let missing = listed.iter().filter(|(_, file)| file.sent).map(|(name, _)| name.escape_ascii());
    problems.extend(missing.map(|name| format!("\"{name}\" is in backup_profile, and not there")));
    problems
}
