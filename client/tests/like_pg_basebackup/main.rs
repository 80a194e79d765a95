//! The client in `pg_basebackup`'s place: what it makes, says and refuses is held against PostgreSQL's own tools, release by
//! release.

#![expect(clippy::unwrap_used, reason = "tests")]

mod compressed;
mod elsewhere;
mod incremental;
mod same;
mod site;
mod words;
