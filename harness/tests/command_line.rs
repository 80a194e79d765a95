//! What `backstop` prints, and the status it exits with.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;

const SOUND: &str = "summary = \"A plain backup\"\nbecause = \"It must work\"\ntags = [\"sound\"]\n";
const MATRIX: &str =
    "summary = \"Two releases\"\nbecause = \"Both must work\"\n[matrix]\nserver.version = [\"9.6\", \"15\"]\n";
const SWEEP: &str = "summary = \"A crash at every message\"\nbecause = \"No cut may pass for an end\"\n\
    [[fault]]\nwhen.every = { unit = \"message\" }\ndo.crash = {}\n";

/// A directory with a few scenarios.
fn scenarios() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("an area")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    write("sound/plain.toml", SOUND);
    write("sound/releases.toml", MATRIX);
    write("crash/everywhere.toml", SWEEP);
    write("Cargo.toml", "[package]\n");
    write(".hidden/x.toml", "nonsense");
    directory
}

/// Status, standard output, standard error.
fn backstop(root: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output = command.env("BACKSTOP_SCENARIOS", root).args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.replace(&root.display().to_string(), "SCENARIOS")
    };
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

#[test]
fn list_counts_by_area() {
    let (status, out, _) = backstop(scenarios().path(), &["list"]);
    assert_eq!(status, 0);
    insta::assert_snapshot!(out, @r#"
    crash: 1 scenario, 1 case
      crash/everywhere    1+ A crash at every message
    sound: 2 scenarios, 3 cases
      sound/plain         1  A plain backup
      sound/releases      2  Two releases
    3 scenarios, 4 cases in 2 areas (+: a sweep, one more case for each of its steps)
    "#);
}

#[test]
fn list_counts_known_edge_cases_and_on_request_the_steps_of_sweeps() {
    let directory = scenarios();
    fs::create_dir(directory.path().join("tar")).expect("an area");
    for name in ["tar-empty-archive", "tar-missing-pg_control", "tarred-and-feathered"] {
        fs::write(directory.path().join(format!("tar/{name}.toml")), SOUND).expect("a scenario");
    }
    let (status, out, error) = backstop(directory.path(), &["list", "tar", "crash"]);
    assert_eq!(status, 0, "{error}");
    insta::assert_snapshot!(out, @r#"
    crash: 1 scenario, 1 case
      crash/everywhere              1+ A crash at every message
    tar: 3 scenarios, 2 known edge cases, 3 cases
      tar/tar-empty-archive         1  A plain backup
      tar/tar-missing-pg_control    1  A plain backup
      tar/tarred-and-feathered      1  A plain backup
    4 scenarios, 2 known edge cases, 4 cases in 2 areas (+: a sweep, one more case for each of its steps)
    "#);

    let (status, out, error) = backstop(directory.path(), &["list", "crash", "--steps"]);
    assert_eq!(status, 0, "{error}");
    let (_, steps, _) = backstop(directory.path(), &["list", "crash", "--steps", "--cases-by-id"]);
    let steps: Vec<&str> = steps.lines().filter(|id| id.starts_with("crash/everywhere[")).collect();
    assert!(steps.len() > 50 && steps[..2] == ["crash/everywhere[1]", "crash/everywhere[2]"], "{steps:?}");
    // As many as a run comes to, which depends on the mock and on the client.
    let out = out.replace(&format!("{:>4}", steps.len()), "   N").replace(&steps.len().to_string(), "N");
    insta::assert_snapshot!(out, @r#"
    crash: 1 scenario,   N cases
      crash/everywhere    N  A crash at every message
    1 scenario,   N cases in 1 area
    "#);
}

#[test]
fn list_takes_ids_prefixes_paths_and_tags() {
    let directory = scenarios();
    let list = |arguments: &[&str]| {
        let all: Vec<&str> = ["list", "--cases-by-id"].iter().chain(arguments).copied().collect();
        let (status, out, error) = backstop(directory.path(), &all);
        assert_eq!(status, 0, "{error}");
        out.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let releases = ["sound/releases[server.version=9.6]", "sound/releases[server.version=15]"];
    assert_eq!(list(&[]), ["crash/everywhere", "sound/plain", releases[0], releases[1]]);
    assert_eq!(list(&["sound/rel"]), releases);
    assert_eq!(list(&["sound/releases[server.version=15]"]), [releases[1]]);
    assert_eq!(list(&["sound/releases[server.version="]), releases);
    assert_eq!(list(&["crash/everywhere[137]"]), ["crash/everywhere[137]"]);
    assert_eq!(list(&["--filter", "sound"]), ["sound/plain"]);
    let path = directory.path().join("sound/plain.toml").display().to_string();
    assert_eq!(list(&[&path, "sound/plain"]), ["sound/plain"]);
    let path = directory.path().join("crash").display().to_string();
    assert_eq!(list(&[&path]), ["crash/everywhere"]);
}

#[test]
fn nothing_selected_is_status_4() {
    let directory = scenarios();
    let refused = |arguments: &[&str]| {
        let (status, out, error) = backstop(directory.path(), arguments);
        assert_eq!((status, out.as_str()), (4, ""), "{error}");
        error
    };
    insta::assert_snapshot!(refused(&["run", "sound/plane"]), @r#"error: there is no case or file "sound/plane": did you mean "sound/plain"?"#);
    insta::assert_snapshot!(refused(&["run", "sound/releases[server.version=14]"]), @r#"error: there is no case or file "sound/releases[server.version=14]": did you mean "sound/releases[server.version=9.6]"?"#);
    insta::assert_snapshot!(refused(&["run", "--filter", "wal", "--filter", "tar"]), @"error: no case was selected: none has the tag wal or tar");
    insta::assert_snapshot!(refused(&["run", "--partition", "5/5"]), @"error: no case was selected: partition 5/5 holds none");
}

#[test]
fn an_empty_directory_is_status_4() {
    let directory = tempfile::tempdir().expect("a directory");
    let (status, _, error) = backstop(directory.path(), &["run"]);
    assert_eq!(status, 4);
    insta::assert_snapshot!(error, @"error: no case was selected: there is no scenario file below SCENARIOS");
}

#[test]
fn a_wrong_scenario_is_status_2_with_line_and_column() {
    let directory = scenarios();
    let path = directory.path().join("sound/wrong.toml");
    fs::write(path, "summary = \"s\"\nbecause = \"b\"\n\n[cluster]\nsize = \"64MB\"\n").expect("a file");
    let (status, out, error) = backstop(directory.path(), &["run"]);
    assert_eq!((status, out.as_str()), (2, ""));
    insta::assert_snapshot!(error, @r#"
     × cluster.size: invalid size "64MB": expected a whole number of B, KiB, MiB, GiB or TiB such as "8MiB"
      ╭─[SCENARIOS/sound/wrong.toml:5:8]
    4 │ [cluster]
    5 │ size = "64MB"
      ·        ──────
      ╰────
    "#);
    // Whoever asks for another file does not hear of it.
    assert_eq!(backstop(directory.path(), &["list", "sound/plain"]).0, 0);
}

#[test]
fn wrong_usage_is_status_2() {
    let directory = scenarios();
    for arguments in [
        &["run", "--client", "pgbasebackup"][..],
        &["run", "--server", "podman=postgres"],
        &["run", "--partition", "6/5"],
        &["run", "--jobs", "0"],
        &["run", "--report", "yaml=-"],
        &["run", "--report", "json=-", "--report", "junit=-"],
        &["serve", "sound/plain", "--listen", "nowhere"],
        &["serve", "sound/releases"],
        &["serve", "crash/everywhere"],
        &["run", "sound/plain[1]"],
        &["explain"],
        &["proxy"],
        &["proxy", "sound/plain"],
        &["proxy", "sound/plain", "--upstream", "no=such"],
        &["proxy", "crash/everywhere", "--upstream", "host=/nowhere"],
        &[],
    ] {
        let (status, out, error) = backstop(directory.path(), arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {error}");
        assert!(!error.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unwritable_report_and_an_unreadable_directory_are_status_96() {
    let directory = scenarios();
    let (status, _, error) =
        backstop(directory.path(), &["run", "sound/plain", "--report", "json=/nowhere/report.json"]);
    assert_eq!(status, 96);
    insta::assert_snapshot!(error, @"error: could not write report json=/nowhere/report.json: No such file or directory (os error 2)");
    let (status, _, error) = backstop(&directory.path().join("missing"), &["run"]);
    assert_eq!(status, 96);
    insta::assert_snapshot!(error, @"error: could not read SCENARIOS: No such file or directory (os error 2)");
}

#[test]
fn explain_spells_the_defaults_out() {
    let (status, out, _) = backstop(scenarios().path(), &["explain", "crash/everywhere[137]", "--toml"]);
    assert_eq!(status, 0);
    insta::assert_snapshot!(out, @r#"
    # crash/everywhere[137]
    # SCENARIOS/crash/everywhere.toml

    summary = "A crash at every message"
    because = "No cut may pass for an end"
    tags = []

    [server]
    version = "18"
    role = "primary"
    timeline = 1
    checksums = true
    wal-segment-size = "16MiB"
    max-wal-senders = 10
    auth = "trust"
    tls = false

    [server.settings]

    [cluster]
    source = "synthetic"
    size = "8MiB"
    wal-rate = "0"
    tablespace = []

    [[client]]
    name = "backup"
    tool = "basebackup"
    format = "plain"
    wal = "stream"
    checkpoint = "fast"
    timeout = "1min"

    [[fault]]

    [fault.when.message]
    n = 137

    [fault.do.crash]

    [expect]
    "#);
}

#[test]
fn every_help_has_an_example() {
    let directory = scenarios();
    for command in ["run", "serve", "proxy", "list", "explain", "decode", "schema", "mutants"] {
        let (status, out, _) = backstop(directory.path(), &[command, "--help"]);
        assert_eq!(status, 0, "{command}");
        assert!(out.contains("Example") && out.contains(&format!("backstop {command}")), "{out}");
    }
    let (status, out, _) = backstop(directory.path(), &["run", "--help"]);
    assert_eq!(status, 0);
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in ["[default: builtin]", "[default: mock]", "[default: scenarios]", "[default: everything]"] {
        assert!(out.contains(default), "{default}: {out}");
    }
}

#[cfg(not(feature = "mutants"))]
#[test]
fn mutants_have_to_be_built() {
    let (status, _, error) = backstop(scenarios().path(), &["mutants"]);
    assert_eq!(status, 2);
    assert!(error.contains("cargo run -p backstop --features mutants -- mutants"), "{error}");
}

#[test]
fn the_committed_schema_is_current() {
    let (status, out, _) = backstop(scenarios().path(), &["schema"]);
    assert_eq!(status, 0);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/scenario.schema.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(out == committed, "run: cargo run -- schema > scenarios/scenario.schema.json");
}

#[test]
fn every_committed_scenario_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let (status, _, error) = backstop(&root, &["list"]);
    // There may be none yet.
    assert!(status == 0 || status == 4, "{error}");
}

#[test]
fn a_client_that_is_not_there_is_status_96_and_named() {
    let directory = scenarios();
    let arguments = ["run", "sound/plain", "--client", "pg_basebackup=/nowhere/pg_basebackup"];
    let (status, _, error) = backstop(directory.path(), &arguments);
    assert_eq!(status, 96, "{error}");
    assert!(error.contains("/nowhere/pg_basebackup"), "{error}");
}

#[test]
fn a_json_report_on_standard_output_stands_there_alone() {
    let directory = scenarios();
    let (status, out, error) = backstop(directory.path(), &["run", "sound/plain", "--report", "json=-"]);
    assert_eq!(status, 0, "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON and nothing else");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["summary"]["passed"], 1);
    assert_eq!(report["cases"][0]["id"], "sound/plain");
    assert!(error.contains("1 case: 1 passed"), "{error}");
}

#[test]
fn serve_says_where_it_listens() {
    let directory = scenarios();
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["serve", "sound/plain", "--scenarios"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
    let connected = TcpStream::connect(&address);
    // A second server cannot have the same port.
    let (status, out, error) = backstop(directory.path(), &["serve", "sound/plain", "--listen", &address]);
    // Ctrl-C ends it in good order.
    let interrupted = Command::new("kill").args(["-INT", &server.id().to_string()]).output().expect("kill");
    let ended = server.wait().expect("it ended");
    assert!(interrupted.status.success() && ended.success(), "{ended}");
    connected.expect("somebody listens");
    assert_eq!((status, out.as_str()), (96, ""));
    assert!(error.starts_with(&format!("error: could not listen on {address}: ")), "{error}");
}

#[test]
fn serve_says_which_faults_it_cannot_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let fault = "[[fault]]\nwhen.copy-begin = {}\ndo.kill-client = { signal = \"SIGKILL\" }\n";
    fs::write(directory.path().join("killed.toml"), format!("{SOUND}\n{fault}")).expect("a scenario");
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["serve", "killed", "--scenarios"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(server.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    server.kill().expect("it runs");
    server.wait().expect("it ended");
    assert_eq!(
        line,
        "note: when.copy-begin do.kill-client strikes the machine of a client, which only whoever starts the client can do\n"
    );
}

#[test]
fn known_faults_do_not_count_and_changes_in_either_direction_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let story = "summary = \"x\"\nbecause = \"y\"\n[expect.backup]\nmust.outcome = \"failure\"\n[[client]]\nname = \"backup\"\n";
    fs::write(directory.path().join("wrong.toml"), story).expect("a scenario");
    fs::write(directory.path().join("right.toml"), SOUND).expect("a scenario");
    fs::create_dir(directory.path().join("known")).expect("a folder that holds no scenarios");
    let list = directory.path().join("known/builtin.toml");
    let list_as = |cases: &str, verdict: &str| {
        let text =
            format!("[[known]]\nclient = \"b*\"\ncases = [{cases}]\nverdict = \"{verdict}\"\nbecause = \"so it is\"\n");
        fs::write(&list, text).expect("a list");
        let (status, out, err) = backstop(directory.path(), &["run", "--known", list.to_str().expect("UTF-8")]);
        (status, out + &err)
    };

    let (status, said) = list_as("\"wrong\"", "fail");
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("wrong: fail, so it is"), "{said}");
    assert!(said.contains("1 passed, 1 failed, 1 of them known"), "{said}");

    let (status, said) = list_as("\"wrong\", \"right\"", "fail");
    assert_eq!(status, 100, "what is listed and passes must come off the list: {said}");
    assert!(said.contains("expected fail, as it is listed: so it is"), "{said}");

    let (status, said) = list_as("\"wrong\"", "hang");
    assert_eq!(status, 100, "it fails otherwise than listed: {said}");

    let (status, said) = list_as("\"wrong\"", "sad");
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("known/builtin.toml:4:11"), "{said}");
}
