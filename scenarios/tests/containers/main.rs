//! Real servers in containers, backed up by the built-in client: sound backups, and the troubles that only a server with
//! a postmaster, an archive of WAL and other clients can have.
//!
//! Where no engine answers, or an image is missing, each test says so and is skipped; `BACKSTOP_REQUIRE_DOCKER` turns that
//! into a failure (`1` for 15, 16 and 18, or a list of releases).

mod gate;
mod more;
mod postgres;
mod restore;
mod sound;
mod trouble;
