//! A way to the server that can be held up: what a client reads stops at a byte until the test has done its part.

use backstop_client::{BoxStream, Connecting, Connector, NetConnector, Place, Purpose, Resolving};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

/// How much may lie between the gate and the client.
const BUFFER: usize = 64 << 10;

/// Connects the backup through a gate, and WAL freely.
pub(crate) struct Gate {
    inner: NetConnector,
    closes_after: u64,
    arrived: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// A gate that closes when the backup connection has carried so many bytes.
    pub(crate) fn new(inner: NetConnector, closes_after: u64) -> Self {
        Self { inner, closes_after, arrived: watch::Sender::new(false), open: watch::Sender::new(false) }
    }

    /// Waits until the client stands before the gate.
    pub(crate) async fn reached(&self) {
        self.arrived.subscribe().wait_for(|arrived| *arrived).await.expect("the gate is there");
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Connector for Gate {
    fn hosts(&self) -> Vec<usize> {
        self.inner.hosts()
    }

    fn resolve(&self, host: usize) -> Resolving<'_> {
        self.inner.resolve(host)
    }

    fn connect(&self, place: &Place, purpose: Purpose) -> Connecting<'_> {
        let place = *place;
        Box::pin(async move {
            let stream = self.inner.connect(&place, purpose).await?;
            if purpose == Purpose::Wal {
                return Ok(stream);
            }
            let (ours, theirs) = tokio::io::duplex(BUFFER);
            let (mut from_client, mut to_client) = tokio::io::split(theirs);
            let (mut from_server, mut to_server) = tokio::io::split(stream);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                let _ = to_server.shutdown().await;
            });
            let (closes_after, arrived, mut open) = (self.closes_after, self.arrived.clone(), self.open.subscribe());
            tokio::spawn(async move {
                let mut before = (&mut from_server).take(closes_after);
                let passed = tokio::io::copy(&mut before, &mut to_client).await;
                if passed.is_ok_and(|passed| passed == closes_after) {
                    arrived.send_replace(true);
                    let _ = open.wait_for(|open| *open).await;
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                }
                let _ = to_client.shutdown().await;
            });
            Ok(Box::new(ours) as BoxStream)
        })
    }

    fn describe(&self, place: &Place) -> String {
        self.inner.describe(place)
    }
}
