//! `backup_profile` of an incremental backup.

use std::sync::Arc;

use backstop_protocol::base_backup::profile::{self, ProfileFile};

use super::fetched::{Fetched, Outcome};
use super::files::CONTROL;
use crate::receive::Tablespace;

/// The profile: files that were looked at, then those that were made, then `pg_control`.
pub(super) fn text(
    label_text: &str,
    fetched: &[(Arc<Fetched>, Outcome)],
    tablespaces: &[Tablespace],
    made: &[(&[u8], Vec<u8>)],
    control: &[u8],
) -> Vec<u8> {
    let mut text = profile::header(label_text);
    let mut fetched: Vec<&(Arc<Fetched>, Outcome)> = fetched.iter().collect();
    fetched.sort_by(|(one, _), (other, _)| one.entry.path.cmp(&other.entry.path));
    // Not known, and of no use: what is made when the backup ends is as old as what was changed last.
    let now = fetched.iter().map(|(file, _)| file.entry.changed).max().unwrap_or(0);
    for (file, outcome) in fetched {
        let entry = &file.entry;
        let (sent, lsn, size) = match *outcome {
            Outcome::Kept(size) => (true, file.highest_lsn(), size),
            Outcome::LeftOut(size, lsn) => (false, Some(lsn), size),
            Outcome::Gone => continue,
        };
        let tablespace = entry.tablespace.and_then(|index| tablespaces.get(index)?.oid);
        let (modified, path) = (entry.changed, entry.name.clone());
        ProfileFile { tablespace, lsn, sent, modified, size, path }.write(&mut text);
    }
    let made = made.iter().map(|(name, content)| (*name, content.len()));
    for (name, size) in made.chain([(CONTROL, control.len())]) {
        let (size, path) = (size as u64, name.to_vec());
        ProfileFile { tablespace: None, lsn: None, sent: true, modified: now, size, path }.write(&mut text);
    }
    text
}
