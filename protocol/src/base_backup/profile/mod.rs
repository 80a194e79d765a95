//! `backup_profile`: the list of files of a file-level incremental backup, as the proof of concept of 2014 wrote it
//! (pgsql-hackers, "File based incremental backup").
//!
//! ```text
//! POSTGRESQL BACKUP PROFILE 1
//! START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
//! …                                             the rest of backup_label, word by word
//! FILE LIST
//! \N      \N          t   1416576573  206     backup_label
//! \N      0/1745A08   f   1416576120  16384   base/1/1259
//! 16400   \N          t   1416576573  8192    PG_9.5_201510051/1/16401
//! ```
//!
//! The columns are separated by one tab each: OID of the tablespace or `\N` for the data directory, highest LSN of the file's
//! pages or `\N`, whether the file was sent, when it was changed last (Unix seconds), its bytes, and its path below the
//! tablespace or the data directory. In a path, `\b`, `\f`, `\n`, `\r`, `\t`, `\v` and `\\` stand for what they stand for in
//! `COPY`.
//!
//! [`PageLsns`] and [`has_page_lsns`] are the rule by which a file is left out. The profile has no checksum, so that a line
//! taken out of it cannot be told from a relation that was dropped: [`checksum_file`] makes one to keep beside it.

mod lsns;
mod parse;
#[cfg(test)]
mod tests;

pub use lsns::{PageLsns, has_page_lsns};
pub use parse::{ProfileError, ProfileProblem};

use sha2::{Digest, Sha256};

use super::label::BackupLabel;
use crate::lsn::Lsn;

/// What the profile is called, in the data directory of a plain backup and beside the archives of one in tar format.
pub const FILE_NAME: &str = "backup_profile";

/// What the file beside it is called, see [`checksum_file`].
pub const CHECKSUM_FILE_NAME: &str = "backup_profile.sha256";

/// The longest path in bytes: `MAXPGPATH` without its terminator.
pub const MAX_PATH: usize = 1023;

/// The largest profile that anyone should read into memory, in bytes: more than a million files.
pub const MAX_PROFILE: usize = 256 << 20;

const TITLE: &str = "POSTGRESQL BACKUP PROFILE 1";
const FILE_LIST: &str = "FILE LIST";

/// A whole profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupProfile {
    /// The backup's label.
    pub label: BackupLabel,
    /// That label as it stands in `backup_label`.
    pub label_text: String,
    /// In the order in which they were sent.
    pub files: Vec<ProfileFile>,
}

/// One file of a profile. Directories, links, WAL and the profile itself have no line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileFile {
    /// The OID of its tablespace; nothing for the data directory.
    pub tablespace: Option<u32>,
    /// The highest LSN of its pages. A file that was not sent always has one; of a file that was sent nobody needs it.
    pub lsn: Option<Lsn>,
    /// Whether it is part of the backup. If not, it has not changed since the backup before.
    pub sent: bool,
    /// When it was changed last: seconds since 1970.
    pub modified: i64,
    /// In bytes, sent or not.
    pub size: u64,
    /// Below the tablespace (`PG_9.5_201510051/1/16401`) or the data directory (`base/1/1259`). 1 to [`MAX_PATH`] bytes.
    pub path: Vec<u8>,
}

impl BackupProfile {
    /// Reads a profile, strictly: every line must be as a server writes it, no file may occur twice, no path may lead out of
    /// its directory, and a file that was not sent needs an LSN.
    ///
    /// # Errors
    /// The first problem, with the number of its line.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        parse::parse(bytes)
    }

    /// The profile as a server writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = header(&self.label_text);
        for file in &self.files {
            file.write(&mut bytes);
        }
        bytes
    }

    /// How many files were not sent, and their bytes.
    pub fn skipped(&self) -> (usize, u64) {
        let skipped = self.files.iter().filter(|file| !file.sent);
        skipped.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.size))
    }
}

/// What a profile begins with: everything before the first file. `label_text` is the content of `backup_label`.
pub fn header(label_text: &str) -> Vec<u8> {
    format!("{TITLE}\n{label_text}{FILE_LIST}\n").into_bytes()
}

impl ProfileFile {
    /// Appends the file's line.
    pub fn write(&self, out: &mut Vec<u8>) {
        fn or_null(value: Option<impl ToString>) -> String {
            value.map_or_else(|| "\\N".to_owned(), |value| value.to_string())
        }
        let sent = if self.sent { 't' } else { 'f' };
        let (tablespace, lsn) = (or_null(self.tablespace), or_null(self.lsn));
        out.extend(format!("{tablespace}\t{lsn}\t{sent}\t{}\t{}\t", self.modified, self.size).into_bytes());
        for &byte in &self.path {
            match ESCAPES.iter().find(|(_, literal)| *literal == byte) {
                Some((letter, _)) => out.extend([b'\\', *letter]),
                None => out.push(byte),
            }
        }
        out.push(b'\n');
    }

    /// The tablespace of a file and its path there, by its path below the data directory: the other way round than
    /// [`path_in_data_directory`](Self::path_in_data_directory).
    pub fn place(path: &[u8]) -> (Option<u32>, Vec<u8>) {
        let in_tablespace = path.strip_prefix(b"pg_tblspc/").and_then(|rest| {
            let (oid, path) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)?;
            Some((std::str::from_utf8(oid).ok()?.parse().ok()?, path.get(1..)?.to_vec()))
        });
        in_tablespace.map_or_else(|| (None, path.to_vec()), |(oid, path)| (Some(oid), path))
    }

    /// Its path below the data directory of a plain backup: that of a file in a tablespace begins with `pg_tblspc/<oid>/`.
    pub fn path_in_data_directory(&self) -> Vec<u8> {
        match self.tablespace {
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), &self.path].concat(),
            None => self.path.clone(),
        }
    }
}

/// Letters behind a backslash, and what they stand for.
const ESCAPES: [(u8, u8); 7] =
    [(b'b', 0x08), (b't', b'\t'), (b'n', b'\n'), (b'v', 0x0B), (b'f', 0x0C), (b'r', b'\r'), (b'\\', b'\\')];

/// The content of [`CHECKSUM_FILE_NAME`] for this profile: what `sha256sum backup_profile` prints. Ours, not of 2014.
pub fn checksum_file(profile: &[u8]) -> String {
    let digits: String = Sha256::digest(profile).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}  {FILE_NAME}\n")
}
