//! One test for each way to get a scenario wrong: the message, its line and column, and what it suggests.

mod client;
mod expectation;
mod fault;
mod matrix;
mod server;
mod sweep;
mod top;
