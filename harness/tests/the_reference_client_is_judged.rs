//! PostgreSQL's own `pg_basebackup` runs the scenario files: what is sound passes, and each of its known faults comes out as
//! what it is.

use std::collections::BTreeMap;
use std::path::Path;

use assert_cmd::Command;
use backstop_scenarios::postgres::Installation;
use serde_json::Value;

/// Runs scenarios with the clients and returns the exit status and the cases of the report.
fn run(scenarios: &[&str], clients: &[&str]) -> (i32, Vec<Case>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.arg("run").args(scenarios).arg("--scenarios").arg(root).args(["--report", "json=-"]);
    // A client that hangs costs time and nothing else.
    command.args(["--jobs", "6"]);
    for client in clients {
        command.args(["--client", client]);
    }
    let output = command.output().expect("backstop run");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {said}"));
    let cases = report["cases"].as_array().expect("cases").iter().map(Case::of);
    (output.status.code().expect("no signal"), cases.collect())
}

#[derive(Clone, Debug)]
struct Case {
    id: String,
    client: String,
    verdict: String,
    /// Each check that failed, and what was seen.
    failed: Vec<(String, String)>,
    /// What all checks saw.
    seen: String,
}

impl Case {
    fn of(case: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let checks = case["checks"].as_array().expect("checks");
        let failed = checks.iter().filter(|check| check["ok"] == false);
        Self {
            id: text(&case["id"]),
            client: text(&case["client"]),
            verdict: text(&case["verdict"]),
            failed: failed.map(|check| (text(&check["check"]), text(&check["actual"]))).collect(),
            seen: checks.iter().map(|check| text(&check["actual"]) + "\n").collect(),
        }
    }

    /// The server's release, if the scenario is about several: `(9, 6)`, `(15, 0)`.
    fn version(&self) -> Option<(u32, u32)> {
        let (_, rest) = self.id.split_once("server.version=")?;
        let mut numbers = rest.split([',', ']']).next()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next().transpose().ok()?.unwrap_or(0)))
    }
}

fn pg_basebackup() -> Option<String> {
    let installation = Installation::find("pg_basebackup judged")?;
    Some(format!("pg_basebackup={}", installation.path("pg_basebackup").display()))
}

#[test]
fn sound_servers_up_to_its_own_release_pass_and_newer_ones_are_skipped() {
    let Some(client) = pg_basebackup() else { return };
    let (status, cases) = run(&["sound"], &[&client]);
    assert_eq!(status, 100, "{cases:#?}");
    let mut counts = BTreeMap::new();
    for case in &cases {
        // What names no release is about the newest.
        let newer = case.version().is_none_or(|version| version > (15, 0));
        let older = case.version().is_some_and(|version| version < (9, 3)) && case.id.contains("client.wal=stream");
        // It asks every server for tablespace_map in tar format, also those that do not know the word.
        let asks_too_much = case.version().is_some_and(|version| version < (9, 5)) && case.id.contains("format=tar");
        let expected = match (newer || older, asks_too_much) {
            (true, _) => "skipped",
            (false, true) => "fail",
            (false, false) => "pass",
        };
        assert_eq!(case.verdict, expected, "{case:#?}");
        if newer {
            assert!(case.seen.contains("pg_basebackup 15 refuses servers of version "), "{case:#?}");
        }
        *counts.entry(case.verdict.clone()).or_insert(0) += 1;
    }
    assert!(counts["pass"] >= 30 && counts["skipped"] >= 10, "{counts:?}");
}

/// Every fault of the reference client that a scenario shows, and what must be seen of it.
const KNOWN: [(&str, &str, &str); 16] = [
    ("tar/tar-empty-archive[server.version=14]", "silent_corruption", "\"backup_label\" is missing"),
    ("tar/tar-empty-archive[server.version=15]", "silent_corruption", "\"backup_label\" is missing"),
    (
        "tar/tar-truncated-at-member-boundary[server.version=14]",
        "silent_corruption",
        "\"global/pg_control\" is missing",
    ),
    (
        "tar/tar-truncated-at-member-boundary[server.version=15]",
        "silent_corruption",
        "\"global/pg_control\" is missing",
    ),
    ("tar/tar-missing-pg_control", "silent_corruption", "\"global/pg_control\" is missing"),
    ("tar/tar-missing-backup_label", "silent_corruption", "\"backup_label\" is missing"),
    ("tar/tar-missing-trailer", "silent_corruption", "instead of two zero blocks"),
    ("protocol/proto-declared-tablespace-missing", "silent_corruption", "tablespace 16400 is missing"),
    ("manifest/man-mismatch-ignored[server.version=13]", "silent_corruption", "checksum mismatch for file"),
    ("manifest/man-mismatch-ignored[server.version=15]", "silent_corruption", "checksum mismatch for file"),
    ("hostile/mal-symlink-then-member-through-it", "escape", "file \"outside/pwned\" appeared"),
    ("hostile/mal-symlink-then-same-name-file", "escape", "file \"outside/file\" changed"),
    ("disconnects/net-half-open", "hang", "timeout"),
    ("disconnects/net-half-open-wal-conn-only", "hang", "timeout"),
    ("tar/tar-bad-header-checksum", "fail", "success"),
    ("protocol/cmd-empty-or-multi-result-shapes", "crash", "death by signal 11"),
];

#[test]
fn its_known_faults_come_out_and_the_built_in_client_has_none_of_them() {
    let Some(client) = pg_basebackup() else { return };
    let (status, cases) = run(&KNOWN.map(|(id, _, _)| id), &[&client, "builtin"]);
    assert_eq!(status, 104, "a crash is the worst of them");
    let (ours, theirs): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.client == "builtin");
    assert_eq!((ours.len(), theirs.len()), (KNOWN.len(), KNOWN.len()));
    for case in &ours {
        assert_eq!(case.verdict, "pass", "{case:#?}");
    }
    for (id, verdict, seen) in KNOWN {
        let case = theirs.iter().find(|case| case.id == id).expect(id);
        assert_eq!(case.verdict, verdict, "{case:#?}");
        assert!(case.failed.iter().any(|(_, actual)| actual.contains(seen)), "{seen}: {case:#?}");
    }
}

#[test]
fn what_it_gets_right_passes() {
    let Some(client) = pg_basebackup() else { return };
    let right = [
        "crash/mid-tablespace[server.version=14,",
        "disconnects/net-fin-midstream[server.version=12]",
        "disconnects/net-fin-midstream[server.version=15]",
        "disconnects/net-rst-midstream[server.version=14]",
        "hostile/mal-absolute-member",
        "hostile/mal-dotdot-member",
        "hostile/mal-relative-symlink",
        "protocol/proto-notice-anywhere",
        "tar/tar-truncated-mid-member",
        "wal/wal-removed-during-long-copy[server.version=15]",
    ];
    let (status, cases) = run(&right, &[&client]);
    let bad: Vec<_> = cases.iter().filter(|case| !["pass", "skipped"].contains(&case.verdict.as_str())).collect();
    assert_eq!(status, 0, "{bad:#?}");
    assert!(cases.iter().filter(|case| case.verdict == "pass").count() > right.len(), "{cases:#?}");
}

/// Stories of chains that pg_basebackup handles as it should. The others are in the list of what it is known to do.
const SOUND_CHAINS: [&str; 7] = [
    "incremental/cmd-incremental-without-summarizer",
    "incremental/inc-chain",
    "incremental/inc-cut-off",
    "incremental/inc-manifest-upload-abort",
    "incremental/inc-new-dropped-db-tablespace",
    "incremental/inc-partial-block-read",
    "incremental/inc-zero-block-file",
];

#[test]
fn a_chain_of_incremental_backups_is_judged_block_by_block() {
    let Some(installation) = Installation::find_release(18, "incremental backups of scenarios") else { return };
    let client = format!("pg_basebackup={}", installation.path("pg_basebackup").display());
    let (status, cases) = run(&SOUND_CHAINS, &[&client]);
    assert_eq!(status, 0, "{cases:#?}");
    assert!(cases.len() >= 4 && cases.iter().all(|case| case.verdict == "pass"), "{cases:#?}");
}
