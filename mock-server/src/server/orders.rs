//! What faults do to the machines of clients, which whoever started the clients has to do.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{Server, Shared};
use crate::fault::{Action, Identity, Moment};

/// Something that is to happen to the machine of a client. The session at the point waits until this is dropped.
#[derive(Debug)]
pub struct ClientOrder {
    /// Whose machine: the client that the fault names, or the `application_name` of the connection that came to its point.
    pub client: String,
    /// What: [`Action::client_machine`] is about it.
    pub action: Action,
    _done: oneshot::Sender<()>,
}

/// Where orders go: to whoever has the clients' machines, if anybody has.
#[derive(Debug, Default)]
pub(crate) struct ClientOrders(Mutex<Option<mpsc::UnboundedSender<ClientOrder>>>);

impl ClientOrders {
    /// All orders from now on. Only the last who asks is told.
    pub(crate) fn listen(&self) -> mpsc::UnboundedReceiver<ClientOrder> {
        let (orders, receiver) = mpsc::unbounded_channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
        receiver
    }

    /// Asks for `action` on the machine of the client that it names, or of `at`. The answer ends when it is done.
    ///
    /// # Errors
    /// That nobody here can do it.
    pub(crate) fn order(&self, action: &Action, at: Option<&Identity>) -> Result<oneshot::Receiver<()>, String> {
        let named = action.client_machine().flatten();
        let client = named.or_else(|| at?.application_name.as_deref()).map(str::to_owned);
        let (done, receiver) = oneshot::channel();
        let sent = match (&*self.0.lock().unwrap_or_else(PoisonError::into_inner), client) {
            (Some(orders), Some(client)) => {
                orders.send(ClientOrder { client, action: action.clone(), _done: done }).is_ok()
            }
            _ => false,
        };
        if sent { Ok(receiver) } else { Err(format!("{}: nobody here has that client's machine", action.name())) }
    }
}

impl Server {
    /// What faults want to be done to the machines of clients, from now on. Only the last who asks is told.
    pub fn client_orders(&self) -> mpsc::UnboundedReceiver<ClientOrder> {
        self.shared.client_orders.listen()
    }

    /// The client called `name` has ended: faults at `client-end` strike.
    pub fn client_ended(&self, name: &str) {
        let who = Identity { session: 0, application_name: Some(name.to_owned()), role: None };
        for action in self.shared.plan(|plan| plan.ask(Moment::ClientEnd, &who)) {
            self.shared.note(0, action.name());
            self.shared.act_at_large(&action, None);
        }
    }
}

impl Shared {
    /// Asks for `action` on the machine of the client that it names, or of `at`. The answer ends when it is done; there is none
    /// if nobody here can do it.
    pub(crate) fn order_client(&self, action: &Action, at: Option<&Identity>) -> Option<oneshot::Receiver<()>> {
        self.client_orders.order(action, at).map_err(|problem| self.note(0, &problem)).ok()
    }
}
