//! PostgreSQL in containers: for each release of the scenarios an image, and in it servers as on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use backstop_protocol::version::ServerVersion;

use super::local_postgres::{LocalPostgres, engine};
use super::playable;
use crate::scenario::Case;

/// Stands in the name of an image for the release.
const RELEASE: &str = "{major}";

/// The official images.
const OFFICIAL: &str = "postgres:{major}";

/// A container, or why there is none.
type Made = Result<Arc<LocalPostgres>, String>;

/// The containers of a run: one for each image that was needed.
#[derive(Debug)]
pub struct Containers {
    engine: PathBuf,
    image: String,
    scratch: Option<PathBuf>,
    /// By the image's name.
    made: Mutex<BTreeMap<String, Made>>,
}

impl Containers {
    /// Looks whether an engine answers, and for `image` if it names one and no template.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn find(image: Option<&str>, scratch: Option<&Path>) -> Result<Self, String> {
        let engine = engine();
        let mut ask = Command::new(&engine);
        let answer = ask.args(["version", "--format", "{{.Server.Version}}"]).stdin(Stdio::null()).output();
        let answer = answer.map_err(|error| {
            format!(
                "could not run the container engine {}: {error}; BACKSTOP_CONTAINER_ENGINE names another",
                engine.display()
            )
        })?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            let last = said.trim().lines().next_back().unwrap_or("it does not say why");
            return Err(format!("the container engine {} does not answer: {last}", engine.display()));
        }
        let image = image.unwrap_or(OFFICIAL).to_owned();
        let containers = Self { engine, image, scratch: scratch.map(Path::to_owned), made: Mutex::default() };
        if !containers.image.contains(RELEASE) {
            containers.of(ServerVersion::NEWEST)?;
        }
        Ok(containers)
    }

    /// The container for a release, started if it was not.
    fn of(&self, version: ServerVersion) -> Made {
        let image = self.image.replace(RELEASE, version.name());
        // Whoever comes second waits.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || LocalPostgres::in_container(&self.engine, &image, self.scratch.as_deref()).map(Arc::new);
        made.entry(image.clone()).or_insert_with(start).clone()
    }

    /// Why `case` cannot be played, if it cannot.
    pub(super) fn cannot_play(&self, case: &Case) -> Option<String> {
        let version = case.scenario.server.version;
        if version < ServerVersion::V12 {
            return Some("servers are run since 12".to_owned());
        }
        // Nobody needs a container to know that.
        playable::obstacle(case, version).or_else(|| match self.of(version) {
            Ok(local) => local.cannot_play(case),
            Err(problem) => Some(problem),
        })
    }

    /// The servers of a case's release.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn servers(&self, case: &Case) -> Made {
        self.of(case.scenario.server.version)
    }

    /// Why no more servers can be put up, if a container has ended.
    pub(super) fn gone(&self) -> Option<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.values().flatten().find_map(|local| local.gone())
    }

    /// Why there is no image at all, if none that was needed is there.
    pub(super) fn nothing(&self) -> Option<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.values().any(Result::is_ok) {
            None
        } else {
            made.values().find_map(|made| made.as_ref().err().cloned())
        }
    }
}
