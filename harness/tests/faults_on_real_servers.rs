//! Scenarios with faults on PostgreSQL of this machine: the proxy in between strikes, or the server does what the fault says.

mod support;

use backstop::plan::{ServerSpec, SubjectSpec};
use backstop::verdict::Verdict;
use backstop_scenarios::postgres::Installation;
use support::one_case::outcome;

/// Runs a scenario of each release that has to pass there, with the built-in client.
fn passes(what: &str, keys: &str) {
    for major in [15, 18] {
        let Some(installation) = Installation::find_release(major, what) else { continue };
        played(&installation, major, keys, SubjectSpec::Builtin);
    }
}

fn played(installation: &Installation, major: u16, keys: &str, client: SubjectSpec) {
    let text = format!(
        "summary = \"s\"\nbecause = \"b\"\n[server]\nversion = \"{major}\"\nwal-segment-size = \"1MiB\"\n{keys}"
    );
    let bin = installation.path("postgres").parent().expect("a directory").to_owned();
    let finished = outcome(&text, client, ServerSpec::Postgres(bin));
    let finished = finished.unwrap_or_else(|reason| unreachable!("{major} skips it: {reason}"));
    assert_eq!(
        finished.verdict,
        Verdict::Pass,
        "{major}: {:#?}",
        (finished.checks, finished.said, finished.transcript)
    );
    assert!(finished.checks.iter().any(|check| check.check == "every fault fires"), "{:#?}", finished.checks);
}

/// What a failed backup has to come to.
const FAILS: &str = "[expect.backup]\nmust.outcome = \"failure\"\nmust.leaves = \"nothing-restorable\"\n\
    [expect.server]\nmust.sessions = 0\nmust.running-backups = 0\n";

#[test]
fn a_backup_is_cut_at_a_member() {
    let fault = "[[fault]]\nwhen.member = { path = \"global/pg_control\", at = \"50%\" }\ndo.close = {}\n";
    passes("a cut at a member", &format!("[[client]]\nname = \"backup\"\n{fault}{FAILS}"));
}

#[test]
fn a_backup_is_cut_in_its_manifest() {
    let fault = "[[fault]]\nwhen.manifest-data = { at = \"50%\" }\ndo.reset = {}\n";
    passes("a cut in the manifest", &format!("[[client]]\nname = \"backup\"\n{fault}{FAILS}"));
}

#[test]
fn streamed_wal_is_cut_at_a_position_that_the_scenario_counts_from_its_own_beginning() {
    // The scenario's WAL begins in segment 2, that of the server somewhere else.
    let fault = "[[fault]]\nwhen.wal-data = { lsn = \"0/200100\" }\ndo.close = {}\n";
    passes("a cut in WAL", &format!("[[client]]\nname = \"backup\"\nwal = \"stream\"\n{fault}{FAILS}"));
}

#[test]
fn a_hostile_member_in_a_real_stream_is_refused() {
    let fault = "[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\n\
                 do.extra-member = { name = \"../planted\", content = \"by the proxy\" }\n";
    passes("a hostile member", &format!("[[client]]\nname = \"backup\"\n{fault}{FAILS}"));
}

#[test]
fn a_client_that_believes_a_hostile_stream_is_found_out() {
    let Some(installation) = Installation::find("a client that believes the stream") else { return };
    let fault = "[[fault]]\nwhen.member = { path = \"global/pg_control\" }\ndo.omit-member = {}\n";
    let keys = format!("[[client]]\nname = \"backup\"\nwal = \"none\"\n{fault}");
    let text = format!("summary = \"s\"\nbecause = \"b\"\n[server]\nversion = \"15\"\n{keys}");
    let bin = installation.path("postgres").parent().expect("a directory").to_owned();
    let client = SubjectSpec::PgBasebackup(Some(installation.path("pg_basebackup")));
    let finished = outcome(&text, client, ServerSpec::Postgres(bin)).expect("it is played");
    assert_eq!(finished.verdict, Verdict::SilentCorruption, "{:#?}", (finished.checks, finished.said));
}

#[test]
fn a_server_says_an_error_that_it_never_had() {
    let fault = "[[fault]]\nwhen.archive-begin = { archive = \"base.tar\" }\n\
                 do.error = { sqlstate = \"58030\", message = \"could not read block 7\" }\n";
    let says = "[expect.backup]\nmust.outcome = \"failure\"\nmust.says = \"could not read block 7\"\n\
                must.sqlstate = \"58030\"\nmust.leaves = \"nothing-restorable\"\n";
    passes("an error", &format!("[[client]]\nname = \"backup\"\n{fault}{says}"));
}

#[test]
fn one_of_two_backups_is_terminated() {
    // Or the checkpoint of one recycles the WAL of the other.
    let clients =
        "settings = { wal_keep_size = \"64MB\" }\n[[client]]\nname = \"first\"\n[[client]]\nname = \"other\"\n";
    let fault = "[[fault]]\nwhen.member = { client = \"first\", path = \"PG_VERSION\" }\ndo.terminate = { client = \"first\" }\n";
    let first = FAILS.replace("expect.backup", "expect.first");
    let other = "[expect.other]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n";
    passes("two backups", &format!("{clients}{fault}{first}{other}"));
}

#[test]
fn a_server_crashes_and_is_backed_up_after_its_recovery() {
    let clients = "[[client]]\nname = \"backup\"\n\
                   [[client]]\nname = \"again\"\nstarts.clock = { at = \"8s\" }\n";
    let fault = "[[fault]]\nwhen.member = { client = \"backup\", path = \"PG_VERSION\" }\ndo.crash = { restart-after = \"0s\" }\n";
    let again = "[expect.again]\nmust.outcome = \"success\"\nmust.leaves = \"restorable\"\n";
    passes("a crash", &format!("{clients}{fault}{FAILS}{again}"));
}

#[test]
fn a_standby_is_promoted_under_its_backup() {
    let fault = "role = \"standby\"\n[[client]]\nname = \"backup\"\nwal = \"fetch\"\n\
                 [[fault]]\nwhen.archive-begin = { archive = \"base.tar\" }\ndo.promote = {}\n";
    let says = "[expect.backup]\nmust.outcome = \"failure\"\nmust.says = \"the standby was promoted during online backup\"\n\
                must.leaves = \"nothing-restorable\"\n";
    passes("a promotion", &format!("{fault}{says}"));
}

#[test]
fn wal_is_recycled_under_a_backup_that_fetches_it() {
    let fault = "settings = { wal_keep_size = \"0\", min_wal_size = \"2MB\", max_wal_size = \"2MB\" }\n\
                 [[client]]\nname = \"backup\"\nwal = \"fetch\"\n\
                 [[fault]]\nwhen.copy-begin = {}\ndo.recycle-wal = { through = \"000000010000000000000002\" }\n";
    let says = "[expect.backup]\nmust.outcome = \"failure\"\nmust.says = \"has already been removed\"\n\
                must.leaves = \"nothing-restorable\"\n";
    passes("recycled WAL", &format!("{fault}{says}"));
}

#[test]
fn a_killed_client_leaves_no_session_behind() {
    let fault = "[[fault]]\nwhen.member = { path = \"PG_VERSION\" }\ndo.kill-client = { signal = \"SIGKILL\" }\n";
    let expect =
        "[expect.backup]\nmust.outcome = \"killed\"\n[expect.server]\nmust.sessions = 0\nmust.running-backups = 0\n";
    let keys = format!("[[client]]\nname = \"backup\"\n{fault}{expect}");
    passes("a killed client", &keys);
    for major in [15, 18] {
        let Some(installation) = Installation::find_release(major, "a killed pg_basebackup") else { continue };
        let client = SubjectSpec::PgBasebackup(Some(installation.path("pg_basebackup")));
        played(&installation, major, &keys, client);
    }
}
