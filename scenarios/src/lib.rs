//! The scenario files against real PostgreSQL in containers.
//!
//! The files lie beside this package. Its tests start an official PostgreSQL image through testcontainers and take the
//! backups that the sound scenarios describe. Where no container engine answers, or no image is there, they say so.
//!
//! [`postgres`] is what the tests of every package use to run a real PostgreSQL of this machine.

pub mod postgres;

use std::path::PathBuf;

/// The directory of the scenario files.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
