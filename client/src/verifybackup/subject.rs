//! The backup under verification: its manifest, and what was found of it so far.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use backstop_protocol::base_backup::manifest::{Manifest, ManifestFile};

use super::{Finding, VerifyObserver, VerifyOptions};
use crate::backup_files;
use crate::error::{ClientError, shown};

/// What `pg_verifybackup` never looks at: it is not in the manifest, or may be changed when the backup is made.
const ALWAYS_IGNORED: [&[u8]; 5] =
    [b"backup_manifest", b"pg_wal", b"postgresql.auto.conf", b"recovery.signal", b"standby.signal"];

/// Why verification ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// A problem was found, and one is enough.
    Enough,
    /// Nothing further can be said.
    Fatal(ClientError),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Fatal(error)
    }
}

/// What is known of a file of the manifest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// It is there.
    pub(super) matched: bool,
    /// It is not as the manifest says.
    pub(super) bad: bool,
}

/// Paths that are not looked at, with everything below them.
#[derive(Clone, Debug)]
pub(super) struct Ignored(Vec<Vec<u8>>);

impl Ignored {
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.0.iter().any(|ignored| {
            path.strip_prefix(ignored.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }
}

/// The manifest with what is needed to look things up in it. Shared by threads.
pub(super) struct Listed<'a> {
    pub(super) manifest: &'a Manifest,
    index: HashMap<&'a [u8], usize>,
}

impl<'a> Listed<'a> {
    /// The file at `path`, and its number.
    pub(super) fn file(&self, path: &[u8]) -> Option<(usize, &'a ManifestFile)> {
        let index = *self.index.get(path)?;
        Some((index, self.manifest.files.get(index)?))
    }

    /// Whether the control file is compared with the manifest: since version 2, which knows the system identifier.
    pub(super) fn names_cluster(&self) -> bool {
        self.manifest.version != 1
    }
}

pub(super) struct Subject<'a> {
    pub(super) options: &'a VerifyOptions,
    pub(super) directory: PathBuf,
    pub(super) listed: Arc<Listed<'a>>,
    pub(super) ignored: Ignored,
    pub(super) states: Vec<State>,
    observer: &'a mut dyn VerifyObserver,
    findings: u64,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        options: &'a VerifyOptions,
        directory: PathBuf,
        manifest: &'a Manifest,
        observer: &'a mut dyn VerifyObserver,
    ) -> Self {
        let mut ignored: Vec<Vec<u8>> = ALWAYS_IGNORED.map(<[u8]>::to_vec).into();
        ignored.extend(options.ignore.iter().map(|path| backup_files::canonical(path).as_os_str().as_bytes().to_vec()));
        let index = manifest.files.iter().enumerate().map(|(index, file)| (file.path.as_slice(), index)).collect();
        Self {
            options,
            directory,
            listed: Arc::new(Listed { manifest, index }),
            ignored: Ignored(ignored),
            states: vec![State::default(); manifest.files.len()],
            observer,
            findings: 0,
        }
    }

    /// Tells of a problem.
    pub(super) fn found(&mut self, finding: &Finding) -> Result<(), Stop> {
        self.observer.found(finding);
        self.findings += 1;
        if self.options.exit_on_error { Err(Stop::Enough) } else { Ok(()) }
    }

    pub(super) fn progress(&mut self, done: u64, total: u64, finished: bool) {
        self.observer.progress(done, total, finished);
    }

    pub(super) fn sound(&self) -> bool {
        self.findings == 0
    }

    /// From now on nothing is said of `path` and what is below: a problem with it has been told.
    pub(super) fn ignore(&mut self, path: &[u8]) {
        self.ignored.0.push(path.to_vec());
    }

    pub(super) fn state(&mut self, index: usize) -> Option<&mut State> {
        self.states.get_mut(index)
    }

    /// Whether the file at `path` is there and nothing was found wrong with it, or nobody knows what it should be.
    pub(super) fn trusted(&self, path: &[u8]) -> bool {
        let state = self.listed.file(path).and_then(|(index, _)| self.states.get(index));
        state.is_none_or(|state| state.matched && !state.bad)
    }

    /// Tells which files of the manifest were not found.
    pub(super) fn report_missing(&mut self) -> Result<(), Stop> {
        let manifest = self.listed.manifest;
        for (index, file) in manifest.files.iter().enumerate() {
            let matched = self.states.get(index).is_some_and(|state| state.matched);
            if !matched && !self.ignored.contains(&file.path) {
                let text = format!("\"{}\" is present in the manifest but not on disk", shown(&file.path));
                self.found(&Finding::new(text))?;
            }
        }
        Ok(())
    }
}
