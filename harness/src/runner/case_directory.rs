//! The directory in which a case happens.
//!
//! ```text
//! <case>/transcript.txt    what was said on the wire, if the directory is kept
//! <case>/record.json       what oracles need to judge the case once more, if the directory is kept
//! <case>/outside/          must not change, whatever the client does
//! <case>/<client>/target/  where the client is told to put the backup; made by the client
//! <case>/<client>/<oid>/   where it is told to put a tablespace
//! <case>/<client>/linked/  where its target leads if that is a link
//! <case>/transcript.txt    if it is kept: what was said
//! <case>/wire.pcap         and every byte of it, if that was asked for
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use backstop_mock::Server;
use backstop_mock::transcript::Event;

use super::{RunError, Scratch};
use crate::arena::SharedCapture;
use crate::capture::{CaptureWriter, MOST_KEPT};
use crate::oracle::outside::Snapshot;
use crate::record::{Record, saved};
use crate::scenario::Case;
use crate::scenario::model::Target;

/// A case's directory: removed with the value, unless it is to be kept.
pub(super) struct CaseDirectory {
    root: PathBuf,
    targets: BTreeMap<String, PathBuf>,
    case: String,
    temporary: Option<TempDir>,
    /// Takes down what passes on the wire, if that is to be kept.
    capture: Option<Arc<Mutex<CaptureWriter<BufWriter<File>>>>>,
}

impl CaseDirectory {
    /// Makes the directory below `keep`, if the run keeps what its cases leave, or where `scratch` has room.
    pub(super) fn make(case: &Case, scratch: &Scratch, keep: Option<&Path>) -> Result<Self, RunError> {
        Self::try_make(case, scratch, keep).map_err(|source| RunError::Directory { case: case.id.clone(), source })
    }

    fn try_make(case: &Case, scratch: &Scratch, keep: Option<&Path>) -> io::Result<Self> {
        let (root, temporary) = if let Some(keep) = keep {
            let root = keep.join(&case.id);
            if root.exists() {
                fs::remove_dir_all(&root)?;
            }
            (root, None)
        } else {
            let temporary = scratch.directory(case)?;
            (temporary.path().canonicalize()?, Some(temporary))
        };
        fs::create_dir_all(root.join("outside/directory"))?;
        fs::write(root.join("outside/file"), "nobody may change this\n")?;
        fs::write(root.join("outside/directory/file"), "nor this\n")?;
        let root = root.canonicalize()?;
        for client in &case.scenario.clients {
            let own = root.join(&client.name);
            fs::create_dir_all(&own)?;
            lay_out(&client.target, &own)?;
        }
        let targets = case.scenario.clients.iter().map(|client| {
            let owner = &case.scenario.owner_of_target(client).name;
            (client.name.clone(), root.join(owner).join("target"))
        });
        Ok(Self { targets: targets.collect(), root, case: case.id.clone(), temporary, capture: None })
    }

    /// Prepares to take down what passes on the wire, in the directory.
    pub(super) fn take_down(&mut self) -> Result<(), RunError> {
        let create = || CaptureWriter::new(BufWriter::new(File::create(self.root.join(WIRE))?), MOST_KEPT);
        let writer = create().map_err(|source| RunError::Directory { case: self.case.clone(), source })?;
        self.capture = Some(Arc::new(Mutex::new(writer)));
        Ok(())
    }

    /// Where a client puts its backup.
    pub(super) fn target(&self, client: &str) -> PathBuf {
        self.targets.get(client).cloned().unwrap_or_else(|| self.root.join(client).join("target"))
    }

    /// Where everything that a client makes is.
    pub(super) fn place(&self, client: &str) -> PathBuf {
        self.root.join(client)
    }

    /// Where a client puts a tablespace.
    pub(super) fn tablespace(&self, client: &str, oid: u32) -> PathBuf {
        self.root.join(client).join(oid.to_string())
    }

    /// What hostile links lead to.
    pub(super) fn forbidden(&self) -> PathBuf {
        self.root.join("outside")
    }

    /// A picture of all that no client of `case` may change.
    pub(super) fn outside(&self, case: &Case) -> Result<Snapshot, RunError> {
        let allowed = case.scenario.clients.iter().flat_map(|client| {
            let tablespaces = case.scenario.cluster.tablespaces.iter();
            let tablespaces = tablespaces.map(|tablespace| self.tablespace(&client.name, tablespace.oid));
            // What somebody else has there may not change, whoever is told to write there.
            let own = match client.target {
                Target::NotEmpty | Target::File => None,
                Target::Link => Some(self.root.join(&client.name).join(LINKED)),
                _ => Some(self.target(&client.name)),
            };
            tablespaces.chain(own).collect::<Vec<_>>()
        });
        let allowed: Vec<_> = allowed.chain([TRANSCRIPT, WIRE].map(|name| self.root.join(name))).collect();
        Snapshot::take(&self.root, &allowed).map_err(|source| RunError::Directory { case: self.case.clone(), source })
    }

    /// Where the files stay, if they do.
    pub(super) fn kept(&self) -> Option<PathBuf> {
        self.temporary.is_none().then(|| self.root.clone())
    }

    /// Writes what oracles need to judge the case once more.
    pub(super) fn write_record(&self, case: &Case, client: &str, seed: u64, record: &Record) -> Result<(), RunError> {
        saved::save(&self.root, case, client, seed, record)
            .map_err(|source| RunError::Record { case: self.case.clone(), source })
    }

    /// Takes down what the clients of `server` say and hear, if that is to be kept.
    pub(super) fn capture(&self, server: &Server) {
        if let Some(capture) = &self.capture {
            server.capture(Arc::clone(capture) as _);
        }
    }

    /// Who takes down what passes, if that is to be kept.
    pub(super) fn shared_capture(&self) -> Option<SharedCapture> {
        self.capture.as_ref().map(|capture| Arc::clone(capture) as _)
    }

    /// Writes the transcript, and what waits of the capture, beside what the clients left.
    pub(super) fn write_transcript(&self, events: &[Event]) -> Result<(), RunError> {
        write_transcript(&self.root, &self.case, events)?;
        match &self.capture {
            // What it holds is whole between statements, even if somebody died in the middle of one.
            Some(capture) => {
                let finished = capture.lock().unwrap_or_else(PoisonError::into_inner).finish();
                finished.map_err(|source| RunError::Directory { case: self.case.clone(), source })
            }
            None => Ok(()),
        }
    }
}

/// Writes the transcript of `case` into `directory`.
pub(super) fn write_transcript(directory: &Path, case: &str, events: &[Event]) -> Result<(), RunError> {
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(directory.join(TRANSCRIPT), text));
    written.map_err(|source| RunError::Directory { case: case.to_owned(), source })
}

/// Makes what lies where a client's backup is to go, in the client's own directory.
fn lay_out(target: &Target, own: &Path) -> io::Result<()> {
    let place = own.join("target");
    match target {
        Target::Missing | Target::SameAs(_) => Ok(()),
        Target::Empty => fs::create_dir(place),
        Target::ReadOnly => {
            fs::create_dir(&place)?;
            fs::set_permissions(place, fs::Permissions::from_mode(0o500))
        }
        Target::Link => {
            fs::create_dir(own.join(LINKED))?;
            symlink(LINKED, place)
        }
        Target::NotEmpty => {
            fs::create_dir_all(place.join("directory"))?;
            fs::write(place.join("PG_VERSION"), "nobody may change this\n")?;
            fs::write(place.join("directory/file"), "nor this\n")
        }
        Target::File => fs::write(place, "nobody may change this\n"),
    }
}

/// Where a target that is a link leads.
const LINKED: &str = "linked";

const TRANSCRIPT: &str = "transcript.txt";
const WIRE: &str = "wire.pcap";
