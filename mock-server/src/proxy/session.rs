//! A connection through the proxy, from its first byte to its last.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_protocol::backend::Diagnostic;
use backstop_protocol::timeline::TimelineId;
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{mpsc, watch};

use super::downward::{Downward, Outlet};
use super::greeting;
use super::shared::{Order, Seat, Shared};
use super::upward::Upward;
use crate::session::wire::Wire;
use crate::transport::Stream;

/// How long a connection that ends waits for its client to take the last bytes, and to close its side.
const LINGER: Duration = Duration::from_secs(5);

/// What keeps a message from passing.
#[derive(Debug)]
pub(super) enum Stop {
    /// ERROR in place of the rest of the answer: the command is over, the session is not.
    Error(Diagnostic),
    /// The server has been told to end the session, and says so itself.
    Hushed,
    /// The connection is over.
    End(Ending),
}

impl From<Ending> for Stop {
    fn from(ending: Ending) -> Self {
        Self::End(ending)
    }
}

/// How a connection ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client is gone.
    Gone,
    /// The server closed.
    Closed,
    /// The server's connection broke.
    Broken,
    /// A fault closes it.
    Close,
    /// A fault resets it.
    Reset,
    /// A last word of the proxy's own.
    Fatal(Diagnostic),
}

/// What the server is answering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Other,
    /// BASE_BACKUP.
    Backup {
        /// Whether the server compresses archives, so that nothing can be seen in them.
        compressed: bool,
    },
    /// START_REPLICATION.
    Wal(Option<TimelineId>),
}

/// What was asked and not yet answered, in order.
pub(super) type Queue = Arc<Mutex<VecDeque<Asked>>>;

/// Serves a client up to its end.
pub(super) async fn serve(shared: Arc<Shared>, seat: Arc<Seat>, stream: Stream) {
    let wire = Wire::new(stream, shared.tap(seat.number));
    let mut orders = seat.order.subscribe();
    let mut session = Session { down: Downward::new(shared.clone(), seat.clone(), Outlet::new(wire)), reader: None };
    let ordered = async {
        // The sender lives in the seat.
        match orders.wait_for(Option::is_some).await.ok().and_then(|order| *order) {
            Some(Order::Reset) => Ending::Reset,
            Some(Order::Close) => Ending::Close,
            None => std::future::pending().await,
        }
    };
    let ending = tokio::select! {
        biased;
        ending = ordered => ending,
        ending = session.run() => ending,
    };
    session.finish(ending).await;
    shared.leave(&seat);
}

/// A connection.
struct Session {
    down: Downward,
    /// The client's words, once start-up has begun.
    reader: Option<ReadHalf<Stream>>,
}

impl Session {
    async fn run(&mut self) -> Ending {
        match self.relay().await {
            Ok(never) => match never {},
            Err(ending) => ending,
        }
    }

    async fn relay(&mut self) -> Result<Infallible, Ending> {
        let greeted = greeting::greet(&mut self.down).await?;
        let (gone_sender, gone) = watch::channel(false);
        let (reader, input, tap) = self.down.outlet.split(gone).ok_or(Ending::Gone)?;
        let (server_reader, server_writer) = tokio::io::split(greeted.link);
        let (asks, asked) = mpsc::channel(1);
        let queue = Queue::default();
        let up = Upward {
            shared: self.down.shared.clone(),
            seat: self.down.seat.clone(),
            reader: self.reader.insert(reader),
            tap,
            writer: server_writer,
            asks,
            queue: queue.clone(),
            gone: gone_sender,
            bound_twice: greeted.bound_twice,
            takes_commands: greeted.takes_commands,
        };
        self.down.begin(queue, greeted.hides_binding);
        tokio::select! {
            ending = self.down.run(server_reader, asked) => Err(ending),
            ending = up.run(input) => Err(ending),
        }
    }

    /// The last bytes, and the end on the wire.
    async fn finish(mut self, ending: Ending) {
        let (how, waits) = match &ending {
            Ending::Gone => ("closed by the client".to_owned(), false),
            Ending::Closed => ("closed by the server".to_owned(), true),
            Ending::Broken => ("broken by the server".to_owned(), false),
            Ending::Close => ("closed".to_owned(), false),
            Ending::Reset => ("reset".to_owned(), false),
            Ending::Fatal(error) => (error.message.clone(), true),
        };
        let resets = matches!(ending, Ending::Reset | Ending::Broken);
        if let Ending::Fatal(error) = ending {
            self.down.last_words(error);
        }
        self.down.shared.note_as(self.down.seat.number, "connection", &how);
        // What cannot be delivered in time is lost, as it is when a process ends.
        let flushed = tokio::time::timeout(LINGER, self.down.outlet.flush()).await;
        if resets {
            self.down.outlet.reset(self.reader);
            return;
        }
        let closing = async {
            self.down.outlet.shut_down().await;
            // Bytes that nobody reads would turn the end into a reset, which could overtake what was said.
            if let Some(mut reader) = self.reader.take().filter(|_| waits && matches!(flushed, Ok(Ok(())))) {
                let mut nowhere = [0; 4096];
                while matches!(reader.read(&mut nowhere).await, Ok(1..)) {}
            }
        };
        let _ = tokio::time::timeout(LINGER, closing).await;
    }
}
