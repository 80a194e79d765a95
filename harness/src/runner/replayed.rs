//! Clients against a cassette: the built-in client in process, over memory and on a paused clock; a command over TCP.

use backstop_client::tls::Encryption;
use tokio::sync::watch;

use super::case_directory::CaseDirectory;
use super::command::{self, cancelled};
use super::{Ended, RunError, SETTLING, in_process};
use crate::arena::{self, Passage, Stage};
use crate::record::{ClientRecord, Record};
use crate::scenario::Case;
use crate::subject::Subject;
use crate::subject::machine::Network;

/// Plays the cassette of the case to its clients, and collects what is left. `clients` says what is to be recorded of them.
pub(super) fn run(
    case: &Case,
    subject: &Subject,
    directory: &CaseDirectory,
    cancel: &watch::Receiver<bool>,
    clients: impl FnOnce(Vec<Ended>) -> Result<Vec<ClientRecord>, RunError>,
) -> Result<Record, RunError> {
    let setup = |problem: String| RunError::Setup { case: case.id.clone(), problem };
    let failed = |error: std::io::Error| setup(error.to_string());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match subject {
        Subject::Builtin(_) => runtime.enable_time().start_paused(true),
        Subject::Command(_) => runtime.enable_all(),
    };
    let runtime = runtime.build().map_err(failed)?;
    let world = tokio::task::LocalSet::new();
    world.block_on(&runtime, async {
        let player = arena::player(case).map_err(setup)?;
        let player = player.ok_or_else(|| setup("there is no cassette".to_owned()))?;
        let stage = Stage::played(case.clone(), player);
        let mut passage = Passage::open(&stage, &directory.forbidden(), directory.shared_capture()).map_err(setup)?;
        let ended = match subject {
            Subject::Builtin(weakness) => {
                let network = || Network::to_proxy(passage.proxy().clone());
                in_process::clients(case, *weakness, &Encryption::DISABLE, network, directory, &passage).await?
            }
            Subject::Command(tool) => {
                let address = passage.listen().map_err(setup)?;
                let mut stopped = cancel.clone();
                tokio::select! {
                    ended = command::clients(case, tool, address, None, directory, cancel, &passage) => ended?,
                    // What a cancelled client did says nothing about it.
                    () = cancelled(&mut stopped) => Vec::new(),
                }
            }
        };
        let _ = tokio::time::timeout(SETTLING, passage.idle()).await;
        Ok(stage.record(passage, clients(ended)?).await)
    })
}
