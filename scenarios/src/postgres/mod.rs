//! Real PostgreSQL of this machine, for the tests of every package: client tools, and servers made by `initdb` in a
//! directory of their own, reached over a Unix socket, gone with the value.
//!
//! A release's programs are found in `BACKSTOP_PG<major>_BINDIR`, else where Debian installs them, else where
//! `scenarios/install-postgres` does. Servers refuse to run as root, so that a test that runs as root runs them as `postgres` or
//! `nobody`. A test that finds no programs says so and ends; it fails where `BACKSTOP_REQUIRE_PG` lists the release, as in
//! `15 18`.

mod installation;
mod server;

pub use installation::{Installation, reachable, succeed};
pub use server::Postgres;

/// A server listens on its socket alone, so that one number serves them all.
pub const PORT: u16 = 5432;

/// The superuser of every cluster.
pub const USER: &str = "postgres";

/// The release that tests are written for where nothing depends on the release.
pub const RELEASE: u16 = 15;
