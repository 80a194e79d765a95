//! The built-in client against the mock: one process, memory for a network, and a clock that nobody waits for.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use backstop_client::parallel::{ParallelOptions, parallel_backup};
use backstop_client::receivewal::{ReceiveOptions, WalEvent, WalObserver, receive_wal};
use backstop_client::tls::Encryption;
use backstop_client::{BackupOptions, ClientError, Login, Observer, Phase, Weakness, base_backup};
use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_mock::fault::client::{FillDisk, KillClient};
use backstop_mock::fault::{Action, Signal};
use backstop_protocol::backend::Diagnostic;
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::case_directory::CaseDirectory;
use super::cast::{Director, Orders, Outcome, play};
use super::{Ended, RunError, SETTLING};
use crate::arena;
use crate::record::Ending;
use crate::scenario::Case;
use crate::scenario::model::{Client, Target, Tool};
use crate::subject::machine::{FaultyDisk, Network};
use crate::subject::signals::signal_number;
use crate::subject::{builtin, commands, parallel, receivewal};

/// Remembers what the server had to say.
#[derive(Default)]
struct Notices(Mutex<String>);

impl Notices {
    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Notices {
    fn notice(&self, notice: &Diagnostic) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&notice.to_string());
        said.push('\n');
    }

    fn warning(&self, text: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(said, "warning: {text}");
    }

    fn phase(&self, phase: &Phase) {
        if let Phase::SlotRemains { name, problem } = phase {
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(said, "replication slot \"{name}\" was created and could not be dropped: {problem}");
        }
    }
}

impl WalObserver for Notices {
    fn event(&self, event: &WalEvent) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&event.to_string());
        said.push('\n');
    }
}

/// Runs the case on a runtime of its own.
pub(super) fn run(
    case: &Case,
    config: Config,
    weakness: Weakness,
    directory: &CaseDirectory,
) -> Result<(Server, Vec<Ended>), RunError> {
    let setup = |problem: String| RunError::Setup { case: case.id.clone(), problem };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().map_err(|error| setup(error.to_string()))?;
    let world = tokio::task::LocalSet::new();
    world.block_on(&runtime, async {
        let server = arena::start(case, config).map_err(setup)?;
        directory.capture(&server);
        // A server that speaks TLS is spoken to in TLS.
        let encryption = server.ca_certificate_pem().map_or(Encryption::DISABLE, Encryption::verify_full);
        for client in case.scenario.clients.iter().filter(|client| client.tool == Tool::Receivewal) {
            arena::furnish(server.cluster(), &client.has, &directory.target(&client.name)).map_err(setup)?;
        }
        let network = || Network::to_mock(server.clone());
        let clients = clients(case, weakness, &encryption, network, directory, &server).await?;
        // Nothing else happens on a paused clock: whoever has not gone by then never will.
        let _ = tokio::time::timeout(SETTLING, server.idle()).await;
        Ok((server, clients))
    })
}

/// Runs the clients of `case`, each with a `network` of its own. Belongs on a `LocalSet`.
pub(super) async fn clients(
    case: &Case,
    weakness: Weakness,
    encryption: &Encryption,
    network: impl Fn() -> Network,
    directory: &CaseDirectory,
    director: &impl Director,
) -> Result<Vec<Ended>, RunError> {
    play(case, director, |client, orders| {
        let target = directory.target(&client.name);
        let machine = Machine::new(client, network());
        let notices = Arc::new(Notices::default());
        let work = match client.tool {
            Tool::Basebackup => {
                let base = client.incremental_from.as_ref();
                let manifest = base.map(|base| directory.target(base).join("backup_manifest"));
                let tablespace = |oid| directory.tablespace(&client.name, oid);
                match builtin::options(case, client, target, manifest, tablespace) {
                    Ok(mut options) => {
                        options.weakness = weakness;
                        options.login.encryption.clone_from(encryption);
                        back_up(&machine, options, &notices)
                    }
                    Err(problem) => Work::refused(problem),
                }
            }
            Tool::Parallel => {
                let base = client.incremental_from.as_ref();
                let base = base.map(|base| directory.target(base).join("backup_manifest"));
                let tablespace = |oid| directory.tablespace(&client.name, oid);
                match parallel::options(case, client, target, base.as_deref(), tablespace) {
                    Ok(mut options) => {
                        options.weakness = weakness;
                        options.login.encryption.clone_from(encryption);
                        back_up_with_sql(&machine, options, &notices)
                    }
                    Err(problem) => Work::refused(problem),
                }
            }
            Tool::Commands => {
                let mut login = commands::login(case, client);
                login.encryption.clone_from(encryption);
                speak(&machine, client, login, &notices)
            }
            Tool::Receivewal => {
                let mut options = receivewal::options(case, client, target);
                options.weakness = weakness;
                options.login.encryption.clone_from(encryption);
                receive(&machine, options, &notices)
            }
        };
        live(client.clone(), machine, work, notices, orders)
    })
    .await
}

/// The machine that a client works on.
struct Machine {
    disk: Arc<FaultyDisk>,
    network: Arc<Network>,
}

impl Machine {
    fn new(client: &Client, network: Network) -> Self {
        let disk = Arc::new(FaultyDisk::default());
        if client.target == Target::ReadOnly {
            disk.protect(Errno::ACCESS);
        }
        Self { disk, network: Arc::new(network) }
    }

    /// It has no more time to clean up, or to say goodbye.
    fn lose_power(&self) {
        self.disk.protect(Errno::IO);
        self.network.switch_off();
    }
}

/// What a client does, and what it says in the end.
struct Work {
    doing: Pin<Box<dyn Future<Output = Result<String, String>>>>,
    /// Asks it to come to an end, if it listens to signals.
    stop: Option<watch::Sender<bool>>,
}

impl Work {
    fn refused(problem: String) -> Self {
        Self { doing: Box::pin(async { Err(problem) }), stop: None }
    }
}

fn back_up(machine: &Machine, mut options: BackupOptions, notices: &Arc<Notices>) -> Work {
    options.disk = Arc::clone(&machine.disk) as _;
    let backup = base_backup(Arc::clone(&machine.network) as _, options, Arc::clone(notices) as _);
    Work { doing: Box::pin(async { nothing_said(backup.await) }), stop: None }
}

fn back_up_with_sql(machine: &Machine, mut options: ParallelOptions, notices: &Arc<Notices>) -> Work {
    options.disk = Arc::clone(&machine.disk) as _;
    let (network, notices) = (Arc::clone(&machine.network), Arc::clone(notices));
    let (stop, mut stopping) = watch::channel(false);
    let backup = async move {
        let canceled = async move {
            // An error: nobody is left who could say so.
            if stopping.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            "interrupt"
        };
        nothing_said(parallel_backup(&*network, &options, notices as _, canceled).await)
    };
    Work { doing: Box::pin(backup), stop: Some(stop) }
}

fn receive(machine: &Machine, mut options: ReceiveOptions, notices: &Arc<Notices>) -> Work {
    options.disk = Arc::clone(&machine.disk) as _;
    let (network, notices) = (Arc::clone(&machine.network), Arc::clone(notices));
    let (stop, stopping) = watch::channel(false);
    let receiving = async move { nothing_said(receive_wal(&*network, &options, notices as _, stopping).await) };
    Work { doing: Box::pin(receiving), stop: Some(stop) }
}

fn speak(machine: &Machine, client: &Client, login: Login, notices: &Arc<Notices>) -> Work {
    let (network, client, notices) = (Arc::clone(&machine.network), client.clone(), Arc::clone(notices));
    let speaking = async move { commands::speak(&*network, &client, &login, notices as _).await };
    Work { doing: Box::pin(speaking), stop: None }
}

/// Only an error has something to say.
fn nothing_said<T>(result: Result<T, ClientError>) -> Result<String, String> {
    result.map(|_| String::new()).map_err(|error| error.to_string())
}

/// Lets a client work until it has ended, or until something ends it.
async fn live(client: Client, machine: Machine, work: Work, notices: Arc<Notices>, mut orders: Orders) -> Outcome {
    let began = Instant::now();
    let deadline = began + client.timeout.0;
    let Work { mut doing, stop } = work;
    let mut stopped = false;
    let mut killed = None;
    let result = loop {
        tokio::select! {
            biased;
            Some(order) = orders.recv() => match order.action {
                Action::FillDisk(FillDisk { after, .. }) => machine.disk.fill(after.0),
                Action::FailFsync(_) => machine.disk.forget(),
                Action::ProtectDisk(_) => machine.disk.protect(Errno::ROFS),
                Action::KillClient(KillClient { signal: Signal::Stop, .. }) => stopped = true,
                Action::KillClient(KillClient { signal: Signal::Cont, .. }) => stopped = false,
                Action::KillClient(KillClient { signal, .. }) => match &stop {
                    Some(stop) if matches!(signal, Signal::Int | Signal::Term) => drop(stop.send_replace(true)),
                    _ => {
                        if signal == Signal::Kill {
                            machine.lose_power();
                        }
                        killed = Some((signal, order));
                        break None;
                    }
                },
                _ => {}
            },
            result = &mut doing, if !stopped => break Some(result),
            () = sleep_until(deadline) => break None,
        }
    };
    let elapsed = began.elapsed();
    // Whoever sent the signal goes on when everything that it does is done.
    drop(doing);
    let mut said = notices.take();
    let ending = match (result, &killed) {
        (Some(Ok(told)), _) => {
            said.push_str(&told);
            Ending::Exited(0)
        }
        (Some(Err(told)), _) => {
            said.push_str(&told);
            Ending::Exited(1)
        }
        (None, Some((signal, _))) => Ending::Signal(signal_number(*signal)),
        (None, None) => Ending::TimedOut,
    };
    drop(killed);
    Ok((ending, said, elapsed))
}
