//! Does `backup_profile` list what arrived, and did everything arrive that it lists as sent?

use backstop_protocol::base_backup::profile::{self, BackupProfile, has_page_lsns};

use crate::contents::Contents;
use crate::error::{ClientError, shown};
use crate::verify::Said;

/// What an incremental backup by LSN left out, by its profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Checks the profile against the label and every file that arrived, in both directions.
pub(crate) fn check_profile(text: &[u8], contents: &Contents, said: &Said) -> Result<LeftOut, ClientError> {
    let wrong = |problem: String| Err(ClientError::Profile(problem));
    let profile = match BackupProfile::parse(text) {
        Ok(profile) => profile,
        Err(error) => return wrong(error.to_string()),
    };
    if Some(profile.label_text.as_bytes()) != contents.kept(b"backup_label") {
        return wrong("its header is not the \"backup_label\" of this backup".to_owned());
    }
    let mut sent = 0;
    for file in &profile.files {
        let path = file.path_in_data_directory();
        let name = shown(&path);
        match (file.sent, contents.files().get(&path)) {
            (true, None) => return wrong(format!("\"{name}\" was sent by the profile but was not received")),
            (false, Some(_)) => return wrong(format!("\"{name}\" was received but not sent by the profile")),
            (true, Some(received)) => {
                if received.size != file.size {
                    let (size, listed) = (received.size, file.size);
                    return wrong(format!("\"{name}\" has size {size} in the backup but size {listed} in the profile"));
                }
                if i64::try_from(received.modified) != Ok(file.modified) {
                    let (time, listed) = (received.modified, file.modified);
                    return wrong(format!("\"{name}\" is of time {time} in the backup but {listed} in the profile"));
                }
                sent += 1;
            }
            (false, None) => {
                let Some(since) = said.builds_on_location else {
                    return wrong(format!("\"{name}\" was not sent, but the backup is not incremental"));
                };
                if !has_page_lsns(&path) {
                    return wrong(format!("\"{name}\" was not sent, but has no pages whose LSNs could be trusted"));
                }
                if let Some(lsn) = file.lsn.filter(|lsn| *lsn >= since) {
                    return wrong(format!("\"{name}\" was not sent, but was changed at {lsn}, after {since}"));
                }
            }
        }
    }
    let own = usize::from(contents.files().contains_key(profile::FILE_NAME.as_bytes()));
    if sent + own != contents.files().len() {
        let listed = |path: &[u8]| profile.files.iter().any(|file| file.path_in_data_directory() == path);
        let extra = contents.files().keys().find(|path| **path != profile::FILE_NAME.as_bytes() && !listed(path));
        let name = extra.map(|path| shown(path)).unwrap_or_default();
        return wrong(format!("\"{name}\" was received but is not in the profile"));
    }
    let (files, bytes) = profile.skipped();
    Ok(LeftOut { files, bytes })
}
