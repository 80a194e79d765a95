//! The client's side of a connection: one stream during start-up, and then the half that is written.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::capture::Tap;
use crate::proxy::session::Ending;
use crate::session::wire::Wire;
use crate::transcript::Direction;
use crate::transport::Stream;

/// Where the client's bytes go.
#[derive(Debug)]
pub(in crate::proxy) struct Outlet {
    client: Client,
    /// What waits to be written.
    pub(in crate::proxy) output: BytesMut,
}

#[derive(Debug)]
enum Client {
    /// During start-up.
    Whole(Box<Wire>),
    /// Afterwards.
    Half {
        writer: WriteHalf<Stream>,
        tap: Option<Arc<Tap>>,
        /// Whether the client has closed.
        gone: watch::Receiver<bool>,
    },
    Closed,
}

impl Outlet {
    pub(in crate::proxy) fn new(wire: Wire) -> Self {
        Self { client: Client::Whole(Box::new(wire)), output: BytesMut::new() }
    }

    fn whole(&mut self) -> Option<&mut Wire> {
        match &mut self.client {
            Client::Whole(wire) => Some(wire),
            _ => None,
        }
    }

    /// Ends the start-up: what the client says goes another way from now on. Nothing if it is over already.
    pub(in crate::proxy) fn split(
        &mut self,
        gone: watch::Receiver<bool>,
    ) -> Option<(ReadHalf<Stream>, BytesMut, Option<Arc<Tap>>)> {
        let Client::Whole(wire) = std::mem::replace(&mut self.client, Client::Closed) else { return None };
        let (stream, input, tap) = wire.into_parts()?;
        let (reader, writer) = tokio::io::split(stream);
        let tap = tap.map(Arc::new);
        self.client = Client::Half { writer, tap: tap.clone(), gone };
        Some((reader, input, tap))
    }

    /// Writes what waits.
    pub(in crate::proxy) async fn flush(&mut self) -> Result<(), Ending> {
        let output = self.output.split();
        self.write(&output).await
    }

    /// Writes `bytes`, behind what was flushed.
    pub(in crate::proxy) async fn write(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        match &mut self.client {
            Client::Whole(wire) => {
                wire.output.extend_from_slice(bytes);
                if wire.flush().await { Ok(()) } else { Err(Ending::Gone) }
            }
            Client::Half { .. } if bytes.is_empty() => Ok(()),
            Client::Half { writer, tap, .. } => {
                if let Some(tap) = tap {
                    tap.bytes(Direction::Sent, bytes);
                }
                writer.write_all(bytes).await.map_err(|_| Ending::Gone)?;
                writer.flush().await.map_err(|_| Ending::Gone)
            }
            Client::Closed => Err(Ending::Gone),
        }
    }

    /// Resolves when the client has closed.
    pub(in crate::proxy) async fn closed(&mut self) {
        match &mut self.client {
            Client::Whole(wire) => wire.closed().await,
            // An error: nobody reads any more, which ends the connection in another way.
            Client::Half { gone, .. } => {
                if gone.wait_for(|gone| *gone).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Client::Closed => {}
        }
    }

    /// An orderly end of what is written.
    pub(in crate::proxy) async fn shut_down(&mut self) {
        match &mut self.client {
            Client::Whole(wire) => wire.shut_down().await,
            // The client may be gone already, which is an end as well.
            Client::Half { writer, .. } => drop(writer.shutdown().await),
            Client::Closed => {}
        }
    }

    /// A disorderly end.
    pub(in crate::proxy) fn reset(self, reader: Option<ReadHalf<Stream>>) {
        match (self.client, reader) {
            (Client::Whole(mut wire), _) => wire.reset(),
            (Client::Half { writer, .. }, Some(reader)) => reader.unsplit(writer).reset(),
            _ => {}
        }
    }

    /// During start-up: the next byte, which is not consumed.
    pub(in crate::proxy) async fn peek(&mut self) -> Option<u8> {
        self.whole()?.peek().await
    }

    /// During start-up: the next packet.
    pub(in crate::proxy) async fn read_startup(&mut self) -> Option<Bytes> {
        self.whole()?.read_startup().await
    }

    /// During start-up: goes on under TLS. See [`Wire::encrypt`].
    pub(in crate::proxy) async fn encrypt(&mut self, acceptor: &TlsAcceptor, rewind: bool) -> bool {
        match self.whole() {
            Some(wire) => wire.encrypt(acceptor, rewind).await,
            None => false,
        }
    }

    /// During start-up: whether TLS is spoken.
    pub(in crate::proxy) fn is_encrypted(&mut self) -> bool {
        self.whole().is_some_and(|wire| wire.is_encrypted())
    }

    /// During start-up: what the client chose by ALPN.
    pub(in crate::proxy) fn alpn(&mut self) -> Option<&[u8]> {
        self.whole()?.alpn()
    }

    /// During start-up: whether the client has an address, which it has not on a Unix socket.
    pub(in crate::proxy) fn has_address(&mut self) -> bool {
        self.whole().is_some_and(|wire| wire.peer.is_some())
    }
}
