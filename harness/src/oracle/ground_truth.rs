//! Every byte that a sound backup holds is known: compare. Of an incremental backup it is known, too, which blocks it must hold.

use std::collections::BTreeSet;
use std::io::{self, Read as _};

use backstop_mock::cluster::{Cluster, Entry, EntryKind, ground_truth, ground_truth_at};

use backstop_mock::server::Found;
use backstop_protocol::base_backup::label::BackupLabel;

use super::artifact::{Content, Item};
use super::incremental;
use super::{Evidence, bytes};

/// After so many differences the rest is not interesting.
const ENOUGH: usize = 20;

/// Names that belong to a backup but not to the data directory that was copied.
fn is_of_the_backup(name: &[u8]) -> bool {
    const FILES: [&[u8]; 5] =
        [b"backup_label", b"tablespace_map", b"global/pg_control", b"standby.signal", b"postgresql.auto.conf"];
    const DIRECTORIES: [&[u8]; 4] = [b"pg_wal", b"pg_xlog", b"pg_tblspc", b"global"];
    FILES.contains(&name)
        || DIRECTORIES.contains(&name)
        || name.starts_with(b"pg_wal/")
        || name.starts_with(b"pg_xlog/")
        // The link, or the directory, of a tablespace: what lies below it is compared.
        || name.strip_prefix(b"pg_tblspc/").is_some_and(|oid| !oid.is_empty() && oid.iter().all(u8::is_ascii_digit))
}

/// Files that are missing, that nobody sent, or that hold other bytes than the server's.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = compare(evidence, &mut problems) {
        problems.push(format!("cannot compare with the server's files: {error}"));
    }
    let more = problems.len().saturating_sub(ENOUGH);
    problems.truncate(ENOUGH);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    problems
}

fn compare(evidence: &Evidence<'_>, problems: &mut Vec<String>) -> io::Result<()> {
    let mut known = BTreeSet::new();
    // As the backup found the cluster, which may have changed since.
    let truth = match evidence.backup {
        Some(backup) => ground_truth_at(evidence.cluster, backup.start)?,
        None => ground_truth(evidence.cluster)?,
    };
    let since = evidence.backup.and_then(|backup| BackupLabel::parse(&backup.label_text).ok()?.incremental_from);
    for entry in truth {
        let (name, entry) = entry?;
        let shown = name.escape_ascii().to_string();
        let found = evidence.backup.and_then(|backup| backup.found.get(&name)).copied();
        // The server had removed it: who has it is told of below.
        if found == Some(Found::Nothing) {
            continue;
        }
        let blocks = incremental::name(&name);
        if let (Some((since, _)), Some(Item::File(content))) = (since, evidence.artifact.items.get(&blocks)) {
            if evidence.artifact.items.contains_key(&name) {
                problems.push(format!("\"{shown}\" is there twice, as a whole and by its changed blocks"));
            }
            let found = incremental::problem(evidence.cluster, &entry, since, content)?;
            problems.extend(found.map(|problem| format!("\"{}\" {problem}", blocks.escape_ascii())));
            known.extend([name, blocks]);
            continue;
        }
        match (&entry.kind, evidence.artifact.items.get(&name)) {
            (EntryKind::Special, _) => continue,
            // A backup may hold its own version of the file: `-R` appends to it.
            (EntryKind::File { .. }, Some(_)) if name == b"postgresql.auto.conf" => {}
            (EntryKind::File { size }, Some(Item::File(content))) => {
                let (size, kept) = match found {
                    Some(Found::Beginning(left)) => (left.min(*size), u64::MAX),
                    Some(Found::ZerosFrom(from)) => (*size, from),
                    Some(Found::Nothing) | None => (*size, u64::MAX),
                };
                if content.size == size {
                    if let Some(at) = first_difference(evidence.cluster, &entry, content, kept)? {
                        problems.push(format!("\"{shown}\" differs from the server's at byte {at}"));
                    }
                } else {
                    problems.push(format!("\"{shown}\" has {} bytes, the server's has {size}", content.size));
                }
            }
            (EntryKind::Directory, Some(Item::Directory | Item::Symlink(_))) | (EntryKind::Symlink { .. }, Some(_)) => {
            }
            (_, None) if is_of_the_backup(&name) => {}
            (_, None) => problems.push(format!("\"{shown}\" is missing")),
            (_, Some(_)) => problems.push(format!("\"{shown}\" is of another type than the server's")),
        }
        known.insert(name);
    }
    for (name, item) in &evidence.artifact.items {
        if !known.contains(name) && !is_of_the_backup(name) && *item != Item::Directory {
            problems.push(format!("\"{}\" is not a file of the server", name.escape_ascii()));
        }
    }
    Ok(())
}

/// The offset of the first byte in which a stored file and the server's differ, which is zeros from `kept` on.
fn first_difference(cluster: &Cluster, entry: &Entry, content: &Content, kept: u64) -> io::Result<Option<u64>> {
    let mut stored = content.open()?;
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut at = 0;
    while at < content.size {
        let wanted = usize::try_from(content.size - at).unwrap_or(usize::MAX).min(ours.len());
        let (Some(ours), Some(theirs)) = (ours.get_mut(..wanted), theirs.get_mut(..wanted)) else { break };
        stored.read_exact(ours)?;
        let known = cluster.read(entry, at, theirs)?;
        let kept = usize::try_from(kept.saturating_sub(at)).unwrap_or(usize::MAX);
        theirs.get_mut(kept..).unwrap_or_default().fill(0);
        let differs = bytes::first_difference(ours.get(..known).unwrap_or(ours), theirs);
        if let Some(offset) = differs.or((known < wanted).then_some(known)) {
            return Ok(Some(at + offset as u64));
        }
        at += wanted as u64;
    }
    Ok(None)
}
