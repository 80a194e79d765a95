//! What is compared.

mod client;
mod combine;
mod mock;
mod parallel;
mod proxy;
mod verify;
mod wal;

use super::rounds::{Metric, Target};
use super::{Bench, CompareError};

/// Comparisons that share their data.
#[derive(Clone, Copy)]
pub struct Group {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it compares.
    pub what: &'static str,
    run: fn(&mut Bench<'_>) -> Result<(), CompareError>,
}

impl Group {
    /// Makes its comparisons.
    ///
    /// # Errors
    /// Something that it needs is missing, or a program that it measures fails.
    pub fn run(&self, bench: &mut Bench<'_>) -> Result<(), CompareError> {
        (self.run)(bench)
    }
}

/// All of them.
pub const GROUPS: &[Group] = &[
    Group { name: "mock", what: "the mock against a real walsender, and against the loopback", run: mock::run },
    Group { name: "client-mock", what: "basebackup against pg_basebackup, from the mock", run: client::from_the_mock },
    Group { name: "client-server", what: "the same from real servers", run: client::from_real_servers },
    Group { name: "compression", what: "the same with compression by the client", run: client::compressed },
    Group { name: "small-files", what: "the same with 20,000 small files", run: client::small_files },
    Group {
        name: "parallel",
        what: "parallelbackup over 1, 2 and 4 connections against one stream",
        run: parallel::run,
    },
    Group { name: "proxy", what: "a real walsender through the fault proxy, and directly", run: proxy::run },
    Group { name: "receivewal", what: "receivewal against pg_receivewal, from a backlog", run: wal::run },
    Group { name: "verifybackup", what: "verifybackup against pg_verifybackup", run: verify::run },
    Group { name: "combinebackup", what: "combinebackup against pg_combinebackup", run: combine::run },
];

fn at_most(metric: Metric, at_most: f64) -> Target {
    Target { metric, at_most }
}
