//! A backup that is incremental by LSN is whole together with the one before: `backup_profile` is the server's, and every file
//! that was left out lies in the backup before as the server has it now.

use std::collections::BTreeSet;
use std::io;

use backstop_mock::BackupRecord;
use backstop_protocol::base_backup::profile::{
    BackupProfile, CHECKSUM_FILE_NAME, FILE_NAME, ProfileFile, checksum_file,
};

use super::Evidence;
use super::artifact::{Artifact, Item};
use super::ground_truth::first_difference;
use super::original::ExpectedKind;
use crate::record::Record;
use crate::scenario::Case;

/// The files that the server left out of a backup, by their paths in the manifest.
pub(super) fn left_out(backup: Option<&BackupRecord>) -> BTreeSet<Vec<u8>> {
    let profile = backup.and_then(|backup| BackupProfile::parse(backup.profile.as_ref()?).ok());
    let files = profile.map(|profile| profile.files).unwrap_or_default();
    files.iter().filter(|file| !file.sent).map(ProfileFile::path_in_data_directory).collect()
}

/// Whether this is a file that comes with a profile.
pub(super) fn comes_with(backup: Option<&BackupRecord>, name: &[u8]) -> bool {
    let profile = backup.is_some_and(|backup| backup.profile.is_some());
    profile && [FILE_NAME, CHECKSUM_FILE_NAME].iter().any(|known| known.as_bytes() == name)
}

/// What is wrong with the profile, and with the files that are not in the backup itself. Nothing, where the server makes no
/// profiles.
pub fn problems(case: &Case, record: &Record, evidence: &Evidence<'_>) -> Vec<String> {
    let Some(profile) = evidence.backup.and_then(|backup| backup.profile.as_ref()) else { return Vec::new() };
    let mut problems = Vec::new();
    stored(evidence, profile, &mut problems);
    if let Err(error) = elsewhere(case, record, evidence, &mut problems) {
        problems.push(format!("cannot compare the files that were left out: {error}"));
    }
    problems
}

fn stored(evidence: &Evidence<'_>, profile: &[u8], problems: &mut Vec<String>) {
    let content = |name: &str, limit: usize| {
        let content = evidence.artifact.file(name)?;
        content.read(limit as u64).ok()
    };
    match content(FILE_NAME, profile.len()) {
        Some(stored) if stored == profile => {}
        Some(_) => problems.push("backup_profile is not the server's".to_owned()),
        None => problems.push("backup_profile is missing, or longer than the server's".to_owned()),
    }
    // Nothing else would tell an edited profile from a sound one.
    let expected = checksum_file(profile).into_bytes();
    if evidence.artifact.manifest.is_none() && content(CHECKSUM_FILE_NAME, expected.len()) != Some(expected) {
        problems.push("backup_profile.sha256 is missing, or not the checksum of backup_profile".to_owned());
    }
}

/// The backups on which this client's builds, the nearest first.
fn bases(case: &Case, record: &Record, client: &str) -> Vec<Artifact> {
    let mut bases = Vec::new();
    let mut next = case.scenario.client(client).and_then(|client| client.incremental_from.clone());
    // A client builds on an earlier one: this ends.
    while let Some(name) = next {
        let found = record.clients.iter().find(|client| client.name == name);
        bases.extend(found.map(|client| Artifact::load(&client.target)));
        next = case.scenario.client(&name).and_then(|client| client.incremental_from.clone());
    }
    bases
}

fn elsewhere(case: &Case, record: &Record, evidence: &Evidence<'_>, problems: &mut Vec<String>) -> io::Result<()> {
    let left_out = left_out(evidence.backup);
    if left_out.is_empty() || !evidence.original.knows_files() {
        return Ok(());
    }
    let bases = bases(case, record, &evidence.client.name);
    for file in evidence.original.expected(evidence.backup)? {
        let ExpectedKind::File { size } = file.kind else { continue };
        if !left_out.contains(&file.path) {
            continue;
        }
        let shown = file.path.escape_ascii().to_string();
        let base = bases.iter().find_map(|base| match base.items.get(&file.path) {
            Some(Item::File(content)) => Some(content),
            _ => None,
        });
        match base.map(|content| content.beginning(size)) {
            None => problems.push(format!("\"{shown}\" was left out, and is in no backup before")),
            Some(None) => problems.push(format!("\"{shown}\" was left out, and is shorter in the backup before")),
            Some(Some(content)) => {
                if first_difference(evidence.original, &file, &content)?.is_some() {
                    problems.push(format!("\"{shown}\" was left out, although it has changed since the backup before"));
                }
            }
        }
    }
    Ok(())
}
