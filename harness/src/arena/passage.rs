//! The way between the clients of a case and a server that is not in this process: the fault proxy, with witnesses on both of its
//! sides.
//!
//! What the server said is heard before a fault changes it, what the clients were told after that. A backup is what the server says of
//! it, as far as its client could know.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_mock::capture::Capture;
use backstop_mock::fault::Fault;
use backstop_mock::proxy::{Proxy, ProxyConfig};
use backstop_mock::transcript::Direction;
use backstop_mock::{BackupOutcome, BackupRecord, ClientOrder, Server};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::real::Stage;
use super::{lead, starts};
use crate::witness::said::Said;
use crate::witness::{Testimony, Witness};

/// Who takes down what passes.
pub type SharedCapture = Arc<Mutex<dyn Capture>>;

/// The way to the server of a case.
#[derive(Debug)]
pub struct Passage {
    proxy: Proxy,
    /// The mock, if that is the server: then faults strike in it, and it knows when clients start.
    mock: Option<Server>,
    /// What clients said and were told.
    heard: Arc<Mutex<Witness>>,
    /// What the server was told and said.
    truth: Arc<Mutex<Witness>>,
    /// Whether a cassette is played, of which no more is known than what is heard.
    played: bool,
    accepting: Option<JoinHandle<io::Result<()>>>,
}

/// What passed.
pub(super) struct Passed {
    /// Between the clients and the proxy.
    pub(super) heard: Testimony,
    /// The backups as the server took them.
    pub(super) backups: Vec<BackupRecord>,
    pub(super) transcript: Vec<backstop_mock::transcript::Event>,
    /// The numbers of the faults that have struck.
    pub(super) fired: std::collections::BTreeSet<usize>,
}

impl Passage {
    /// Opens the way to the server of `stage`, with its faults armed; hostile links lead to `outside`.
    ///
    /// # Errors
    /// A fault that cannot strike there.
    pub fn open(stage: &Stage, outside: &Path, capture: Option<SharedCapture>) -> Result<Self, String> {
        let mock = stage.as_mock().cloned();
        let faults: Vec<Fault> = if mock.is_some() { Vec::new() } else { faults(stage, outside) };
        let config = ProxyConfig { faults, tls: None, runs_clients: true };
        let proxy = Proxy::new(&config, Arc::clone(&stage.upstream)).map_err(|error| error.to_string())?;
        let witness = || Arc::new(Mutex::new(Witness::new(stage.case.scenario.server.version)));
        let (heard, truth) = (witness(), witness());
        let both = Both(Arc::clone(&heard), capture);
        proxy.capture(Arc::new(Mutex::new(both)));
        proxy.capture_upstream(Arc::clone(&truth) as _);
        Ok(Self { proxy, mock, heard, truth, played: stage.is_played(), accepting: None })
    }

    /// Lets clients come to a port.
    ///
    /// # Errors
    /// None is free.
    pub fn listen(&mut self) -> Result<SocketAddr, String> {
        let no_port = |error: io::Error| format!("no port is free: {error}");
        let listener = self.proxy.listen((Ipv4Addr::LOCALHOST, 0).into()).map_err(no_port)?;
        let address = listener.local_addr().map_err(no_port)?;
        self.accepting = Some(tokio::spawn(listener.run()));
        Ok(address)
    }

    /// What clients in this process come to.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// What is to be done to the clients, from now on. Only the last who asks is told.
    pub fn client_orders(&self) -> UnboundedReceiver<ClientOrder> {
        self.mock.as_ref().map_or_else(|| self.proxy.client_orders(), Server::client_orders)
    }

    /// The client called `name` has ended: others may start.
    pub fn client_ended(&self, name: &str) {
        match &self.mock {
            Some(mock) => mock.client_ended(name),
            None => self.proxy.client_ended(name),
        }
    }

    /// Resolves when every session has ended.
    pub async fn idle(&self) {
        self.proxy.idle().await;
    }

    /// Nobody comes any more.
    pub fn close(&self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }

    pub(super) fn passed(&self) -> Passed {
        let testify = |witness: &Mutex<Witness>| witness.lock().unwrap_or_else(PoisonError::into_inner).testify();
        let mut heard = testify(&self.heard);
        let truth = testify(&self.truth);
        let (backups, fired, transcript) = match &self.mock {
            Some(mock) => (mock.backups(), mock.fired(), std::mem::take(&mut heard.events)),
            None if self.played => {
                (std::mem::take(&mut heard.backups), self.proxy.fired(), std::mem::take(&mut heard.events))
            }
            None => (backups(&truth, &heard), self.proxy.fired(), self.proxy.transcript()),
        };
        Passed { heard, backups, transcript, fired }
    }
}

/// The faults of a case and those at whose points its clients start, in the order of its record.
fn faults(stage: &Stage, outside: &Path) -> Vec<Fault> {
    let scenario = &stage.case.scenario;
    let starts = starts(&stage.case).into_iter().map(|(_, fault)| fault);
    scenario.faults.iter().cloned().map(|fault| lead(fault, outside)).chain(starts).collect()
}

/// What the server did, as far as its clients could know: what never came to one did not end its backup.
fn backups(truth: &Testimony, heard: &Testimony) -> Vec<BackupRecord> {
    let count = |all: &BTreeMap<u32, Vec<Said>>, session: u32, message: &str| {
        let said = all.get(&session).map(Vec::as_slice).unwrap_or_default();
        said.iter().filter(|said| said.direction == Direction::Sent && said.message == message).count()
    };
    let arrived =
        |session: u32, message: &str| count(&heard.said, session, message) >= count(&truth.said, session, message);
    let backups = truth.backups.iter().cloned().map(|mut backup| {
        backup.command_complete &= arrived(backup.session, "CommandComplete");
        if backup.ended == BackupOutcome::Complete && !arrived(backup.session, "ReadyForQuery") {
            backup.ended = BackupOutcome::Failed("what the server said last did not arrive".to_owned());
        }
        backup
    });
    backups.collect()
}

/// The witness, and who takes down what it hears.
#[derive(Debug)]
struct Both(Arc<Mutex<Witness>>, Option<SharedCapture>);

impl Both {
    fn each(&self, mut tell: impl FnMut(&mut dyn Capture)) {
        tell(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(capture) = &self.1 {
            tell(&mut *capture.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Capture for Both {
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        self.each(|capture| capture.bytes(at, session, direction, bytes));
    }

    fn end(&mut self, session: u32) {
        self.each(|capture| capture.end(session));
    }
}
