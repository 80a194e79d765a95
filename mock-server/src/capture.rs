//! Taking down every byte that passes: what a transcript only tells of.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::transcript::Direction;

/// Takes down the bytes of connections, as they are before encryption and after decryption. Passwords are among them.
pub trait Capture: Send + fmt::Debug {
    /// These bytes were sent or received, so long after the server's first connection.
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]);

    /// The connection is over: no more bytes come.
    fn end(&mut self, session: u32);
}

/// A capture that sessions share.
pub(crate) type SharedCapture = Arc<Mutex<dyn Capture>>;

/// One connection's part of a capture.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) capture: SharedCapture,
    pub(crate) session: u32,
    /// The moment of the server's first connection.
    pub(crate) start: Instant,
}

impl Tap {
    /// Bytes passed.
    pub(crate) fn bytes(&self, direction: Direction, bytes: &[u8]) {
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        capture.bytes(self.start.elapsed(), self.session, direction, bytes);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        capture.end(self.session);
    }
}
