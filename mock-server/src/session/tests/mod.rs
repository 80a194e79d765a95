//! What a session says, against recordings of real servers.

mod archiving;
mod backup;
mod commands;
mod compression;
mod generations;
mod hostile;
mod incremental;
mod incremental_by_lsn;
mod start_up;
mod streaming;
mod targets;
mod tls;
