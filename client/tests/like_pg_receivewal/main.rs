//! The client in `pg_receivewal`'s place: what it makes, says and refuses is held against PostgreSQL's own tool, release by release.

#![expect(clippy::unwrap_used, reason = "tests")]

mod archives;
mod site;
mod slots;
