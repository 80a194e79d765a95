//! A server: its cluster, its faults, its sessions, and what it remembers of them.

mod counts;
mod orders;
mod postmaster;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use backstop_protocol::base_backup::options::BaseBackupOptions;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::access::Access;
use crate::capture::{Capture, SharedCapture, Tap};
use crate::clock::Clock;
use crate::cluster::{Cluster, RunningBackup, SlotState, Tablespace};
use crate::config::{Config, ConfigError};
use crate::fault::cluster::{AddFile, ChangeFile, GrowFile, RemoveFile, ShrinkFile};
use crate::fault::server::{Crash, DropSlot, RecycleWal, Shutdown, StartBackup, StopBackup, Terminate};
use crate::fault::{Action, Identity, Moment, Plan};
use crate::phase::Phase;
use crate::random;
use crate::session;
use crate::tls::Tls;
use crate::transcript::{Direction, Event, Recorder, Said};
use crate::transport::{MemoryStream, Socket, Stream};

pub use crate::cluster::Found;
pub use counts::{Carried, SessionCounts};
pub use orders::ClientOrder;
pub(crate) use orders::ClientOrders;
pub(crate) use postmaster::Life;

/// A walsender without PostgreSQL.
///
/// Cheap to clone. Its sessions are tasks on the runtime on which they were accepted; they end when the last clone is dropped.
/// With in-memory connections on a paused clock, what it says is a function of its configuration and of what it is told.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
    _end: Arc<EndOnDrop>,
}

/// What a server still holds: see [`Server::state`].
#[derive(Clone, Debug)]
pub struct ServerState {
    /// Open connections.
    pub sessions: usize,
    /// Base backups that have begun and neither ended nor been aborted, exclusive ones included: the server forces full
    /// pages into WAL while there are any.
    pub running_backups: usize,
    /// `backup_label` in the data directory: the exclusive backup's, or what a crash left of it.
    pub backup_label: Option<String>,
    /// Why the server did not come up after a crash.
    pub start_up_failure: Option<Diagnostic>,
    /// Replication slots.
    pub slots: Vec<SlotState>,
    /// The oldest WAL that was not removed.
    pub oldest_wal: Lsn,
    /// Every command of every session, in the order in which they arrived.
    pub commands: Vec<String>,
}

/// How a backup ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupOutcome {
    /// Not yet.
    Running,
    /// Everything was written, the last ReadyForQuery included.
    Complete,
    /// It did not get there: the ERROR or FATAL, or what happened to the connection.
    Failed(String),
}

/// A base backup that the server has given, or has tried to give.
#[derive(Clone, Debug)]
pub struct BackupRecord {
    /// The connection's number, from 1.
    pub session: u32,
    /// The start position.
    pub start: Lsn,
    /// Its timeline.
    pub start_timeline: TimelineId,
    /// The end position, once the backup was stopped.
    pub end: Option<Lsn>,
    /// Its timeline.
    pub end_timeline: Option<TimelineId>,
    /// What was asked for.
    pub options: BaseBackupOptions,
    /// The content of `backup_label`.
    pub label_text: String,
    /// Without the base directory.
    pub tablespaces: Vec<Tablespace>,
    /// How it ended.
    pub ended: BackupOutcome,
    /// Whether BASE_BACKUP's own CommandComplete was said: nothing that follows makes the backup a worse one.
    pub command_complete: bool,
    /// Whether the client ended the session with Terminate.
    pub client_terminated: bool,
    /// The files, by their paths in the manifest, that the backup found otherwise than the cluster had them at first.
    pub found: BTreeMap<Vec<u8>, Found>,
    /// The content of `backup_profile`, once it was sent: see
    /// [`Flavour::sends_profile`](backstop_protocol::version::Flavour::sends_profile).
    pub profile: Option<Vec<u8>>,
}

impl Server {
    /// A server as configured, with its faults armed.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        for (index, fault) in config.faults.iter().enumerate() {
            let problem = |problem| ConfigError::invalid(format!("fault {}", index + 1), problem);
            fault.validate().map_err(problem)?;
        }
        let life = Life::beginning(config.phase)?;
        let cluster = Cluster::new(&config)?;
        cluster.set_running(life.phase == Phase::Running);
        let shared = Arc::new(Shared {
            access: Access::new(&config)?,
            tls: Tls::new(&config, cluster.version())?,
            clock: Clock::new(cluster.epoch()),
            plan: Mutex::new(Plan::new(&config.faults)),
            faultless: config.faults.is_empty(),
            recorder: Mutex::default(),
            capture: OnceLock::new(),
            book: Mutex::default(),
            client_orders: ClientOrders::default(),
            life: watch::Sender::new(life),
            live: watch::Sender::new(0),
            awake: AtomicBool::new(false),
            cluster,
            config,
        });
        Ok(Self { _end: Arc::new(EndOnDrop(shared.clone())), shared })
    }

    /// Opens an in-memory connection; its session runs on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(&self) -> MemoryStream {
        let (ours, theirs) = MemoryStream::pair();
        self.shared.accept(Stream::Memory(ours));
        theirs
    }

    /// Listens on a TCP port; port 0 lets the kernel choose one.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        Ok(Listener { shared: self.shared.clone(), socket: Socket::listen(address)? })
    }

    /// Listens on a Unix socket, which everybody may use (`unix_socket_permissions`). The path must not exist.
    #[cfg(unix)]
    pub fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        Ok(Listener { shared: self.shared.clone(), socket: Socket::listen_unix(path)? })
    }

    /// What the server has.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The certificate authority's certificate in PEM, which proves the server's own: libpq's `sslrootcert`. None without TLS.
    pub fn ca_certificate_pem(&self) -> Option<&str> {
        self.shared.tls.as_ref().map(Tls::authority)
    }

    /// Everything that was sent and received so far, in order.
    pub fn transcript(&self) -> Vec<Event> {
        lock(&self.shared.recorder).events()
    }

    /// What [`transcript`](Self::transcript) would tell and has not been taken yet, except for the last event of each session
    /// that is in the middle of data. What is taken is no longer kept: whoever serves for long takes it from time to time.
    pub fn take_transcript(&self) -> Vec<Event> {
        lock(&self.shared.recorder).take()
    }

    /// Has every byte of the connections that come from now on taken down. The first capture stays; another one is not taken.
    pub fn capture(&self, capture: Arc<Mutex<dyn Capture>>) {
        let _ = self.shared.capture.set(capture);
    }

    /// What the server still holds.
    pub fn state(&self) -> ServerState {
        let book = self.shared.book();
        ServerState {
            sessions: book.sessions.len(),
            running_backups: self.shared.cluster.running_backups(),
            backup_label: self.shared.cluster.label_files().map(|files| files.label),
            start_up_failure: book.start_up_failure.clone(),
            slots: self.shared.cluster.slots(),
            oldest_wal: self.shared.cluster.oldest_wal(),
            commands: book.commands.clone(),
        }
    }

    /// Every backup that was begun, in order.
    pub fn backups(&self) -> Vec<BackupRecord> {
        self.shared.book().backups.clone()
    }

    /// Indexes of the configuration's faults that have struck.
    pub fn fired(&self) -> BTreeSet<usize> {
        lock(&self.shared.plan).fired()
    }

    /// What each session was sent, in the order of the connections.
    pub fn session_counts(&self) -> Vec<SessionCounts> {
        let book = self.shared.book();
        let mut counts = book.counts.clone();
        counts.extend(book.sessions.values().map(|seat| seat.counts()));
        counts.sort_unstable_by_key(|count| count.session);
        counts
    }

    /// Does now what a fault could do to the server: shutdown, crash, promotion, and so on. Actions that are about a message
    /// or an archive do nothing.
    pub fn act(&self, action: &Action) {
        self.shared.act(action);
    }

    /// Resolves when no session is left.
    pub async fn idle(&self) {
        let mut live = self.shared.live.subscribe();
        // The sender lives as long as self.
        let _ = live.wait_for(|sessions| *sessions == 0).await;
    }
}

fn no_exclusive_backups() -> Diagnostic {
    Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, "this release has no exclusive backups")
}

/// Accepts connections for a [`Server`].
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    socket: Socket,
}

impl Listener {
    /// The address, with the port that the kernel chose. A Unix socket has none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped. Ends only if the socket breaks.
    pub async fn run(self) -> io::Result<()> {
        loop {
            self.shared.accept(self.socket.accept().await?);
        }
    }
}

/// Ends the sessions of a server when its last handle goes.
#[derive(Debug)]
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut book = self.0.book();
        let tasks: Vec<_> = std::mem::take(&mut book.tasks).into_values().collect();
        let background = std::mem::take(&mut book.background);
        // Running backups are aborted by their drop, which takes the cluster's lock and not this one.
        let held = std::mem::take(&mut book.held_backups);
        drop(book);
        drop(held);
        for task in tasks.into_iter().chain(background) {
            task.abort();
        }
    }
}

/// What another session, or the clock, does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Terminate,
    Close,
    Reset,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) access: Access,
    pub(crate) tls: Option<Tls>,
    pub(crate) clock: Clock,
    pub(crate) life: watch::Sender<Life>,
    plan: Mutex<Plan>,
    faultless: bool,
    recorder: Mutex<Recorder>,
    capture: OnceLock<SharedCapture>,
    book: Mutex<Book>,
    /// Who has the clients' machines.
    client_orders: ClientOrders,
    live: watch::Sender<usize>,
    /// Whether the background tasks run.
    awake: AtomicBool,
}

/// What the server remembers.
#[derive(Debug, Default)]
pub(crate) struct Book {
    accepted: u32,
    sessions: BTreeMap<u32, Arc<Seat>>,
    tasks: BTreeMap<u32, AbortHandle>,
    background: Vec<AbortHandle>,
    pub(crate) backups: Vec<BackupRecord>,
    pub(crate) commands: Vec<String>,
    counts: Vec<SessionCounts>,
    held_backups: Vec<RunningBackup>,
    /// Backups that were begun with SQL and run: whose they are, and where they stand in `backups`.
    pub(crate) backups_by_sql: Vec<SqlBackup>,
    start_up_failure: Option<Diagnostic>,
}

/// A backup that was begun with SQL, whose files other sessions of the same client read.
#[derive(Debug)]
pub(crate) struct SqlBackup {
    /// The `application_name` of the session that began it.
    pub(crate) client: Option<String>,
    pub(crate) exclusive: bool,
    /// Its index in the book.
    pub(crate) record: usize,
}

/// A session as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) number: u32,
    pub(crate) pid: i32,
    /// When it began: the postmaster decided then whether to take it in.
    pub(crate) began: Life,
    /// Whether its client has proved who it is. Before, nothing is said to it when the server stops.
    pub(crate) admitted: AtomicBool,
    /// What a cancel request must know: 32 bytes with protocol 3.2, 4 before. Not set before the client was told.
    pub(crate) key: OnceLock<Bytes>,
    identity: Mutex<Identity>,
    pub(crate) order: watch::Sender<Option<Order>>,
    pub(crate) cancel: Notify,
    /// Messages sent since start-up.
    pub(crate) messages: AtomicU64,
    /// Commands that its client sent.
    commands: AtomicU64,
    carried: Mutex<Carried>,
    /// Whether it streams WAL: it then ends a shutdown in its own way.
    pub(crate) streams: AtomicBool,
    /// Whether it counts against `max_wal_senders`.
    pub(crate) is_walsender: AtomicBool,
}

impl Seat {
    pub(crate) fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    pub(crate) fn identify(&self, change: impl FnOnce(&mut Identity)) {
        change(&mut lock(&self.identity));
    }

    /// Counts something that was sent.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Carried)) {
        change(&mut lock(&self.carried));
    }

    fn counts(&self) -> SessionCounts {
        let Identity { session, application_name, role } = self.identity();
        let (messages, commands) = (self.messages.load(Ordering::SeqCst), self.commands.load(Ordering::SeqCst));
        let (role, carried) = (role.map(crate::fault::Role::name), lock(&self.carried).clone());
        SessionCounts { session, application_name, role, messages, commands, carried }
    }
}

/// A poisoned lock guards plain values that are whole between statements: they stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Begins a session on `stream`.
    fn accept(self: &Arc<Self>, stream: Stream) {
        self.wake();
        let mut book = self.book();
        book.accepted += 1;
        let number = book.accepted;
        let seat = Arc::new(Seat {
            number,
            pid: i32::try_from(number).map_or(i32::MAX, |number| number.saturating_add(random::FIRST_PID)),
            began: *self.life.borrow(),
            admitted: AtomicBool::new(false),
            key: OnceLock::new(),
            identity: Mutex::new(Identity { session: number, ..Identity::default() }),
            order: watch::Sender::new(None),
            cancel: Notify::new(),
            messages: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            carried: Mutex::default(),
            streams: AtomicBool::new(false),
            is_walsender: AtomicBool::new(false),
        });
        book.sessions.insert(number, seat.clone());
        self.live.send_replace(book.sessions.len());
        let task = tokio::spawn(session::serve(self.clone(), seat, stream));
        book.tasks.insert(number, task.abort_handle());
    }

    /// Starts what runs beside the sessions, with the first of them.
    fn wake(self: &Arc<Self>) {
        if self.awake.swap(true, Ordering::SeqCst) {
            return;
        }
        let start = self.clock.start();
        let cluster = self.cluster.clone();
        let mut background = vec![tokio::spawn(async move { cluster.run_wal().await }).abort_handle()];
        for (after, fault) in lock(&self.plan).alarms() {
            let shared = Arc::downgrade(self);
            let alarm = async move {
                tokio::time::sleep_until(start + after).await;
                if let Some(shared) = shared.upgrade() {
                    shared.strike(fault);
                }
            };
            background.push(tokio::spawn(alarm).abort_handle());
        }
        self.book().background.extend(background);
        if let Some(after) = self.config.ready_after {
            self.recover(after);
        }
    }

    /// Forgets a session that has ended.
    pub(crate) fn leave(&self, seat: &Seat) {
        let mut book = self.book();
        book.sessions.remove(&seat.number);
        book.tasks.remove(&seat.number);
        book.counts.push(seat.counts());
        self.live.send_replace(book.sessions.len());
        drop(book);
        self.advance_shutdown();
    }

    /// Takes one of the places that `max_wal_senders` allows.
    pub(crate) fn take_walsender_place(&self, seat: &Seat) -> bool {
        let book = self.book();
        let taken = book.sessions.values().filter(|seat| seat.is_walsender.load(Ordering::SeqCst)).count();
        let free = taken < self.cluster.max_wal_senders();
        seat.is_walsender.store(free, Ordering::SeqCst);
        free
    }

    /// CancelRequest: the session with this process id and key stops what it does.
    pub(crate) fn cancel(&self, pid: i32, key: &[u8]) {
        let book = self.book();
        let matches = |seat: &&Arc<Seat>| seat.pid == pid && seat.key.get().is_some_and(|known| known == key);
        if let Some(seat) = book.sessions.values().find(matches) {
            seat.cancel.notify_one();
        }
    }

    /// Gives an order to the sessions of `client`, or to all.
    pub(crate) fn order(&self, order: Order, client: Option<&str>) {
        for seat in self.book().sessions.values() {
            if client.is_none_or(|client| seat.identity().is(client)) {
                seat.order.send_replace(Some(order));
            }
        }
    }

    /// The actions to take at `moment` of a session.
    pub(crate) fn ask(&self, moment: Moment<'_>, seat: &Seat) -> Vec<Action> {
        if let Moment::Command(_) = moment {
            seat.commands.fetch_add(1, Ordering::SeqCst);
        }
        if self.faultless { Vec::new() } else { lock(&self.plan).ask(moment, &seat.identity()) }
    }

    /// Asks the plan something else.
    pub(crate) fn plan<T>(&self, ask: impl FnOnce(&mut Plan) -> T) -> T {
        ask(&mut lock(&self.plan))
    }

    pub(crate) fn counts_messages(&self) -> bool {
        !self.faultless && lock(&self.plan).counts_messages()
    }

    /// Adds to the transcript.
    pub(crate) fn record(&self, session: u32, said: &Said<'_>) {
        lock(&self.recorder).record(self.clock.elapsed(), session, said);
    }

    /// Where the bytes of a session go, if they are taken down.
    pub(crate) fn tap(&self, session: u32) -> Option<Tap> {
        self.capture.get().map(|capture| Tap { capture: Arc::clone(capture), session, start: self.clock.start() })
    }

    pub(crate) fn note(&self, session: u32, detail: &str) {
        let (direction, message) = (Direction::Note, "fault");
        self.record(session, &Said { direction, message, detail, bytes: 0, folds: false });
    }

    /// Fires a fault of the clock.
    fn strike(self: &Arc<Self>, fault: usize) {
        let Some((action, client)) = lock(&self.plan).strike(fault) else { return };
        self.note(0, action.name());
        self.act_at_large(&action, client.as_deref());
    }

    /// Takes an action at a point that no session comes to: connections that end are those of `client`, or all.
    fn act_at_large(self: &Arc<Self>, action: &Action, client: Option<&str>) {
        match action {
            Action::Close(_) => self.order(Order::Close, client),
            Action::Reset(_) => self.order(Order::Reset, client),
            action => self.act(action),
        }
    }

    /// Takes an action that is about the server and not about one session. Others are ignored: `Fault::validate` keeps
    /// them away.
    pub(crate) fn act(self: &Arc<Self>, action: &Action) {
        let failed = |what: &dyn std::fmt::Display| self.note(0, &format!("{}: {what}", action.name()));
        let failed_unless = |found: bool, slot: &str| {
            if !found {
                failed(&format_args!("replication slot \"{slot}\" does not exist"));
            }
        };
        match action {
            Action::Terminate(Terminate { client: Some(client) }) => self.order(Order::Terminate, Some(client)),
            Action::Shutdown(Shutdown { mode }) => self.shut_down(*mode),
            Action::Crash(Crash { restart_after }) => self.crash(restart_after.map(|after| after.0)),
            Action::Promote(_) => {
                if let Err(error) = self.cluster.promote() {
                    failed(&error);
                }
            }
            Action::RecycleWal(RecycleWal { through }) => match through.parse() {
                Ok(through) => drop(self.cluster.recycle_wal(through)),
                Err(error) => failed(&error),
            },
            Action::SwitchWal(_) => {
                self.cluster.switch_wal();
            }
            Action::DropSlot(DropSlot { slot }) => {
                let dropped = self.cluster.drop_slot_by_force(slot);
                failed_unless(dropped.is_some(), slot);
            }
            Action::StartBackup(StartBackup { exclusive }) => {
                if let Err(error) = self.start_backup(*exclusive) {
                    failed(&error);
                }
            }
            Action::StopBackup(StopBackup { exclusive }) => {
                if let Err(error) = self.stop_backup(*exclusive) {
                    failed(&error);
                }
            }
            Action::RemoveFile(RemoveFile { path }) => {
                if let Err(error) = self.cluster.shrink_file(path, None) {
                    failed(&error);
                }
            }
            Action::ShrinkFile(ShrinkFile { path, to }) => {
                if let Err(error) = self.cluster.shrink_file(path, Some(to.0)) {
                    failed(&error);
                }
            }
            action if action.client_machine().is_some() => drop(self.order_client(action, None)),
            Action::GrowFile(GrowFile { path, to }) => {
                if let Err(error) = self.cluster.grow_file(path, to.0) {
                    failed(&error);
                }
            }
            Action::ChangeFile(ChangeFile { path }) => {
                if let Err(error) = self.cluster.rewrite_file(path) {
                    failed(&error);
                }
            }
            Action::AddFile(AddFile { path, content }) => {
                if let Err(error) = self.cluster.add_file(path, content.as_bytes()) {
                    failed(&error);
                }
            }
            Action::AbortBackup(_) => {
                let held = std::mem::take(&mut self.book().held_backups);
                drop(held);
            }
            _ => {}
        }
    }

    /// `start-backup`.
    fn start_backup(&self, exclusive: bool) -> Result<(), Diagnostic> {
        if !exclusive {
            let backup = self.cluster.start_backup("fault", true)?;
            self.book().held_backups.push(backup);
        } else if self.cluster.version().has_exclusive_backup() {
            self.cluster.start_exclusive_backup("fault", true)?;
        } else {
            return Err(no_exclusive_backups());
        }
        Ok(())
    }

    /// `stop-backup`.
    fn stop_backup(&self, exclusive: bool) -> Result<(), Diagnostic> {
        if exclusive && !self.cluster.version().has_exclusive_backup() {
            return Err(no_exclusive_backups());
        }
        if exclusive {
            return self.cluster.stop_exclusive_backup().map(drop);
        }
        let oldest = {
            let mut book = self.book();
            (!book.held_backups.is_empty()).then(|| book.held_backups.remove(0))
        };
        let Some(backup) = oldest else {
            let message = "backup is not in progress";
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        };
        self.cluster.stop_backup(backup).map(drop)
    }

    /// Notes in the transcript what the server's log says.
    fn log(&self, diagnostic: &Diagnostic) {
        let (direction, message) = (Direction::Note, "log");
        self.record(0, &Said { direction, message, detail: &diagnostic.to_string(), bytes: 0, folds: false });
    }
}
