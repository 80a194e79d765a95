//! The clients of a case: who starts when, and what happens to their machines meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use backstop_mock::fault::client::StartClient;
use backstop_mock::fault::{Action, Fault, Point};
use backstop_mock::{ClientOrder, Server};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::{Ended, RunError};
use crate::arena::Passage;
use crate::record::Ending;
use crate::scenario::Case;
use crate::scenario::model::Client;

/// Who says what happens to clients: when one starts, what its machine does.
pub(super) trait Director {
    /// What is to be done to clients from now on.
    fn client_orders(&self) -> UnboundedReceiver<ClientOrder>;
    /// The client called `name` has ended.
    fn client_ended(&self, name: &str);
}

impl Director for Server {
    fn client_orders(&self) -> UnboundedReceiver<ClientOrder> {
        Self::client_orders(self)
    }

    fn client_ended(&self, name: &str) {
        Self::client_ended(self, name);
    }
}

impl Director for Passage {
    fn client_orders(&self) -> UnboundedReceiver<ClientOrder> {
        Self::client_orders(self)
    }

    fn client_ended(&self, name: &str) {
        Self::client_ended(self, name);
    }
}

/// What happens to the machine of one client.
pub(super) type Orders = UnboundedReceiver<ClientOrder>;

/// How a client ended, what it said and how long it took, or why it could not be run at all.
pub(super) type Outcome = Result<(Ending, String, Duration), String>;

/// Runs every client of `case` by `run`, each from the point at which it starts, until all have ended. Belongs on a `LocalSet`.
pub(super) async fn play<F>(
    case: &Case,
    director: &impl Director,
    mut run: impl FnMut(&Client, Orders) -> F,
) -> Result<Vec<Ended>, RunError>
where
    F: Future<Output = Outcome> + 'static,
{
    let clients = &case.scenario.clients;
    let mut orders = director.client_orders();
    let waiting: Vec<String> = case.scenario.starts().iter().filter_map(started).collect();
    let mut cast = Cast { tasks: JoinSet::new(), names: BTreeMap::new(), orders: BTreeMap::new() };
    for client in clients.iter().filter(|client| !waiting.contains(&client.name)) {
        cast.start(client, &mut run);
    }
    let mut ended = BTreeMap::new();
    loop {
        // Nothing else happens now: a start that is still to come is the clock's, or comes never.
        let missing = clients.iter().filter(|client| !cast.orders.contains_key(&client.name));
        let patience = missing.map(|client| client.timeout.0 + clock(client)).max();
        let idle = cast.tasks.is_empty();
        if idle && patience.is_none() {
            break;
        }
        tokio::select! {
            biased;
            Some(order) = orders.recv() => match &order.action {
                Action::StartClient(StartClient { client }) => {
                    if let Some(client) = case.scenario.client(client) {
                        cast.start(client, &mut run);
                    }
                }
                _ => cast.pass_on(order),
            },
            Some(task) = cast.tasks.join_next_with_id(), if !idle => {
                let (id, outcome) = match task {
                    Ok((id, outcome)) => (id, outcome.map_err(RunError::NoClient)?),
                    Err(error) => (error.id(), (Ending::Panicked(error.to_string()), String::new(), Duration::ZERO)),
                };
                if let Some(name) = cast.names.remove(&id) {
                    // Nobody listens any more: whoever waits for this machine need not.
                    cast.orders.insert(name.clone(), None);
                    director.client_ended(&name);
                    ended.insert(name, outcome);
                }
            }
            () = tokio::time::sleep(patience.unwrap_or_default()), if idle => break,
        }
    }
    let never = || (Ending::NeverStarted, String::new(), Duration::ZERO);
    let ended = clients.iter().map(|client| {
        let (ending, said, elapsed) = ended.remove(&client.name).unwrap_or_else(never);
        Ended { client: client.name.clone(), ending, said, elapsed }
    });
    Ok(ended.collect())
}

/// How long the clock takes to start a client, if it does.
fn clock(client: &Client) -> Duration {
    match &client.starts {
        Some(Point::Clock { at, .. }) => at.0,
        _ => Duration::ZERO,
    }
}

/// The client that a fault starts.
fn started(fault: &Fault) -> Option<String> {
    match &fault.r#do {
        Action::StartClient(StartClient { client }) => Some(client.clone()),
        _ => None,
    }
}

/// The clients that have started.
struct Cast {
    tasks: JoinSet<Outcome>,
    names: BTreeMap<tokio::task::Id, String>,
    /// By name; none once the client has ended.
    orders: BTreeMap<String, Option<UnboundedSender<ClientOrder>>>,
}

impl Cast {
    fn start<F>(&mut self, client: &Client, run: &mut impl FnMut(&Client, Orders) -> F)
    where
        F: Future<Output = Outcome> + 'static,
    {
        let (sender, receiver) = unbounded_channel();
        if self.orders.contains_key(&client.name) {
            return;
        }
        self.orders.insert(client.name.clone(), Some(sender));
        let task = self.tasks.spawn_local(run(client, receiver));
        self.names.insert(task.id(), client.name.clone());
    }

    /// Gives the order to the client that it is about. Where there is none, or no longer, it is dropped, and so done.
    fn pass_on(&self, order: ClientOrder) {
        if let Some(Some(orders)) = self.orders.get(&order.client) {
            // It may be ending at this moment.
            let _ = orders.send(order);
        }
    }
}
