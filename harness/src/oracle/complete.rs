//! A backup is complete when everything that recovery needs is there and agrees with what the server said.

use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::control::ControlFile;

use super::Evidence;
use super::artifact::Item;

/// No label, control file or version file is larger.
const SMALL_FILE: u64 = 1 << 20;

/// The form of the archives, `PG_VERSION`, `backup_label` and `global/pg_control`, every tablespace.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let mut problems = evidence.artifact.problems.clone();
    version_file(evidence, &mut problems);
    label(evidence, &mut problems);
    control(evidence, &mut problems);
    directories(evidence, &mut problems);
    for tablespace in evidence.original.tablespaces() {
        let prefix = format!("pg_tblspc/{}/", tablespace.oid).into_bytes();
        let below = evidence.artifact.items.keys().any(|name| name.len() > prefix.len() && name.starts_with(&prefix));
        if !below {
            problems.push(format!("tablespace {} is missing", tablespace.oid));
        }
    }
    problems
}

/// Those that a server needs to start. A link stands for one that lies elsewhere.
fn directories(evidence: &Evidence<'_>, problems: &mut Vec<String>) {
    let there =
        |name: &&str| matches!(evidence.artifact.items.get(name.as_bytes()), Some(Item::Directory | Item::Symlink(_)));
    let required = evidence.original.version().required_directories();
    let missing: Vec<_> = required.into_iter().filter(|name| !there(name)).map(|name| format!("\"{name}\"")).collect();
    match missing.as_slice() {
        [] => {}
        [one] => problems.push(format!("directory {one} is missing")),
        several => problems.push(format!("directories {} are missing", several.join(", "))),
    }
}

fn small(evidence: &Evidence<'_>, name: &str, problems: &mut Vec<String>) -> Option<Vec<u8>> {
    let Some(content) = evidence.artifact.file(name) else {
        problems.push(match evidence.artifact.items.get(name.as_bytes()) {
            None => format!("\"{name}\" is missing"),
            Some(Item::Directory) => format!("\"{name}\" is a directory"),
            Some(_) => format!("\"{name}\" is not a regular file"),
        });
        return None;
    };
    match content.read(SMALL_FILE) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            problems.push(format!("\"{name}\" cannot be read: {error}"));
            None
        }
    }
}

fn version_file(evidence: &Evidence<'_>, problems: &mut Vec<String>) {
    if let Some(bytes) = small(evidence, "PG_VERSION", problems) {
        let expected = evidence.original.version().name();
        if bytes.strip_suffix(b"\n").unwrap_or(&bytes) != expected.as_bytes() {
            problems.push(format!("PG_VERSION holds \"{}\", the server is {expected}", bytes.escape_ascii()));
        }
    }
}

fn label(evidence: &Evidence<'_>, problems: &mut Vec<String>) {
    let Some(bytes) = small(evidence, "backup_label", problems) else { return };
    if let Err(error) = BackupLabel::parse(&String::from_utf8_lossy(&bytes)) {
        problems.push(format!("backup_label cannot be read: {error}"));
    } else if let Some(backup) = evidence.backup
        && bytes != backup.label_text.as_bytes()
    {
        problems.push(format!("backup_label is not the one of the backup that started at {}", backup.start));
    }
}

fn control(evidence: &Evidence<'_>, problems: &mut Vec<String>) {
    let Some(bytes) = small(evidence, "global/pg_control", problems) else { return };
    if !evidence.original.version().has_current_wal_format() {
        // Of the layouts before 12 only the beginning is known. What the server sent is compared byte by byte elsewhere.
        let found = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let expected = evidence.original.system_identifier();
        if found != Some(expected) {
            problems
                .push(format!("global/pg_control does not begin with the system identifier of the server, {expected}"));
        }
        return;
    }
    match ControlFile::decode(&bytes) {
        Err(error) => problems.push(format!("global/pg_control cannot be read: {error}")),
        Ok(control) => {
            let expected = evidence.original.system_identifier();
            if control.system_identifier != expected {
                problems.push(format!(
                    "global/pg_control is of system {}, the server is {expected}",
                    control.system_identifier
                ));
            }
            if let Some(backup) = evidence.backup
                && control.checkpoint_copy.redo < backup.start
            {
                let redo = control.checkpoint_copy.redo;
                problems
                    .push(format!("global/pg_control is older than the backup: redo {redo}, start {}", backup.start));
            }
        }
    }
}
