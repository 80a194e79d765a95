//! The built-in client against the mock: one process, memory for a network, and a clock that nobody waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_client::receivewal::{ReceiveOptions, WalEvent, WalObserver, receive_wal};
use backstop_client::tls::Encryption;
use backstop_client::{BackupOptions, Connecting, Connector, Login, Observer, Place, Purpose, Weakness, base_backup};
use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_protocol::backend::Diagnostic;
use tokio::sync::watch;
use tokio::time::Instant;

use super::case_directory::CaseDirectory;
use super::{Ended, RunError, SETTLING};
use crate::arena;
use crate::record::Ending;
use crate::scenario::Case;
use crate::scenario::model::{Client, Tool};
use crate::subject::{builtin, commands, receivewal};

/// Opens connections inside the process.
struct Memory(Server);

impl Connector for Memory {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as _) })
    }

    /// One of the names that the mock's certificate is for.
    fn name(&self, _host: usize) -> Option<String> {
        Some("localhost".to_owned())
    }
}

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
        let mut running = Vec::new();
        // Who builds on another's backup starts when that one has ended.
        let mut ended = BTreeMap::new();
        for client in &case.scenario.clients {
            if client.tool == Tool::Receivewal {
                let target = directory.target(&client.name);
                arena::furnish(server.cluster(), &client.has, &target).map_err(setup)?;
                let mut options = receivewal::options(client, target);
                options.weakness = weakness;
                options.login.encryption.clone_from(&encryption);
                running.push((
                    client.name.clone(),
                    tokio::task::spawn_local(receive(client.clone(), server.clone(), options)),
                ));
                continue;
            }
            if client.tool == Tool::Commands {
                let mut login = commands::login(client);
                login.encryption.clone_from(&encryption);
                let speaking = speak(client.clone(), server.clone(), login);
                running.push((client.name.clone(), tokio::task::spawn_local(speaking)));
                continue;
            }
            let base = client.incremental_from.as_ref();
            let manifest = base.map(|base| directory.target(base).join("backup_manifest"));
            let options = builtin::options(case, client, directory.target(&client.name), manifest, |oid| {
                directory.tablespace(&client.name, oid)
            });
            let options = options.map(|mut options| {
                options.login.encryption.clone_from(&encryption);
                BackupOptions { weakness, ..options }
            });
            let before = base.and_then(|base| ended.get(base).cloned());
            let (tell, told) = watch::channel(false);
            ended.insert(client.name.clone(), told);
            let (client, server, timeout) = (client.name.clone(), server.clone(), client.timeout.0);
            let turn = async move {
                if let Some(mut before) = before {
                    // An error: it ended in a panic, which is an end, too.
                    let _: Result<_, watch::error::RecvError> = before.wait_for(|ended| *ended).await;
                }
                let outcome = match options {
                    Ok(options) => run_client(timeout, server, options).await,
                    Err(problem) => (Ending::Exited(1), problem, Duration::ZERO),
                };
                tell.send_replace(true);
                outcome
            };
            running.push((client, tokio::task::spawn_local(turn)));
        }
        let mut clients = Vec::new();
        for (client, task) in running {
            let (ending, said, elapsed) = match task.await {
                Ok(ended) => ended,
                Err(error) => (Ending::Panicked(error.to_string()), String::new(), Duration::ZERO),
            };
            clients.push(Ended { client, ending, said, elapsed });
        }
        // Nothing else happens on a paused clock: whoever has not gone by then never will.
        let _ = tokio::time::timeout(SETTLING, server.idle()).await;
        Ok((server, clients))
    })
}

async fn receive(client: Client, server: Server, options: ReceiveOptions) -> (Ending, String, Duration) {
    let began = Instant::now();
    let notices = Arc::new(Notices::default());
    let connector = Memory(server);
    // Nobody ever asks it to stop.
    let (_stop, stopping) = watch::channel(false);
    let receiving = receive_wal(&connector, &options, Arc::clone(&notices) as _, stopping);
    let ended = tokio::time::timeout(client.timeout.0, receiving).await;
    let elapsed = began.elapsed();
    let mut said = notices.take();
    let ending = match ended {
        Err(_) => Ending::TimedOut,
        Ok(Ok(())) => Ending::Exited(0),
        Ok(Err(error)) => {
            said.push_str(&error.to_string());
            Ending::Exited(1)
        }
    };
    (ending, said, elapsed)
}

async fn speak(client: Client, server: Server, login: Login) -> (Ending, String, Duration) {
    let began = Instant::now();
    let notices = Arc::new(Notices::default());
    let connector = Memory(server);
    let speaking = commands::speak(&connector, &client, &login, Arc::clone(&notices) as _);
    let ended = tokio::time::timeout(client.timeout.0, speaking).await;
    let mut said = notices.take();
    let ending = match ended {
        Err(_) => Ending::TimedOut,
        Ok(Ok(told)) => {
            said.push_str(&told);
            Ending::Exited(0)
        }
        Ok(Err(told)) => {
            said.push_str(&told);
            Ending::Exited(1)
        }
    };
    (ending, said, began.elapsed())
}

async fn run_client(timeout: Duration, server: Server, options: BackupOptions) -> (Ending, String, Duration) {
    let began = Instant::now();
    let notices = Arc::new(Notices::default());
    let backup = base_backup(Arc::new(Memory(server)), options, Arc::clone(&notices) as _);
    let ended = tokio::time::timeout(timeout, backup).await;
    let elapsed = began.elapsed();
    let mut said = notices.take();
    let ending = match ended {
        Err(_) => Ending::TimedOut,
        Ok(Ok(_)) => Ending::Exited(0),
        Ok(Err(error)) => {
            said.push_str(&error.to_string());
            Ending::Exited(1)
        }
    };
    (ending, said, elapsed)
}
