//! A client that is wrong is caught: the harness believes what was left behind, not what the client says.

mod support;

use backstop::verdict::Verdict;
use support::one_case::{hasty_client, verdict};

const SOUND: &str = r#"
summary = "A quiet server"
because = "Even a hasty client gets this right"
[server]
version = "15"
[[client]]
name = "hasty"
wal = "fetch"
"#;

const FAILS_AFTER_COPY_DONE: &str = r#"
summary = "The server fails after CopyDone"
because = "A client that does not read on takes half a backup for a whole one"
[server]
version = "15"
[[client]]
name = "hasty"
wal = "fetch"
[[fault]]
when.end-position = {}
do.error = { sqlstate = "XX000", message = "could not complete the backup" }
[expect.hasty]
must.outcome = "failure"
"#;

#[test]
fn a_client_that_stops_at_the_end_of_the_archive_corrupts_silently() {
    let finished = verdict(FAILS_AFTER_COPY_DONE, hasty_client());
    assert_eq!(finished.verdict, Verdict::SilentCorruption, "{:#?}", finished.checks);
    let refusal = finished.checks.iter().find(|check| check.check.contains("the server ended the backup"));
    let refusal = refusal.expect("the oracle that refuses");
    assert!(!refusal.ok);
    assert!(refusal.actual.contains("could not complete the backup"), "{}", refusal.actual);
}

#[test]
fn the_same_client_against_a_sound_server_leaves_nothing_to_object_to_but_its_haste() {
    let finished = verdict(SOUND, hasty_client());
    let refused: Vec<_> = finished.checks.iter().filter(|check| !check.ok).map(|check| check.check.as_str()).collect();
    // Whether the server had written its last word when the client left is the client's luck, not its merit.
    assert!(refused.iter().all(|check| check.contains("the server ended the backup")), "{:#?}", finished.checks);
}
