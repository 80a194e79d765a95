//! `backstop parity`: the mock beside PostgreSQL of this machine, a few scenarios of each kind.

use std::path::Path;
use std::process::Command;

use backstop_scenarios::postgres::Installation;
use serde_json::Value;

/// Scenarios that say much: backups of both formats, tablespaces, commands, a refusal.
const CASES: [&str; 5] =
    ["sound/plain", "sound/tar", "sound/tablespaces", "commands/cmd-unknown-option", "connections/conn-hba-reject"];

#[test]
fn the_mock_says_what_postgresql_says() {
    for major in [15, 16, 18] {
        let Some(installation) = Installation::find_release(major, "parity of the mock") else { continue };
        let scratch = installation.scratch();
        let report = scratch.path().join("parity.json");
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let bin = installation.path("postgres").parent().expect("a directory").display().to_string();
        let mut backstop = Command::new(env!("CARGO_BIN_EXE_backstop"));
        backstop.arg("parity").args(CASES).args(["--server", &format!("pg={bin}"), "--jobs", "2", "--report"]);
        backstop.arg(&report).args(["--explained", "scenarios/known/parity.toml", "--scratch"]).arg(scratch.path());
        let output = backstop.current_dir(root).output().expect("backstop");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{major}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let report = std::fs::read_to_string(&report).expect("a report");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let count = |name: &str| report["summary"][name].as_u64().expect("a number");
        assert!(count("played") >= 7, "{major}: {said}");
        assert_eq!(count("played"), count("equal") + count("explained"), "{major}: {said}");
        assert_eq!(count("unexplained"), 0);
        // Cases of other releases are left out with a reason.
        let cases = report["cases"].as_array().expect("cases");
        let reasons = cases.iter().filter(|case| case["result"] == "skipped").map(|case| case["reason"].to_string());
        let mut reasons = reasons.peekable();
        assert!(reasons.peek().is_some());
        assert!(reasons.all(|reason| reason.contains(&format!("the server is PostgreSQL {major}"))));
    }
}
