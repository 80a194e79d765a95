//! A command against the mock: a process of its own, over TCP.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backstop_mock::Server;
use backstop_mock::config::Config;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::watch;

use super::case_directory::CaseDirectory;
use super::{Ended, RunError, SETTLING, lock};
use crate::arena;
use crate::record::Ending;
use crate::scenario::Case;
use crate::scenario::model::Tool as Tools;
use crate::subject::command::{Invocation, Tool};

/// How much of what a client prints is kept.
const MOST_SAID: usize = 256 << 10;

/// Runs the case on a runtime of its own.
pub(super) fn run(
    case: &Case,
    tool: &Tool,
    config: Config,
    directory: &CaseDirectory,
    cancel: &watch::Receiver<bool>,
) -> Result<(Server, Vec<Ended>), RunError> {
    let setup = |problem: String| RunError::Setup { case: case.id.clone(), problem };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(|error| setup(error.to_string()))?;
    runtime.block_on(async {
        let server = arena::start(case, config).map_err(setup)?;
        directory.capture(&server);
        let listener = server.listen(([127, 0, 0, 1], 0).into()).map_err(|error| setup(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| setup(error.to_string()))?;
        let ca_file = server.ca_certificate_pem().map(ca_file).transpose().map_err(|error| setup(error.to_string()))?;
        let serving = tokio::spawn(listener.run());
        let mut running = Vec::new();
        // Who builds on another's backup starts when that one has ended.
        let mut ended = BTreeMap::new();
        for client in &case.scenario.clients {
            let target = directory.target(&client.name);
            if client.tool == Tools::Receivewal {
                arena::furnish(server.cluster(), &client.has, &target).map_err(setup)?;
            }
            let base = client.incremental_from.as_ref();
            let invocation = Invocation {
                case,
                client,
                address,
                ca_file: ca_file.as_ref().map(NamedTempFile::path),
                target,
                manifest: base.map(|base| directory.target(base).join("backup_manifest")),
                tablespace: &|oid| directory.tablespace(&client.name, oid),
            };
            let command = tool.command(&invocation);
            let deadline = client.timeout.0;
            let before = base.and_then(|base| ended.get(base).cloned());
            let (tell, told) = watch::channel(false);
            ended.insert(client.name.clone(), told);
            let cancel = cancel.clone();
            let turn = async move {
                if let Some(mut before) = before {
                    // An error: it ended in a panic, which is an end, too.
                    let _ = before.wait_for(|ended| *ended).await;
                }
                let outcome = run_client(command, deadline, cancel).await;
                tell.send_replace(true);
                outcome
            };
            running.push((client, tokio::spawn(turn)));
        }
        let mut clients = Vec::new();
        for (client, task) in running {
            let (ending, said, elapsed) =
                task.await.map_err(|error| setup(error.to_string()))?.map_err(RunError::NoClient)?;
            clients.push(Ended { client: client.name.clone(), ending, said, elapsed });
        }
        let _ = tokio::time::timeout(SETTLING, server.idle()).await;
        serving.abort();
        Ok((server, clients))
    })
}

/// A file with the certificate of the server's authority. Not where the client works: nothing may change there.
fn ca_file(pem: &str) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new().prefix("backstop-").suffix(".pem").tempfile()?;
    fs::write(file.path(), pem)?;
    Ok(file)
}

async fn run_client(
    mut command: Command,
    deadline: Duration,
    mut cancel: watch::Receiver<bool>,
) -> Result<(Ending, String, Duration), String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    // A group of its own: pg_basebackup's WAL receiver is a child of it, and goes with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("could not run \"{program}\": {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (stderr, stdout) = (Said::default(), Said::default());
    let mut listening = tokio::task::JoinSet::new();
    listening.spawn(listen(child.stderr.take(), stderr.clone()));
    listening.spawn(listen(child.stdout.take(), stdout.clone()));
    let ending = tokio::select! {
        status = child.wait() => match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, signal) => Ending::Signal(signal.unwrap_or_default()),
            },
            Err(error) => return Err(format!("could not wait for \"{program}\": {error}")),
        },
        () = tokio::time::sleep(deadline) => Ending::TimedOut,
        () = cancelled(&mut cancel) => Ending::TimedOut,
    };
    let elapsed = began.elapsed();
    // What it started ends with it, and with that the other ends of the pipes; who left the group may keep them open.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
    let _ = tokio::time::timeout(SETTLING, async { while listening.join_next().await.is_some() {} }).await;
    Ok((ending, stderr.text() + &stdout.text(), elapsed))
}

/// Resolves when the run is cancelled, and never if nobody can cancel it any more.
async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The beginning of what a client prints on one of its streams.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    /// Keeps what there is room for.
    fn add(&self, bytes: &[u8]) {
        let mut kept = lock(&self.0);
        let room = MOST_SAID.saturating_sub(kept.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

/// Reads to the end.
async fn listen(stream: Option<impl AsyncRead + Unpin>, said: Said) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 << 10];
    // A client that cannot be listened to any more has said what it had to say.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        said.add(buffer.get(..read).unwrap_or_default());
    }
}
