//! What travels on a walsender connection and what lies in a base backup.
//!
//! This crate holds the facts of PostgreSQL that a backup client and a server share: messages, commands, archives, labels,
//! manifests, WAL and `pg_control`. It does no I/O, reads no clock, starts no task and contains no `unsafe` code: bytes come
//! in, values go out, and the other way round. Where releases differ, [`version`] says how.
//!
//! | to read or write | see |
//! |---|---|
//! | WAL positions, timelines, segment names | [`lsn`], [`timeline`], [`wal_file`], [`wal_archive`] |
//! | messages between client and server | [`frame`], [`frontend`], [`backend`] |
//! | replication commands and their options | [`command`], [`base_backup::options`] |
//! | functions and types of SQL, and its messages | [`catalog`], [`extended`] |
//! | what BASE_BACKUP sends | [`base_backup`] |
//! | WAL: streaming messages, pages, records | [`wal`] |
//! | data pages and the control file | [`page`], [`control`] |
//!
//! Every decoder bounds what it allocates by what it was given, refuses what PostgreSQL refuses, and never panics on input.

pub mod backend;
pub mod base_backup;
pub mod catalog;
pub mod command;
pub mod control;
mod decode;
pub mod diagnostic;
pub mod extended;
pub mod frame;
pub mod frontend;
pub mod lsn;
pub mod page;
mod summary;
pub mod timeline;
pub mod version;
pub mod wal;
pub mod wal_archive;
pub mod wal_file;
