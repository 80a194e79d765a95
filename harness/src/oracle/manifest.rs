//! Members equal the manifest and the manifest the members.

use std::collections::BTreeSet;
use std::io::{self, Read as _};

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, Manifest};
use backstop_protocol::base_backup::options::ManifestOption;

use super::Evidence;
use super::artifact::{Content, Item};

/// No manifest that a scenario makes is larger.
const LARGEST_MANIFEST: u64 = 1 << 30;

/// What `backup_manifest` and the files say of each other. Nothing, where the backup was taken without a manifest.
pub fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let expected = evidence.backup.is_none_or(|backup| backup.options.manifest != ManifestOption::No);
    let Some(content) = &evidence.artifact.manifest else {
        return if expected { vec!["backup_manifest is missing".to_owned()] } else { Vec::new() };
    };
    let manifest = content.read(LARGEST_MANIFEST).map_err(|error| error.to_string());
    match manifest.and_then(|bytes| Manifest::parse(&bytes).map_err(|error| error.to_string())) {
        Err(error) => vec![format!("backup_manifest: {error}")],
        Ok(manifest) => compare(evidence, &manifest),
    }
}

fn compare(evidence: &Evidence<'_>, manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    let mut listed = BTreeSet::new();
    for file in &manifest.files {
        let shown = file.path.escape_ascii();
        listed.insert(&file.path[..]);
        let Some(Item::File(content)) = evidence.artifact.items.get(&file.path) else {
            problems.push(format!("\"{shown}\" is present in the manifest but not in the backup"));
            continue;
        };
        if content.size != file.size {
            problems.push(format!("\"{shown}\" has size {} but size {} in the manifest", content.size, file.size));
        } else if let Some((algorithm, checksum)) = &file.checksum {
            match digest(content, *algorithm) {
                Ok(digest) if digest == *checksum => {}
                // Written by the client itself for `-R`.
                Ok(_) if file.path == b"postgresql.auto.conf" => {}
                Ok(_) => problems.push(format!("checksum mismatch for file \"{shown}\"")),
                Err(error) => problems.push(format!("\"{shown}\" cannot be read: {error}")),
            }
        }
    }
    for (name, item) in &evidence.artifact.items {
        let own = name.starts_with(b"pg_wal/") || name == b"standby.signal";
        if matches!(item, Item::File(_)) && !own && !listed.contains(&name[..]) {
            problems.push(format!("\"{}\" is present in the backup but not in the manifest", name.escape_ascii()));
        }
    }
    if let Some(system) = manifest.system_identifier
        && system != evidence.original.system_identifier()
    {
        problems.push(format!(
            "the manifest is of system {system}, the server is {}",
            evidence.original.system_identifier()
        ));
    }
    if let Some(backup) = evidence.backup {
        let covers = manifest.wal_ranges.iter().any(|range| range.start == backup.start);
        let ends = backup.end.is_none_or(|end| manifest.wal_ranges.iter().any(|range| range.end == end));
        if !covers || !ends {
            problems
                .push(format!("the manifest's WAL range is not that of the backup, which started at {}", backup.start));
        }
    }
    problems
}

fn digest(content: &Content, algorithm: ChecksumAlgorithm) -> io::Result<Vec<u8>> {
    let mut hasher = ChecksumHasher::new(algorithm);
    let mut reader = content.open()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}
