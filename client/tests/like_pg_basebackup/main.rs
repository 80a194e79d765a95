//! The client in `pg_basebackup`'s place: what it makes, says and refuses is held against PostgreSQL's own tools, release by
//! release.

#![expect(clippy::unwrap_used, reason = "tests")]

mod chains;
mod compressed;
mod elsewhere;
mod incremental;
mod lived_in;
mod places;
mod recovery;
mod same;
mod site;
mod slots;
mod trouble;
mod words;
