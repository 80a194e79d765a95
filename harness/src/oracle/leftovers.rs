//! What a failed client may leave: anything, but nothing that passes for a backup.

use super::artifact::Artifact;

/// Whether somebody who found this would take it for a backup: a published manifest, or, where the server made none,
/// the files that a server needs to start.
pub fn passes_for_a_backup(artifact: &Artifact, manifest_expected: bool) -> bool {
    let startable = artifact.file("PG_VERSION").is_some()
        && artifact.file("global/pg_control").is_some_and(|control| control.size > 0);
    artifact.manifest.is_some() || (startable && !manifest_expected)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_manifest_makes_a_backup_and_so_does_a_control_file_where_there_is_none() {
        let target = tempfile::tempdir().unwrap();
        let at = |name: &str| target.path().join(name);
        let passes = |manifest_expected| passes_for_a_backup(&Artifact::load(target.path()), manifest_expected);
        assert!(!passes(false));
        fs::create_dir(at("global")).unwrap();
        fs::write(at("PG_VERSION"), "12\n").unwrap();
        assert!(!passes(false));
        fs::write(at("global/pg_control"), "control").unwrap();
        assert!(passes(false));
        assert!(!passes(true));
        fs::write(at("backup_manifest"), "{}").unwrap();
        assert!(passes(true));
    }
}
