//! A command against the mock: a process of its own, over TCP.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_mock::fault::client::{FillDisk, KillClient};
use backstop_mock::fault::{Action, Signal};
use rustix::process::{Pid, kill_process, kill_process_group};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::watch;

use super::case_directory::CaseDirectory;
use super::cast::{Director, Orders, Outcome, play};
use super::{Ended, RunError, SETTLING, lock};
use crate::arena;
use crate::record::Ending;
use crate::scenario::Case;
use crate::scenario::model::Tool as Tools;
use crate::subject::command::{Invocation, Tool};
use crate::subject::signals::signal_named;
use crate::subject::small_disk::SmallDisk;

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
        for client in case.scenario.clients.iter().filter(|client| client.tool == Tools::Receivewal) {
            arena::furnish(server.cluster(), &client.has, &directory.target(&client.name)).map_err(setup)?;
        }
        let clients = clients(case, tool, address, ca_file.as_ref(), directory, cancel, &server).await?;
        let _ = tokio::time::timeout(SETTLING, server.idle()).await;
        serving.abort();
        Ok((server, clients))
    })
}

/// Runs the clients of `case` against what listens on `address`.
pub(super) async fn clients(
    case: &Case,
    tool: &Tool,
    address: SocketAddr,
    ca_file: Option<&NamedTempFile>,
    directory: &CaseDirectory,
    cancel: &watch::Receiver<bool>,
    director: &impl Director,
) -> Result<Vec<Ended>, RunError> {
    let world = tokio::task::LocalSet::new();
    let clients = world.run_until(play(case, director, |client, orders| {
        let base = client.incremental_from.as_ref();
        let invocation = Invocation {
            case,
            client,
            address,
            ca_file: ca_file.map(NamedTempFile::path),
            target: directory.target(&client.name),
            manifest: base.map(|base| directory.target(base).join("backup_manifest")),
            tablespace: &|oid| directory.tablespace(&client.name, oid),
        };
        let command = tool.command(&invocation);
        let disk = SmallDisk::wanted(case, client).then(|| SmallDisk::at(directory.place(&client.name)));
        run_client(command, disk, client.timeout.0, orders, cancel.clone())
    }));
    clients.await
}

/// A file with the certificate of the server's authority. Not where the client works: nothing may change there.
fn ca_file(pem: &str) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new().prefix("backstop-").suffix(".pem").tempfile()?;
    fs::write(file.path(), pem)?;
    Ok(file)
}

async fn run_client(
    command: Command,
    disk: Option<SmallDisk>,
    deadline: Duration,
    mut orders: Orders,
    mut cancel: watch::Receiver<bool>,
) -> Outcome {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let mut command = if let Some(disk) = &disk { disk.hold(&command) } else { command };
    // A group of its own: pg_basebackup's WAL receiver is a child of it, and goes with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("could not run \"{program}\": {error}"))?;
    let process = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (stderr, stdout) = (Said::default(), Said::default());
    let mut listening = tokio::task::JoinSet::new();
    listening.spawn(listen(child.stderr.take(), stderr.clone()));
    listening.spawn(listen(child.stdout.take(), stdout.clone()));
    let end = tokio::time::sleep(deadline);
    tokio::pin!(end);
    let ending = loop {
        tokio::select! {
            Some(order) = orders.recv() => match (&order.action, process) {
                (Action::KillClient(KillClient { signal, .. }), Some(process)) => send_signal(process, *signal),
                (Action::FillDisk(FillDisk { after, .. }), Some(process)) => {
                    if let Some(disk) = &disk {
                        disk.fill(process, after.0).await?;
                    }
                }
                _ => {}
            },
            status = child.wait() => match status {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => break Ending::Exited(code),
                    (None, signal) => break Ending::Signal(signal.unwrap_or_default()),
                },
                Err(error) => return Err(format!("could not wait for \"{program}\": {error}")),
            },
            () = &mut end => break Ending::TimedOut,
            () = cancelled(&mut cancel) => break Ending::TimedOut,
        }
    };
    let elapsed = began.elapsed();
    if ending != Ending::TimedOut {
        // Everything that it started writes to the same pipes: they end with the last of them.
        let silence = async { while listening.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLING, silence).await.is_err() {
            stderr.add(ORPHANS);
        }
    }
    // What it started ends with it, and with that the other ends of the pipes; who left the group may keep them open.
    if let Some(process) = process {
        let _ = kill_process_group(process, rustix::process::Signal::KILL);
    }
    let _ = child.wait().await;
    let _ = tokio::time::timeout(SETTLING, async { while listening.join_next().await.is_some() {} }).await;
    Ok((ending, stderr.text() + &stdout.text(), elapsed))
}

/// What the client is made to have said if a process of it outlived it.
const ORPHANS: &[u8] = b"(a process that the client had started still ran when it had ended)\n";

/// A terminal signals everything that runs in it; `kill` only the process that it is given.
fn send_signal(process: Pid, signal: Signal) {
    let number = signal_named(signal);
    // It may have ended at this moment.
    let _ = match signal {
        Signal::Int | Signal::Hup | Signal::Stop | Signal::Cont => kill_process_group(process, number),
        Signal::Term | Signal::Kill => kill_process(process, number),
    };
}

/// Resolves when the run is cancelled, and never if nobody can cancel it any more.
pub(super) async fn cancelled(cancel: &mut watch::Receiver<bool>) {
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
