//! Every byte that a sound backup holds is known: compare. Of an incremental backup it is known, too, which blocks it must hold.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::ops::Range;

use super::Evidence;
use super::artifact::{Content, Item};
use super::incremental;
use super::original::{Expected, ExpectedKind, Original};
use super::profile;

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
    if !evidence.original.knows_files() {
        return Ok(());
    }
    let mut known = BTreeSet::new();
    let left_out = profile::left_out(evidence.backup);
    for file in evidence.original.expected(evidence.backup)? {
        let shown = file.path.escape_ascii().to_string();
        let blocks = incremental::name(&file.path);
        if let (Some(changed), Some(Item::File(content))) =
            (file.changed_blocks(), evidence.artifact.items.get(&blocks))
        {
            if evidence.artifact.items.contains_key(&file.path) {
                problems.push(format!("\"{shown}\" is there twice, as a whole and by its changed blocks"));
            }
            let found = incremental::problem(evidence.original, &file, changed, content)?;
            problems.extend(found.map(|problem| format!("\"{}\" {problem}", blocks.escape_ascii())));
            known.extend([file.path, blocks]);
            continue;
        }
        match (file.kind, evidence.artifact.items.get(&file.path)) {
            (ExpectedKind::Special, _) => continue,
            (_, Some(_)) if left_out.contains(&file.path) => {
                problems.push(format!("\"{shown}\" is there, and the server left it out"));
            }
            // A backup may hold its own version of the file: `-R` appends to it.
            (ExpectedKind::File { .. }, Some(_)) if file.path == b"postgresql.auto.conf" => {}
            (ExpectedKind::File { size }, Some(Item::File(content))) => {
                if content.size == size {
                    if let Some(bytes) = first_difference(evidence.original, &file, content)? {
                        problems.push(format!("\"{shown}\" differs from the server's {}", place(&bytes)));
                    }
                } else {
                    problems.push(format!("\"{shown}\" has {} bytes, the server's has {size}", content.size));
                }
            }
            (ExpectedKind::Directory, Some(Item::Directory | Item::Symlink(_))) | (ExpectedKind::Symlink, Some(_)) => {}
            (_, None) if is_of_the_backup(&file.path) || left_out.contains(&file.path) => {}
            (_, None) => problems.push(format!("\"{shown}\" is missing")),
            (_, Some(_)) => problems.push(format!("\"{shown}\" is of another type than the server's")),
        }
        known.insert(file.path);
    }
    for (name, item) in &evidence.artifact.items {
        let ours = is_of_the_backup(name) || profile::comes_with(evidence.backup, name);
        if !known.contains(name) && !ours && *item != Item::Directory {
            problems.push(format!("\"{}\" is not a file of the server", name.escape_ascii()));
        }
    }
    Ok(())
}

/// Where a stored file and the server's differ first.
pub(super) fn first_difference(
    original: &dyn Original,
    file: &Expected,
    content: &Content,
) -> io::Result<Option<Range<u64>>> {
    let mut stored = content.open()?;
    let mut ours = vec![0; 64 << 10];
    let mut at = 0;
    while at < content.size {
        let wanted = usize::try_from(content.size - at).unwrap_or(usize::MAX).min(ours.len());
        let Some(ours) = ours.get_mut(..wanted) else { break };
        stored.read_exact(ours)?;
        if let Some(bytes) = original.difference(file, at, ours)? {
            return Ok(Some(bytes));
        }
        at += wanted as u64;
    }
    Ok(None)
}

/// `at byte 17`, or as closely as it is known.
fn place(bytes: &Range<u64>) -> String {
    if bytes.end - bytes.start == 1 {
        format!("at byte {}", bytes.start)
    } else {
        format!("in bytes {} to {}", bytes.start, bytes.end - 1)
    }
}
