//! Clients against a real server: over TCP, by the clock on the wall, with the fault proxy and its witnesses on the way.

use backstop_client::tls::Encryption;
use tokio::sync::watch;

use super::case_directory::CaseDirectory;
use super::command::{self, cancelled};
use super::{Ended, RunError, SETTLING, in_process};
use crate::arena::{Arena, Passage};
use crate::record::{ClientRecord, Record};
use crate::scenario::Case;
use crate::subject::Subject;
use crate::subject::machine::Network;

/// Puts up a server for the case, runs it and collects what is left. `clients` says what is to be recorded of them.
pub(super) fn run(
    case: &Case,
    subject: &Subject,
    arena: &Arena,
    directory: &CaseDirectory,
    cancel: &watch::Receiver<bool>,
    clients: impl FnOnce(Vec<Ended>) -> Result<Vec<ClientRecord>, RunError>,
) -> Result<Record, RunError> {
    let setup = |problem: String| RunError::Setup { case: case.id.clone(), problem };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(|error| setup(error.to_string()))?;
    let world = tokio::task::LocalSet::new();
    world.block_on(&runtime, async {
        let mut stopped = cancel.clone();
        let outside = directory.forbidden();
        let stage = tokio::select! {
            stage = arena.stage(case, &outside) => stage.map_err(setup)?,
            () = cancelled(&mut stopped) => return Err(RunError::Cancelled),
        };
        let stage = stage.ok_or_else(|| setup("the mock is no real server".to_owned()))?;
        let mut passage = Passage::open(&stage, &outside, directory.shared_capture()).map_err(setup)?;
        let address = passage.listen().map_err(setup)?;
        let played = async {
            match subject {
                Subject::Builtin(weakness) => {
                    let network = || Network::to_address(address);
                    in_process::clients(&stage.case, *weakness, &Encryption::DISABLE, network, directory, &passage)
                        .await
                }
                Subject::Command(tool) => {
                    command::clients(&stage.case, tool, address, None, directory, cancel, &passage).await
                }
            }
        };
        let ended = tokio::select! {
            ended = played => ended?,
            // What a cancelled client did says nothing about it.
            () = cancelled(&mut stopped) => Vec::new(),
        };
        let _ = tokio::time::timeout(SETTLING, passage.idle()).await;
        Ok(stage.record(passage, clients(ended)?).await)
    })
}
