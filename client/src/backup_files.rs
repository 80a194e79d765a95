//! The files that say what a backup on disk is, read with bounds.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::control::{CONTROL_FILE_SIZE, ControlError, ControlFile};

use crate::error::{ClientError, reason};

/// The largest manifest that is read, in bytes: some ten million files.
pub(crate) const MAX_MANIFEST: u64 = 2 << 30;

/// The largest `backup_label`, in bytes, as `pg_combinebackup` bounds it.
pub(crate) const MAX_LABEL: u64 = 10_000 + 1024;

/// Bytes of `ControlFileData` in 18, which is what `get_controlfile` reads.
const CONTROL_DATA_SIZE: usize = 296;

/// Reads the file at `path`, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ClientError> {
    let file = File::open(path).map_err(ClientError::local("open file", path))?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(ClientError::local("read file", path))?;
    if content.len() as u64 > limit {
        return Err(ClientError::Unusable(format!("file \"{}\" is too large", path.display())));
    }
    Ok(content)
}

/// Reads `pg_control` at `path`, with the texts of `get_controlfile` and its callers.
pub(crate) fn read_control(path: &Path) -> Result<ControlFile, ClientError> {
    let file = File::open(path).map_err(|error| {
        ClientError::Unusable(format!("could not open file \"{}\" for reading: {}", path.display(), reason(&error)))
    })?;
    let mut content = Vec::new();
    let limit = CONTROL_FILE_SIZE as u64 + 1;
    file.take(limit).read_to_end(&mut content).map_err(ClientError::local("read file", path))?;
    if content.len() < CONTROL_DATA_SIZE {
        let (path, length) = (path.display(), content.len());
        return Err(ClientError::Unusable(format!(
            "could not read file \"{path}\": read {length} of {CONTROL_DATA_SIZE}"
        )));
    }
    control(&content, &path.display().to_string())
}

/// Reads the content of a `pg_control` that is called `name` in messages.
pub(crate) fn control(content: &[u8], name: &str) -> Result<ControlFile, ClientError> {
    ControlFile::decode(content).map_err(|error| {
        ClientError::Unusable(match error {
            ControlError::Size(length) => {
                format!("unexpected control file size {length}, expected {CONTROL_FILE_SIZE}")
            }
            // Of a layout that is not known the CRC can still be sound: then it is another release's, and not damaged.
            ControlError::Version { .. } if has_sound_crc(content) => {
                format!("{name}: unexpected control file version")
            }
            ControlError::Crc { .. } | ControlError::Version { .. } => format!("{name}: CRC is incorrect"),
            other => format!("{name}: {other}"),
        })
    })
}

/// Whether a CRC at one of the places where releases put it is right.
fn has_sound_crc(content: &[u8]) -> bool {
    (264..=304).step_by(4).any(|offset| {
        let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
        hasher.update(content.get(..offset).unwrap_or_default());
        content.get(offset..offset + 4) == Some(hasher.finish().as_slice())
    })
}

/// `canonicalize_path`: without doubled, trailing and `.` components, and with `..` followed as far as the text allows.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match result.components().next_back() {
                Some(Component::Normal(_)) => {
                    result.pop();
                }
                Some(Component::RootDir) => {}
                _ => result.push(".."),
            },
            other => result.push(other),
        }
    }
    if result.as_os_str().is_empty() { PathBuf::from(".") } else { result }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::timeline::TimelineId;
    use backstop_protocol::version::ServerVersion;

    use super::*;

    #[test]
    fn paths_are_canonical() {
        let cases = [
            ("a//b/", "a/b"),
            ("./a/./b/.", "a/b"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("./", "."),
            ("/", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(canonical(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn control_files_are_judged_in_postgresqls_words() {
        let content = ControlFile::new(ServerVersion::V17, 7, TimelineId(1)).encode();
        let said = |content: &[u8]| control(content, "x").map(|_| ()).unwrap_err().to_string();
        let changed = |at: usize, value: u8| {
            let mut content = content.clone();
            content[at] = value;
            content
        };
        assert!(control(&content, "x").is_ok());
        assert_eq!(said(&changed(40, 99)), "x: CRC is incorrect");
        assert_eq!(said(&changed(8, 99)), "x: CRC is incorrect");
        assert_eq!(said(&content[..8191]), "unexpected control file size 8191, expected 8192");
        let mut foreign = changed(8, 99);
        let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
        hasher.update(&foreign[..288]);
        foreign[288..292].copy_from_slice(&hasher.finish());
        assert_eq!(said(&foreign), "x: unexpected control file version");
    }
}
