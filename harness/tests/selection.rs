//! Which cases `backstop run` runs: by id, path, tag and partition, and the steps of sweeps among them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const CLUSTER: &str = "[server]\nwal-segment-size = \"1MiB\"\n[cluster]\nsize = \"64KiB\"\n";

/// Two areas: a matrix, a story with a tag, and sweeps.
fn scenarios() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let head = "summary = \"A story\"\nbecause = \"It is told\"\n";
    let sweep = "[[client]]\nname = \"backup\"\nwal = \"none\"\n[[fault]]\nwhen.every = { unit = \"message\", step = 9 }\n\
        do.close = {}\n[expect.backup]\nmust.outcome = \"failure\"\n";
    let matrix = "[matrix]\nserver.version = [\"13\", \"15\", \"18\"]\n";
    for (id, text) in [
        ("sound/plain", format!("{head}tags = [\"quick\"]\n{CLUSTER}")),
        ("sound/releases", format!("{head}{matrix}{CLUSTER}")),
        (
            "sweeps/both",
            format!("{head}tags = [\"sweep\"]\n[matrix]\nserver.version = [\"14\", \"18\"]\n{CLUSTER}{sweep}"),
        ),
        ("sweeps/one", format!("{head}tags = [\"sweep\", \"quick\"]\n{CLUSTER}{sweep}")),
    ] {
        let path = directory.path().join(id).with_extension("toml");
        fs::create_dir_all(path.parent().expect("an area")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

/// The ids of the cases that ran, sorted.
fn ran(root: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.arg("run").args(arguments).arg("--scenarios").arg(root).args(["--report", "json=-"]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {said}"));
    let cases = report["cases"].as_array().expect("cases").iter();
    let mut ids: Vec<_> = cases.map(|case| case["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn partitions_run_every_case_and_every_step_once() {
    let directory = scenarios();
    let all = ran(directory.path(), &[]);
    let steps = |scenario: &str| all.iter().filter(|id| id.starts_with(scenario)).count();
    for sweep in ["sweeps/both[server.version=14][", "sweeps/both[server.version=18][", "sweeps/one["] {
        assert!(steps(sweep) > 3, "{sweep}: {all:?}");
    }
    let parts: Vec<Vec<String>> =
        ["1/3", "2/3", "3/3"].iter().map(|part| ran(directory.path(), &["--partition", part])).collect();
    assert!(parts.iter().all(|part| !part.is_empty()), "{parts:?}");
    let mut together = parts.concat();
    together.sort_unstable();
    assert_eq!(together, all);
}

#[test]
fn ids_beginnings_paths_and_tags_choose() {
    let directory = scenarios();
    let root = directory.path();
    let releases = ["13", "15", "18"].map(|version| format!("sound/releases[server.version={version}]"));
    assert_eq!(ran(root, &["sound/plain"]), ["sound/plain"]);
    assert_eq!(ran(root, &["sound/rel"]), releases);
    assert_eq!(ran(root, &["sound/releases[server.version=15]", "sound/plain"]), ["sound/plain", &*releases[1]]);
    assert_eq!(ran(root, &["--filter", "quick", "sound"]), ["sound/plain"]);
    let path = |below: &str| root.join(below).display().to_string();
    assert_eq!(ran(root, &[&path("sound/releases.toml")]), releases);
    assert_eq!(ran(root, &[&path("sound")]).len(), 4);

    // A sweep and its steps; one of them alone, also one to which the sweep does not come.
    let sweep = ran(root, &["sweeps/one"]);
    assert_eq!(ran(root, &["--filter", "quick", "--filter", "none", "sweeps"]), sweep);
    assert!(sweep.contains(&"sweeps/one[10]".to_owned()), "{sweep:?}");
    assert_eq!(ran(root, &["sweeps/one[10]"]), ["sweeps/one[10]"]);
    assert_eq!(ran(root, &["sweeps/both[server.version=14][11]"]), ["sweeps/both[server.version=14][11]"]);
    assert_eq!(
        ran(root, &["--filter", "sweep"]).iter().filter(|id| id.starts_with("sweeps/one[")).count(),
        sweep.len()
    );
}
