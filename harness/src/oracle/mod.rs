//! Judging what a run left behind.
//!
//! A client's exit status is evidence, not a verdict. Each oracle is a pure function of the evidence and says what it
//! found wrong; [`judge`] holds that against what the client said of itself and what the scenario expects.
//!
//! | oracle | refuses |
//! |---|---|
//! | [`complete`] | archives in bad form; no `PG_VERSION`, label, control file or tablespace; ones of another backup |
//! | [`ground_truth`] | any stored byte that is not the server's, missing and unknown files, [changed blocks](incremental) left out |
//! | [`profile`] | a `backup_profile` that is not the server's; files left out that are not in the backup before as they are now |
//! | [`by_client`] | a `backup_profile` of a client's own that does not list what is there |
//! | [`manifest`] | members that differ from the manifest, in either direction |
//! | [`wal`] | holes, foreign bytes or garbage between start and end position |
//! | [`server_side`] | success for a backup that the server did not end with CommandComplete |
//! | [`confirmed`] | flush positions beyond the WAL that was sent; a slot that is ahead of the WAL in the backup |
//! | [`archive`] | in an archive of WAL: foreign bytes, holes, missing history files, more confirmed than it holds |
//! | [`modes`] | after a success: files and directories with permissions that no server gives them |
//! | [`leftovers`] | after a failure: something that passes for a backup |
//! | [`outside`] | changes outside the target |
//! | [`postgres`] | what PostgreSQL does not start on, or its own tools refuse |
//!
//! They ask the server that was copied as an [`Original`], which may be a server that is still there, or
//! what was [written down](crate::record::saved) of one. [`alone`] judges a backup of which nothing else is known.

pub mod alone;
pub mod archive;
pub mod artifact;
pub mod by_client;
mod bytes;
pub mod complete;
pub mod confirmed;
pub mod expectation;
pub mod ground_truth;
pub mod incremental;
pub mod leftovers;
pub mod manifest;
pub mod modes;
pub mod original;
pub mod outside;
pub mod postgres;
pub mod profile;
pub mod server_side;
mod unpack;
pub mod wal;

use backstop_mock::BackupRecord;
use backstop_protocol::base_backup::options::ManifestOption;

use crate::record::{ClientRecord, Ending, Record};
use crate::scenario::Case;
use crate::scenario::model::{Client, Outcome, Tool, WalMethod};
use crate::subject::signals::signal_number;
use crate::verdict::{Check, Level, Verdict};
use archive::Archive;
use artifact::Artifact;
use original::Original;

/// What is known of one client's backup.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The client and how it ended.
    pub client: &'a ClientRecord,
    /// What it copied.
    pub original: &'a dyn Original,
    /// The client's last backup, as the server saw it.
    pub backup: Option<&'a BackupRecord>,
    /// The SQLSTATEs of the errors that the server sent it.
    pub sqlstates: Vec<String>,
    /// What it left.
    pub artifact: Artifact,
}

/// What each oracle has against taking the artifact for a whole backup: the oracle's claim, and what contradicts it.
pub type Refusals = Vec<(&'static str, Vec<String>)>;

/// The verdict on a case, and every check behind it.
pub fn judge(case: &Case, record: &Record) -> (Verdict, Vec<Check>) {
    let mut verdict = Verdict::Pass;
    let mut checks = Vec::new();
    for client in &record.clients {
        let artifact = Artifact::load(&client.target);
        let told = by_client::told(case, record, &client.name, &artifact);
        let evidence = Evidence {
            client,
            original: &*record.original,
            backup: told.as_ref().or_else(|| record.backup_of(&client.name)),
            sqlstates: record.sqlstates(&client.name),
            artifact,
        };
        verdict = verdict.max(judge_client(case, record, &evidence, &mut checks));
    }
    expectation::server(case, record, &mut checks);
    if !record.faults.is_empty() {
        let never: Vec<_> =
            record.faults.iter().filter(|fault| !fault.fired).map(|fault| fault.description.as_str()).collect();
        let found = if never.is_empty() { "all of them".to_owned() } else { format!("not: {}", never.join("; ")) };
        checks.push(law("every fault fires".to_owned(), "all of them", found, never.is_empty()));
    }
    for check in checks.iter().filter(|check| !check.ok) {
        verdict = verdict.max(if check.level == Level::Should { Verdict::Weak } else { Verdict::Fail });
    }
    (verdict, checks)
}

/// Checks one client and says how bad its ending is by itself; failed checks are weighed by the caller.
fn judge_client(case: &Case, record: &Record, evidence: &Evidence<'_>, checks: &mut Vec<Check>) -> Verdict {
    let client = evidence.client;
    let scenario = case.scenario.client(&client.name);
    let receives = scenario.filter(|client| client.tool == Tool::Receivewal);
    let archive = receives.and_then(|scenario| Some(Archive::load(evidence.original.cluster()?, scenario, client)));
    let refused = match (&archive, receives) {
        (Some(archive), Some(receives)) => of_archive(archive, receives, record, client.ending.is_success()),
        (None, Some(_)) => {
            // None holds what it would be compared with.
            let found = "the record of a run, which holds no WAL".to_owned();
            let check = law(format!("{}: the archive can be compared", client.name), "the server", found, false);
            checks.push(Check { level: Level::Should, ..check });
            Vec::new()
        }
        // Nothing was to be stored.
        _ if scenario.is_some_and(|client| client.tool == Tool::Commands) => Vec::new(),
        _ => refusals(case, record, evidence),
    };
    expectation::client(case, evidence, &refused, archive.as_ref(), checks);
    let mut verdict = match &client.ending {
        Ending::Signal(_) if was_killed(case, client) => Verdict::Pass,
        Ending::Signal(_) | Ending::Panicked(_) => Verdict::Crash,
        Ending::TimedOut if !may_time_out(case, &client.name) => Verdict::Hang,
        _ => Verdict::Pass,
    };
    if client.ending.is_success() || archive.is_some() {
        for (claim, problems) in &refused {
            let found = if problems.is_empty() { "nothing to object to".to_owned() } else { problems.join("; ") };
            let check = match &archive {
                Some(_) => format!("{}: {claim}", client.name),
                None => format!("{}: success means that {claim}", client.name),
            };
            checks.push(law(check, "nothing to object to", found, problems.is_empty()));
        }
        if client.ending.is_success() && archive.is_none() {
            let wrong = modes::problems(&evidence.artifact);
            let found = if wrong.is_empty() { "nothing to object to".to_owned() } else { wrong.join("; ") };
            let check = format!("{}: files and directories have a server's permissions", client.name);
            checks.push(law(check, "nothing to object to", found, wrong.is_empty()));
        }
        if client.ending.is_success() && refused.iter().any(|(_, problems)| !problems.is_empty()) {
            verdict = verdict.max(Verdict::SilentCorruption);
        }
    } else if !belongs_to_another(record, client) {
        let passes = leftovers::passes_for_a_backup(&evidence.artifact, manifest_expected(case, evidence));
        let found = if passes { "something that does" } else { "nothing that does" };
        let check = format!("{}: failure leaves nothing that passes for a backup", client.name);
        checks.push(law(check, "nothing that does", found.to_owned(), !passes));
    }
    if record.has_wal_stream(&client.name) {
        let beyond = confirmed::beyond_what_was_sent(record, &client.name);
        let found = if beyond.is_empty() { "none".to_owned() } else { beyond.join("; ") };
        let check = format!("{}: no WAL is confirmed that was not sent", client.name);
        checks.push(law(check, "none", found, beyond.is_empty()));
    }
    let untouched = client.changes_outside.is_empty();
    let found = if untouched { "nothing".to_owned() } else { client.changes_outside.join("; ") };
    checks.push(law(format!("{}: nothing changes outside the target", client.name), "nothing", found, untouched));
    if untouched { verdict } else { verdict.max(Verdict::Escape) }
}

fn law(check: String, expected: &str, actual: String, ok: bool) -> Check {
    Check { check, expected: expected.to_owned(), actual, ok, level: Level::Law }
}

/// Whether another client was told to put its backup into the same place, and succeeded: what lies there is its backup.
fn belongs_to_another(record: &Record, client: &ClientRecord) -> bool {
    let others = record.clients.iter().filter(|other| other.name != client.name && other.target == client.target);
    others.into_iter().any(|other| other.ending.is_success())
}

/// Whether the client died by a signal that a fault sent it.
fn was_killed(case: &Case, client: &ClientRecord) -> bool {
    let signals = case.scenario.signals_to(&client.name);
    signals.into_iter().any(|signal| client.ending == Ending::Signal(signal_number(signal)))
}

/// Whether the scenario says that this client reaches its deadline.
fn may_time_out(case: &Case, client: &str) -> bool {
    let expectation = case.scenario.expect.clients.get(client);
    expectation.is_some_and(|expectation| expectation.must.outcome == Some(Outcome::Timeout))
}

/// Whether this backup comes with a manifest: as the server was asked, or, before it was asked, as the release does. Nobody makes one
/// of what is copied with SQL.
fn manifest_expected(case: &Case, evidence: &Evidence<'_>) -> bool {
    let client = case.scenario.client(&evidence.client.name);
    match evidence.backup {
        _ if client.is_some_and(|client| client.tool == Tool::Parallel) => false,
        Some(backup) => backup.options.manifest != ManifestOption::No,
        None => case.scenario.server.version.has_manifest(),
    }
}

/// What an archive must be, whatever became of its client. The end of what was asked for must be there after a success.
fn of_archive(archive: &Archive, client: &Client, record: &Record, success: bool) -> Refusals {
    let mut refusals = vec![
        ("the archive holds the server's WAL without a hole", archive.problems.clone()),
        ("nothing is confirmed that is not there", archive.confirmed_too_much(client, record)),
    ];
    if success {
        refusals.push(("the archive holds what was asked for", archive.lacks(client)));
    }
    refusals
}

fn refusals(case: &Case, record: &Record, evidence: &Evidence<'_>) -> Refusals {
    let client = case.scenario.client(&evidence.client.name);
    let mut refusals = vec![
        ("it is complete", complete::problems(evidence)),
        ("every byte is the server's", ground_truth::problems(evidence)),
        ("members and manifest agree", manifest::problems(evidence)),
        ("what it left out is in the backup before", profile::problems(case, record, evidence)),
        ("the server ended the backup", server_side::problems(evidence)),
    ];
    if client.is_some_and(by_client::is_concerned) {
        refusals.push(("its profile lists what it holds", by_client::problems(evidence)));
    }
    if client.is_none_or(|client| client.wal != WalMethod::None) {
        refusals.push(("WAL covers it", wal::problems(evidence)));
    }
    refusals.push(("its slot keeps what follows", confirmed::problems(case, record, evidence)));
    refusals
}
