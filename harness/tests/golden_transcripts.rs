//! Golden transcripts, from the command line: `run` compares, `--bless` writes, a transcript without a case is refused.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

const STORY: &str = r#"
summary = "A login with a password"
because = "What is said at the door must not change unnoticed"
[matrix]
server.version = ["14", "18"]
[server]
auth = "scram-sha-256"
[[fault]]
when.start-position = {}
do.error = { sqlstate = "58P01", message = "the disk is gone" }
[expect.backup]
must.outcome = "failure"
"#;

fn backstop(root: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output = command.env("BACKSTOP_SCENARIOS", root).args(arguments).output().expect("it runs");
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&root.display().to_string(), "SCENARIOS");
    (output.status.code().expect("no signal"), text(output.stdout) + &text(output.stderr))
}

fn scenarios() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("door")).expect("a directory");
    fs::write(directory.path().join("door/login.toml"), STORY).expect("a scenario");
    directory
}

#[test]
fn a_transcript_is_blessed_compared_and_blessed_again() {
    let directory = scenarios();
    let root = directory.path();
    let golden = root.join("door/login[server.version=18].transcript");
    // Without a golden transcript nothing is compared, and blessing everything makes no new ones.
    assert_eq!(backstop(root, &["run"]).0, 0);
    assert_eq!(backstop(root, &["run", "--bless"]).0, 0);
    assert!(!golden.exists());

    let (status, said) = backstop(root, &["run", "door/login[server.version=18]", "--bless"]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains(" blessed SCENARIOS/door/login[server.version=18].transcript"), "{said}");
    let text = fs::read_to_string(&golden).expect("a transcript");
    assert!(text.contains("BackendKeyData pid [pid], key of 4 bytes"), "{text}");
    assert!(text.contains("[systemid], 1, 0/2000000, NULL"), "{text}");
    assert!(text.contains("! fault error"), "{text}");
    assert!(!root.join("door/login[server.version=14].transcript").exists());
    assert_eq!(backstop(root, &["run"]).0, 0, "the same case says the same again");

    // One word is enough.
    fs::write(&golden, text.replace("the disk is gone", "the disk is full")).expect("a changed transcript");
    let (status, said) = backstop(root, &["run"]);
    assert_eq!(status, 100, "{said}");
    assert!(said.contains("expected as in SCENARIOS/door/login[server.version=18].transcript"), "{said}");
    assert!(said.contains("ErrorResponse ERROR 58P01 the disk is full"), "{said}");
    assert!(said.contains("1 passed, 1 failed"), "the other release has no transcript: {said}");
    // Another seed is another run.
    assert_eq!(backstop(root, &["run", "--seed", "7"]).0, 0);

    assert_eq!(backstop(root, &["run", "--bless"]).0, 0);
    assert_eq!(fs::read_to_string(&golden).expect("a transcript"), text);
}

#[test]
fn a_case_that_fails_is_no_example() {
    let directory = scenarios();
    let root = directory.path();
    fs::write(root.join("door/login.toml"), STORY.replace("failure", "success")).expect("a scenario");
    let (status, said) = backstop(root, &["run", "door/login", "--bless"]);
    assert_eq!(status, 100, "{said}");
    assert!(!said.contains("blessed"), "{said}");
}

#[test]
fn a_transcript_without_its_case_is_refused() {
    let directory = scenarios();
    let root = directory.path();
    for (name, file) in
        [("logout.transcript", "logout"), ("login[server.version=17].transcript", "login"), ("login.transcript", "")]
    {
        let path = root.join("door").join(name);
        fs::write(&path, "").expect("a transcript");
        let (status, said) = backstop(root, &["run"]);
        assert_eq!(status, 2, "{file}: {said}");
        assert_eq!(
            said,
            format!(
                "error: SCENARIOS/door/{name}: there is no such case beside it: remove the transcript, or give it the case's new name\n"
            )
        );
        fs::remove_file(path).expect("it is there");
    }
}

#[test]
fn blessing_is_about_the_built_in_client_and_the_case_s_own_seed() {
    let directory = scenarios();
    for arguments in [&["run", "--bless", "--seed", "1"][..], &["run", "--bless", "--client", "exec=false {dir}"]] {
        let (status, said) = backstop(directory.path(), arguments);
        assert_eq!(status, 2, "{said}");
    }
}

/// The transcripts beside the scenarios are those of today.
#[test]
fn no_committed_transcript_is_stale() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    backstop::golden::refuse_stale(&root).expect("every transcript has its case");
}
