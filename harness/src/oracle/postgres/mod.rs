//! What PostgreSQL itself says of a backup, where its release is installed.
//!
//! A backup of a real data directory has to start ([`start`]). One of a synthetic cluster cannot: its relations are made up. What
//! can be asked of it are `pg_verifybackup`, which reads its WAL with `pg_waldump`, and `pg_controldata` ([`tools`]).

mod installation;
mod start;
mod tools;

use std::path::Path;

use backstop_protocol::version::ServerVersion;

use super::artifact::Artifact;
use crate::record::{ClientRecord, Record};
use crate::scenario::Case;
use crate::scenario::model::{Format, Leaves, Source, WalMethod};
use crate::verdict::{Check, Level, Verdict};

pub use installation::{Inside, Installation};
pub(crate) use installation::{place_for_servers, server_user};

/// What begins the words of a check that could not be made.
pub const NOT_ASKED: &str = "not asked: ";

/// What PostgreSQL answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing against it.
    Accepted(String),
    /// Why not.
    Refused(String),
    /// It could not be asked, and why.
    NotAsked(String),
}

impl Answer {
    /// The requirement that PostgreSQL accepts a backup.
    pub fn check(&self, check: String, expected: &str) -> Check {
        let (actual, ok) = match self {
            Self::Accepted(said) => (said.clone(), true),
            Self::Refused(said) => (said.clone(), false),
            Self::NotAsked(why) => (format!("{NOT_ASKED}{why}"), true),
        };
        Check { check, expected: expected.to_owned(), actual, ok, level: Level::Law }
    }
}

/// Asks PostgreSQL about what clients of `case` left that said success, where the scenario requires it to be restorable: a copy
/// of a real data directory is started, of others the `tools` are asked, if they are wanted. Returns how bad it is.
pub fn ask(case: &Case, record: &Record, tools: bool, checks: &mut Vec<Check>) -> Verdict {
    let mut verdict = Verdict::Pass;
    for client in record.clients.iter().filter(|client| client.ending.is_success() && must_be_restorable(case, client))
    {
        let version = case.scenario.server.version;
        let postgres = record.original.postgres();
        let real = case.scenario.cluster.source != Source::Synthetic || postgres.is_some();
        let told = case.scenario.client(&client.name);
        let check = if real {
            let answer = match told.filter(|told| told.wal == WalMethod::None || told.incremental_from.is_some()) {
                Some(_) => Answer::NotAsked("the backup cannot be restored by itself".to_owned()),
                None => match postgres {
                    Some(installation) => {
                        start::start(installation, version, &Artifact::load(&client.target), pages_can_be_checked(case))
                    }
                    None => start_copy(version, &client.target),
                },
            };
            answer.check(format!("{}: PostgreSQL starts on it", client.name), "consistent recovery state reached")
        } else if tools {
            let plain = told.is_none_or(|told| told.format == Format::Plain);
            let wal = told.is_none_or(|told| told.wal != WalMethod::None);
            let answer = ask_tools(version, plain, wal, &client.target);
            answer.check(format!("{}: PostgreSQL's tools accept it", client.name), "nothing to object to")
        } else {
            continue;
        };
        if !check.ok {
            verdict = Verdict::SilentCorruption;
        }
        checks.push(check);
    }
    verdict
}

/// Whether pg_checksums can read the cluster: it refuses files among relations that are none.
fn pages_can_be_checked(case: &Case) -> bool {
    let foreign = |path: &str| ["base/", "global/", "pg_tblspc/"].iter().any(|place| path.starts_with(place));
    !case.scenario.cluster.files.iter().any(|file| foreign(&file.path))
}

fn must_be_restorable(case: &Case, client: &ClientRecord) -> bool {
    let expectation = case.scenario.expect.clients.get(&client.name);
    expectation.is_some_and(|expectation| expectation.must.leaves == Some(Leaves::Restorable))
}

/// Starts PostgreSQL on a copy of the backup in `target`.
pub fn start_copy(version: ServerVersion, target: &Path) -> Answer {
    match Installation::find(version) {
        Ok(installation) => start::start(&installation, version, &Artifact::load(target), true),
        Err(why) => Answer::NotAsked(why),
    }
}

fn ask_tools(version: ServerVersion, plain: bool, wal: bool, target: &Path) -> Answer {
    if !plain {
        return Answer::NotAsked("the tools read no archives".to_owned());
    }
    match Installation::find(version) {
        Ok(installation) => tools::ask(&installation, version, wal, target),
        Err(why) => Answer::NotAsked(why),
    }
}
