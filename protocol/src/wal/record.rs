//! WAL records.

mod checkpoint;

pub use checkpoint::{CheckPoint, WalLevel};
