//! A command against the mock: a process of its own, over TCP.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backstop_mock::Server;
use backstop_mock::config::Config;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::case_directory::CaseDirectory;
use super::{Ended, RunError, SETTLING};
use crate::arena;
use crate::record::Ending;
use crate::scenario::Case;
use crate::subject::command::{Invocation, Tool};

/// How much of what a client prints is kept.
const MOST_SAID: u64 = 256 << 10;

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
        let listener = server.listen(([127, 0, 0, 1], 0).into()).map_err(|error| setup(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| setup(error.to_string()))?;
        let ca_file = server.ca_certificate_pem().map(ca_file).transpose().map_err(|error| setup(error.to_string()))?;
        let serving = tokio::spawn(listener.run());
        let mut running = Vec::new();
        // Who builds on another's backup starts when that one has ended.
        let mut ended = BTreeMap::new();
        for client in &case.scenario.clients {
            let target = directory.target(&client.name);
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
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = tokio::spawn(async move { tokio::join!(read_some(stderr), read_some(stdout)) });
    let ending = tokio::select! {
        status = child.wait() => match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, signal) => Ending::Signal(signal.unwrap_or_default()),
            },
            Err(error) => return Err(format!("could not wait for \"{program}\": {error}")),
        },
        () = tokio::time::sleep(deadline) => stop(&mut child, Ending::TimedOut).await,
        () = cancelled(&mut cancel) => stop(&mut child, Ending::TimedOut).await,
    };
    let elapsed = began.elapsed();
    let (stderr, stdout) = said.await.map_err(|error| error.to_string())?;
    Ok((ending, stderr + &stdout, elapsed))
}

/// Resolves when the run is cancelled, and never if nobody can cancel it any more.
async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn stop(child: &mut Child, ending: Ending) -> Ending {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
    ending
}

/// Reads to the end and keeps the beginning.
async fn read_some(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // A client that cannot be listened to any more has said what it had to say.
        let _ = (&mut stream).take(MOST_SAID).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}
