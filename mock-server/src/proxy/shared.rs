//! What the sessions of a proxy share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use backstop_protocol::version::ServerVersion;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::session;
use super::tapped::TappedLink;
use super::upstream::{Link, Upstream};
use crate::capture::{SharedCapture, Tap};
use crate::clock::Clock;
use crate::fault::server::Terminate;
use crate::fault::{Action, Identity, Moment, Plan};
use crate::server::ClientOrders;
use crate::tls::Tls;
use crate::transcript::{Direction, Recorder, Said};
use crate::transport::Stream;

/// What the clock does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Close,
    Reset,
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) tls: Option<Tls>,
    pub(super) clock: Clock,
    pub(super) plan: Mutex<Plan>,
    pub(super) recorder: Mutex<Recorder>,
    pub(super) capture: OnceLock<SharedCapture>,
    /// The same on the server's side.
    pub(super) upstream_capture: OnceLock<SharedCapture>,
    /// Who has the clients' machines, if whoever runs the proxy has.
    pub(super) client_orders: Option<ClientOrders>,
    pub(super) book: Mutex<Book>,
    pub(super) live: watch::Sender<usize>,
    /// Whether the clock's faults wait.
    awake: AtomicBool,
}

/// What the proxy remembers.
#[derive(Debug, Default)]
pub(super) struct Book {
    accepted: u32,
    sessions: BTreeMap<u32, Arc<Seat>>,
    pub(super) tasks: BTreeMap<u32, AbortHandle>,
    pub(super) background: Vec<AbortHandle>,
}

/// A session as others see it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u32,
    identity: Mutex<Identity>,
    /// BackendKeyData: whom to cancel, or to terminate.
    pub(super) key: OnceLock<(i32, Bytes)>,
    /// What the server says it is.
    pub(super) version: OnceLock<ServerVersion>,
    pub(super) order: watch::Sender<Option<Order>>,
    /// A cancel request for the session has passed.
    pub(super) cancel: Notify,
    /// Messages of the server since start-up.
    pub(super) messages: AtomicU64,
}

impl Seat {
    pub(super) fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    pub(super) fn identify(&self, change: impl FnOnce(&mut Identity)) {
        change(&mut lock(&self.identity));
    }
}

/// A poisoned lock guards plain values that are whole between statements: they stay usable.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(upstream: Arc<dyn Upstream>, tls: Option<Tls>, plan: Plan, epoch: i64) -> Self {
        Self {
            upstream,
            tls,
            clock: Clock::new(epoch),
            plan: Mutex::new(plan),
            recorder: Mutex::default(),
            capture: OnceLock::new(),
            upstream_capture: OnceLock::new(),
            client_orders: None,
            book: Mutex::default(),
            live: watch::Sender::new(0),
            awake: AtomicBool::new(false),
        }
    }

    /// Begins a session on `stream`.
    pub(super) fn accept(self: &Arc<Self>, stream: Stream) {
        self.wake();
        let mut book = lock(&self.book);
        book.accepted += 1;
        let number = book.accepted;
        let seat = Arc::new(Seat {
            number,
            identity: Mutex::new(Identity { session: number, ..Identity::default() }),
            key: OnceLock::new(),
            version: OnceLock::new(),
            order: watch::Sender::new(None),
            cancel: Notify::new(),
            messages: AtomicU64::new(0),
        });
        book.sessions.insert(number, seat.clone());
        self.live.send_replace(book.sessions.len());
        let task = tokio::spawn(session::serve(self.clone(), seat, stream));
        book.tasks.insert(number, task.abort_handle());
    }

    /// Forgets a session that has ended.
    pub(super) fn leave(&self, seat: &Seat) {
        let mut book = lock(&self.book);
        book.sessions.remove(&seat.number);
        book.tasks.remove(&seat.number);
        self.live.send_replace(book.sessions.len());
    }

    /// Sets the alarms of the clock's faults, with the first connection.
    fn wake(self: &Arc<Self>) {
        if self.awake.swap(true, Ordering::SeqCst) {
            return;
        }
        let start = self.clock.start();
        let mut background = Vec::new();
        for (after, fault) in lock(&self.plan).alarms() {
            let shared = Arc::downgrade(self);
            let alarm = async move {
                tokio::time::sleep_until(start + after).await;
                if let Some(shared) = shared.upgrade() {
                    shared.strike(fault).await;
                }
            };
            background.push(tokio::spawn(alarm).abort_handle());
        }
        lock(&self.book).background.extend(background);
    }

    /// Fires a fault of the clock: connections that end are those of its client, or all.
    async fn strike(&self, fault: usize) {
        let Some((action, client)) = lock(&self.plan).strike(fault) else { return };
        self.note(0, action.name());
        self.at_large(&action, client.as_deref()).await;
    }

    /// Takes an action at a point that no session comes to: connections that end are those of `client`, or all.
    pub(super) async fn at_large(&self, action: &Action, client: Option<&str>) {
        let order = match action {
            Action::Close(_) => Order::Close,
            Action::Reset(_) => Order::Reset,
            action => {
                self.act(action, None).await;
                return;
            }
        };
        for seat in lock(&self.book).sessions.values() {
            if client.is_none_or(|client| seat.identity().is(client)) {
                seat.order.send_replace(Some(order));
            }
        }
    }

    /// Has the server do something, and says whether it did. Why it did not is in the transcript.
    pub(super) async fn act(&self, action: &Action, at: Option<&Seat>) -> bool {
        if let Some(orders) = self.client_orders.as_ref().filter(|_| action.client_machine().is_some()) {
            let ordered = orders.order(action, at.map(Seat::identity).as_ref());
            if let Err(problem) = &ordered {
                self.note(0, problem);
            }
            // An error: the order was dropped, which is how it ends.
            return match ordered {
                Ok(done) => done.await.is_err(),
                Err(_) => false,
            };
        }
        let backends = match action {
            Action::Terminate(Terminate { client: Some(client) }) => self.backends(|seat| seat.identity().is(client)),
            Action::Terminate(Terminate { client: None }) => {
                self.backends(|seat| at.is_some_and(|at| at.number == seat.number))
            }
            _ => Vec::new(),
        };
        let done = self.upstream.act(action, &backends).await;
        if let Err(problem) = &done {
            self.note(at.map_or(0, |seat| seat.number), &format!("{}: {problem}", action.name()));
        }
        done.is_ok()
    }

    /// The process ids of the sessions that `wanted` accepts.
    fn backends(&self, wanted: impl Fn(&Seat) -> bool) -> Vec<i32> {
        let book = lock(&self.book);
        let seats = book.sessions.values().filter(|seat| wanted(seat));
        seats.filter_map(|seat| seat.key.get().map(|(pid, _)| *pid)).collect()
    }

    /// A cancel request with this key has passed: the session that it is about pauses no longer.
    pub(super) fn canceled(&self, pid: i32, key: &[u8]) {
        let book = lock(&self.book);
        let matches = |seat: &&Arc<Seat>| seat.key.get().is_some_and(|(its, known)| *its == pid && known == key);
        if let Some(seat) = book.sessions.values().find(matches) {
            seat.cancel.notify_one();
        }
    }

    /// The actions to take at `moment` of a session.
    pub(super) fn ask(&self, moment: Moment<'_>, seat: &Seat) -> Vec<Action> {
        let mut plan = lock(&self.plan);
        if plan.is_spent() { Vec::new() } else { plan.ask(moment, &seat.identity()) }
    }

    /// Asks the plan something else.
    pub(super) fn plan<T>(&self, ask: impl FnOnce(&mut Plan) -> T) -> T {
        ask(&mut lock(&self.plan))
    }

    /// Adds to the transcript.
    pub(super) fn record(&self, session: u32, said: &Said<'_>) {
        lock(&self.recorder).record(self.clock.elapsed(), session, said);
    }

    pub(super) fn note(&self, session: u32, detail: &str) {
        self.note_as(session, "fault", detail);
    }

    /// Notes something that nobody said.
    pub(super) fn note_as(&self, session: u32, message: &'static str, detail: &str) {
        self.record(session, &Said { direction: Direction::Note, message, detail, bytes: 0, folds: false });
    }

    /// Where the bytes of a session go, if they are taken down.
    pub(super) fn tap(&self, session: u32) -> Option<Tap> {
        self.tap_into(&self.capture, session)
    }

    /// The connection to the server, taken down if that is wanted.
    pub(super) fn tapped(&self, session: u32, link: Box<dyn Link>) -> Box<dyn Link> {
        match self.tap_into(&self.upstream_capture, session) {
            Some(tap) => Box::new(TappedLink::new(link, tap)),
            None => link,
        }
    }

    fn tap_into(&self, capture: &OnceLock<SharedCapture>, session: u32) -> Option<Tap> {
        capture.get().map(|capture| Tap { capture: Arc::clone(capture), session, start: self.clock.start() })
    }
}
