//! Keeping an archive of WAL: `pg_receivewal`, as a library.
//!
//! [`receive_wal`] streams WAL into a directory until it is told to stop, across restarts, lost connections and promotions. A
//! segment lies there under its name once it is complete and on disk, and as `….partial` before.
//!
//! | part | what it knows |
//! |---|---|
//! | `options` | what a caller asks for |
//! | `event` | what a caller is told, in `pg_receivewal`'s words |
//! | `archive` | the files in the directory |
//! | `form` | how they are compressed |
//! | `start` | where to go on, from what lies there |
//! | `receiver` | one connection after the other |
//! | `stream` | one stream, and what it stores |
//! | `slot` | creating and dropping the slot |
//!
//! It is stricter than its model. WAL is read before it is stored, so that garbage and holes end the stream instead of lying in
//! the archive; another cluster's WAL is never mixed with what is there; a `.partial` file of an odd size is mended where the
//! model gives up; and a compressed segment that is begun anew replaces the earlier one only when it holds as much.

mod archive;
mod event;
mod form;
mod options;
mod receiver;
mod slot;
mod start;
mod stream;

pub use event::{Severity, WalEvent, WalObserver};
pub use options::{ReceiveDeadlines, ReceiveOptions};
pub use receiver::receive_wal;
pub use slot::{create_slot, drop_slot};

use crate::error::ClientError;

/// Why a stream ended before it should.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another try may help.
    Lost(ClientError),
    /// No other try can help, or none may be made.
    Fatal(ClientError),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Lost(error)
    }
}
