//! What the scenario itself asks for: `must` and `should`.

use crate::record::{Ending, Record};
use crate::scenario::Case;
use crate::scenario::model::{ClientClaims, Leaves, Outcome, ServerClaims};
use crate::verdict::{Check, Level};

use super::archive::Archive;
use super::{Evidence, Refusals, leftovers, manifest_expected, was_killed};

/// Checks what the scenario expects of one client.
pub fn client(
    case: &Case,
    evidence: &Evidence<'_>,
    refused: &Refusals,
    archive: Option<&Archive>,
    checks: &mut Vec<Check>,
) {
    let Some(expectation) = case.scenario.expect.clients.get(&evidence.client.name) else { return };
    for (level, word, claims) in
        [(Level::Must, "must", &expectation.must), (Level::Should, "should", &expectation.should)]
    {
        let mut check = |key: &str, expected: String, actual: String, ok: bool| {
            checks.push(Check {
                check: format!("expect.{}.{word}.{key}", evidence.client.name),
                expected,
                actual,
                ok,
                level,
            });
        };
        client_claims(case, evidence, refused, claims, &mut check);
        if let (Some(wanted), Some(archive)) = (&claims.holds, archive) {
            check("holds", wanted.join(", "), archive.names.join(", "), *wanted == archive.names);
        }
    }
}

type Report<'a> = dyn FnMut(&str, String, String, bool) + 'a;

fn client_claims(
    case: &Case,
    evidence: &Evidence<'_>,
    refused: &Refusals,
    claims: &ClientClaims,
    check: &mut Report<'_>,
) {
    let client = evidence.client;
    if let Some(outcome) = claims.outcome {
        let (expected, ok) = match outcome {
            Outcome::Success => ("success", client.ending.is_success()),
            Outcome::Failure => ("failure", matches!(client.ending, Ending::Exited(status) if status != 0)),
            Outcome::Timeout => ("timeout", client.ending == Ending::TimedOut),
            Outcome::Killed => {
                let by_itself = matches!(client.ending, Ending::Exited(status) if status != 0);
                ("the end by a signal", by_itself || was_killed(case, client))
            }
        };
        check("outcome", expected.to_owned(), client.ending.to_string(), ok);
    }
    if let Some(leaves) = claims.leaves {
        let passes = leftovers::passes_for_a_backup(&evidence.artifact, manifest_expected(case, evidence));
        let objections: Vec<_> = refused.iter().flat_map(|(_, problems)| problems).cloned().collect();
        let (expected, ok) = match leaves {
            Leaves::Restorable => ("a restorable backup", objections.is_empty()),
            Leaves::NothingRestorable => ("nothing that passes for a backup", !passes),
            Leaves::Nothing => ("nothing", evidence.artifact.is_empty()),
        };
        let actual = if evidence.artifact.is_empty() {
            "nothing".to_owned()
        } else if objections.is_empty() {
            "a restorable backup".to_owned()
        } else if passes {
            format!("something that passes for a backup and is none: {}", objections.join("; "))
        } else {
            "files that nobody would take for a backup".to_owned()
        };
        check("leaves", expected.to_owned(), actual, ok);
    }
    for (key, wanted) in [("says", &claims.says), ("names", &claims.names)] {
        if let Some(wanted) = wanted {
            let said = client.said.trim();
            let shown = if said.is_empty() { "nothing" } else { said };
            check(key, format!("\"{wanted}\""), shown.to_owned(), said.contains(wanted.as_str()));
        }
    }
    if let Some(wanted) = &claims.sqlstate {
        let sent = evidence.sqlstates.join(", ");
        let ok = evidence.sqlstates.contains(wanted);
        check("sqlstate", wanted.clone(), if sent.is_empty() { "no error".to_owned() } else { sent }, ok);
    }
    if let Some(limit) = &claims.within {
        let actual = format!("{:.3}s", client.elapsed.as_secs_f64());
        check("within", limit.to_string(), actual, client.elapsed <= limit.0);
    }
}

/// Checks what the scenario expects of the server after the last client has ended.
pub fn server(case: &Case, record: &Record, checks: &mut Vec<Check>) {
    let Some(expectation) = &case.scenario.expect.server else { return };
    for (level, word, claims) in
        [(Level::Must, "must", &expectation.must), (Level::Should, "should", &expectation.should)]
    {
        let mut check = |key: &str, expected: String, actual: String, ok: bool| {
            checks.push(Check { check: format!("expect.server.{word}.{key}"), expected, actual, ok, level });
        };
        server_claims(record, claims, &mut check);
    }
}

fn server_claims(record: &Record, claims: &ServerClaims, check: &mut Report<'_>) {
    let state = &record.state;
    let counts = [
        ("sessions", claims.sessions, state.sessions),
        ("running-backups", claims.running_backups, state.running_backups),
        ("slots", claims.slots, state.slots.len()),
    ];
    for (key, wanted, actual) in counts {
        if let Some(wanted) = wanted {
            check(key, wanted.to_string(), actual.to_string(), wanted == actual);
        }
    }
    if let Some(wanted) = claims.retained_from {
        check("retained-from", wanted.to_string(), state.oldest_wal.to_string(), wanted == state.oldest_wal);
    }
    if let Some(wanted) = &claims.commands {
        let pairs = wanted.iter().zip(&state.commands);
        let ok = wanted.len() == state.commands.len()
            && pairs.into_iter().all(|(wanted, sent)| sent.starts_with(wanted.as_str()));
        check("commands", wanted.join("; "), state.commands.join("; "), ok);
    }
}
