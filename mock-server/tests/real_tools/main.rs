//! Programs of PostgreSQL 15, 16 and 18, unmodified, take the mock for a server of every release that they know.
//!
//! A release that is not installed is reported as skipped.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod basebackup;
mod receivewal;
mod served;

use std::str::FromStr;

use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::Installation;

/// The releases whose programs are tried.
const RELEASES: [u16; 3] = [15, 16, 18];

/// Those that are installed.
fn installations(what: &str) -> Vec<Installation> {
    RELEASES.into_iter().filter_map(|major| Installation::find_release(major, what)).collect()
}

/// The release of the server that a tool belongs to.
fn own(tool: &Installation) -> ServerVersion {
    ServerVersion::from_str(&tool.major().to_string()).unwrap()
}
