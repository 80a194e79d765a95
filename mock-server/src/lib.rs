//! A walsender without PostgreSQL: what it has, what it says, and the faults that can befall it.
//!
//! A [`Server`] is made from a [`Config`](config::Config). It answers on TCP, on a Unix socket or in memory, as the configured
//! release does, message by message; its [faults](fault) strike at events of the protocol. Afterwards it tells what happened:
//! [`Server::transcript`], [`Server::state`], [`Server::backups`], [`Server::fired`].
//!
//! | what | see |
//! |---|---|
//! | what a server has: files, WAL, slots, timelines | [`cluster`] |
//! | what a walsender says | `session` |
//! | who may come in | [`access`] |
//! | faults | [`fault`] |
//! | the record of the wire, told and byte by byte | [`transcript`], [`capture`] |

pub mod access;
pub mod capture;
mod clock;
pub mod cluster;
pub mod config;
pub mod fault;
mod phase;
pub mod proxy;
mod random;
pub mod server;
mod session;
#[cfg(test)]
mod testing;
mod tls;
pub mod transcript;
pub mod transport;
pub mod units;

pub use phase::Phase;
pub use server::{BackupOutcome, BackupRecord, ClientOrder, Listener, Server, ServerState, SessionCounts};
pub use transport::MemoryStream;
