//! The write-ahead log: how it is streamed, and what its pages and records look like.

pub mod log;
pub mod page;
pub mod reader;
pub mod record;
pub mod stream;
