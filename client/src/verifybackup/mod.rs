//! Is a backup on disk what its manifest says, and could a server start from it? `pg_verifybackup`, and more.
//!
//! [`verify_backup`] reads plain directories and tar files, compressed or not, without unpacking anything; several files at
//! once, on a bounded number of threads. WAL is read by our own reader, also from tar files. Problems are told to an
//! [`VerifyObserver`] as they are found, in `pg_verifybackup`'s words where it has words for them.
//!
//! A manifest can agree with a backup that no server starts from: an empty directory and an empty list of files, for one.
//! What is found wrong beyond what `pg_verifybackup` looks at begins with `not restorable: `, see [`Finding::strict`].
//!
//! ```no_run
//! use backstop_client::verifybackup::{Finding, VerifyObserver, VerifyOptions, verify_backup};
//!
//! struct Print;
//! impl VerifyObserver for Print {
//!     fn found(&mut self, finding: &Finding) {
//!         eprintln!("{finding}");
//!     }
//! }
//!
//! let sound = verify_backup(&VerifyOptions::new("/var/backups/monday"), &mut Print)?;
//! # Ok::<(), backstop_client::ClientError>(())
//! ```

mod archive;
mod archives;
mod checksums;
mod finding;
mod plain;
mod restorable;
mod subject;
mod wal;

use std::path::PathBuf;

use backstop_protocol::base_backup::manifest::Manifest;

use self::archives::ArchiveFile;
use self::restorable::Essentials;
use self::subject::{Stop, Subject};
use self::wal::WalSource;
use crate::backup_files;
use crate::error::ClientError;

pub use finding::Finding;

/// In which form a backup lies in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupFormat {
    /// As a data directory.
    Plain,
    /// As `base.tar` and one tar file for each tablespace, compressed or not.
    Tar,
}

/// What is to be verified, and how.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Where the backup is.
    pub directory: PathBuf,
    /// Where its manifest is; in the backup, if nothing is said.
    pub manifest: Option<PathBuf>,
    /// Where its WAL is; in the backup, if nothing is said.
    pub wal_directory: Option<PathBuf>,
    /// Its form. If nothing is said, a directory that holds `PG_VERSION` is plain.
    pub format: Option<BackupFormat>,
    /// Paths below the backup that are not looked at, with everything below them.
    pub ignore: Vec<PathBuf>,
    /// End with the first problem.
    pub exit_on_error: bool,
    /// Read the WAL that the manifest asks for.
    pub parse_wal: bool,
    /// Compare sizes only.
    pub skip_checksums: bool,
}

impl VerifyOptions {
    /// All checks, of the backup in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            manifest: None,
            wal_directory: None,
            format: None,
            ignore: Vec::new(),
            exit_on_error: false,
            parse_wal: true,
            skip_checksums: false,
        }
    }
}

/// Who is told what comes out.
pub trait VerifyObserver {
    /// A problem.
    fn found(&mut self, finding: &Finding);

    /// How many bytes of how many were read; once at the beginning, then now and then, and once at the end.
    fn progress(&mut self, done: u64, total: u64, finished: bool) {
        let _ = (done, total, finished);
    }
}

/// Verifies a backup: whether nothing was found.
///
/// # Errors
/// What makes any further look pointless: a manifest or a directory that cannot be read, an archive that is none, a control
/// file of another cluster.
pub fn verify_backup(options: &VerifyOptions, observer: &mut dyn VerifyObserver) -> Result<bool, ClientError> {
    let directory = backup_files::canonical(&options.directory);
    let path = options
        .manifest
        .as_ref()
        .map_or_else(|| directory.join("backup_manifest"), |path| backup_files::canonical(path));
    let text = backup_files::read(&path, backup_files::MAX_MANIFEST)?;
    let manifest = Manifest::parse(&text).map_err(|error| ClientError::Unusable(error.to_string()))?;
    drop(text);
    std::fs::read_dir(&directory).map_err(ClientError::local("open directory", &directory))?;
    let format = match options.format {
        Some(format) => format,
        None => detect(&directory.join("PG_VERSION"))?,
    };
    let mut subject = Subject::new(options, directory, &manifest, observer);
    let result = match format {
        BackupFormat::Plain => verify_plain(&mut subject),
        BackupFormat::Tar => verify_tar(&mut subject),
    };
    match result {
        Ok(()) => Ok(subject.sound()),
        Err(Stop::Enough) => Ok(false),
        Err(Stop::Fatal(error)) => Err(error),
    }
}

fn detect(version: &std::path::Path) -> Result<BackupFormat, ClientError> {
    match std::fs::metadata(version) {
        Ok(_) => Ok(BackupFormat::Plain),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BackupFormat::Tar),
        Err(error) => Err(ClientError::local("stat file", version)(error)),
    }
}

/// In `pg_verifybackup`'s order: what there is, what is missing, checksums, WAL; then what it does not look at.
fn verify_plain(subject: &mut Subject<'_>) -> Result<(), Stop> {
    plain::walk(subject)?;
    subject.report_missing()?;
    if !subject.options.skip_checksums {
        checksums::verify(subject)?;
    }
    let essentials = Essentials::read(&subject.directory);
    if subject.options.parse_wal {
        let directory = subject.options.wal_directory.as_ref().map(|path| backup_files::canonical(path));
        let directory = directory.unwrap_or_else(|| subject.directory.join("pg_wal"));
        wal::verify(subject, &essentials, &WalSource::Directory(directory))?;
    }
    restorable::verify(subject, &essentials)
}

fn verify_tar(subject: &mut Subject<'_>) -> Result<(), Stop> {
    let files = archives::list(subject)?;
    let (data, wal): (Vec<ArchiveFile>, Vec<ArchiveFile>) = files.into_iter().partition(|file| !file.is_wal());
    let essentials = archives::verify(subject, &data)?;
    subject.report_missing()?;
    if subject.options.parse_wal {
        let source = match &subject.options.wal_directory {
            Some(path) => WalSource::Directory(backup_files::canonical(path)),
            // WAL that was fetched lies in the archive of the data directory.
            None if wal.is_empty() && essentials.holds_wal => WalSource::Archives(data),
            None => WalSource::Archives(wal),
        };
        wal::verify(subject, &essentials, &source)?;
    }
    restorable::verify(subject, &essentials)
}
