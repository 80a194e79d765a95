//! A cassette in place of a server.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_mock::proxy::{Proxy, ProxyConfig};
use tokio::sync::watch;

use super::proxy::pass_on;
use super::serve::{Endpoint, ServeError, write_ca};
use crate::cassette::{Player, Tape};
use crate::scenario::Case;

/// How a cassette is played.
#[derive(Clone, Debug)]
pub struct Replaying {
    /// The file.
    pub cassette: PathBuf,
    /// Where clients come.
    pub endpoint: Endpoint,
    /// Where the certificate of a server's authority would go. No cassette speaks TLS.
    pub ca_file: Option<PathBuf>,
    /// The file that takes down what passes.
    pub record: Option<PathBuf>,
}

/// The cassette that the server of `case` plays, if it does: its path in the scenario is one from the directory of the scenario file.
pub fn cassette(case: &Case) -> Option<PathBuf> {
    let path = case.scenario.server.replay.as_ref()?;
    Some(case.path.parent().unwrap_or(Path::new("")).join(path))
}

/// A player with the cassette of `case`, if its server plays one.
///
/// # Errors
/// A cassette that cannot be played.
pub fn player(case: &Case) -> Result<Option<Player>, String> {
    cassette(case).map(|path| load(&path).map_err(|error| error.to_string())).transpose()
}

fn load(path: &Path) -> Result<Player, ServeError> {
    let problem = |problem: String| ServeError::Cassette { path: path.display().to_string(), problem };
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    Tape::read(file).map(Player::new).map_err(|error| problem(error.to_string()))
}

/// Plays a cassette to whoever comes until `cancel` says so. The first line on `out` and what follows on `log` are as those of
/// [`serve`](super::serve()).
///
/// # Errors
/// A cassette that cannot be played, an address that is in use.
pub async fn replay(
    replaying: &Replaying,
    out: &mut impl Write,
    log: &mut impl Write,
    mut cancel: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let player = load(&replaying.cassette)?;
    let name = || replaying.cassette.display().to_string();
    let setup = |problem: String| ServeError::Setup { case: name(), problem };
    let proxy = Proxy::new(&ProxyConfig::default(), Arc::new(player)).map_err(|error| setup(error.to_string()))?;
    write_ca(replaying.ca_file.as_deref(), proxy.ca_certificate_pem()).map_err(setup)?;
    pass_on(&proxy, &replaying.endpoint, replaying.record.as_deref(), out, log, &mut cancel).await
}
