//! The binary's manners: names, help, version, usage errors, exit status.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop-client");

fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in
        [&["--help"][..], &["--version"], &["basebackup", "--help"], &["basebackup", "-?"], &["basebackup", "-V"]]
    {
        let output = run(Path::new(BINARY), arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
        assert!(text(&output.stdout).lines().all(|line| line.len() <= 95), "{arguments:?}");
    }
    let help = text(&run(Path::new(BINARY), &["basebackup", "--help"]).stdout);
    assert!(help.contains("Example:") && help.contains("-D, --pgdata"), "{help}");
}

#[test]
fn under_the_name_of_a_tool_it_is_that_tool() {
    let scratch = tempfile::tempdir().unwrap();
    let link = scratch.path().join("pg_basebackup");
    std::os::unix::fs::symlink(BINARY, &link).unwrap();
    let output = run(&link, &["-D", "x", "-Xwrong"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr), @r#"
    pg_basebackup: error: invalid wal-method option "wrong", must be "fetch", "stream", or "none"
    pg_basebackup: hint: Try "pg_basebackup --help" for more information.
    "#);
}

#[test]
fn usage_errors_exit_with_1() {
    let said = |arguments: &[&str]| {
        let output = run(Path::new(BINARY), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty());
        text(&output.stderr)
    };
    assert!(said(&[]).starts_with("Usage: backstop-client TOOL"));
    insta::assert_snapshot!(said(&["nosuch"]), @r#"
    backstop-client: error: unknown tool "nosuch"
    backstop-client: hint: Try "backstop-client --help" for more information.
    "#);
    insta::assert_snapshot!(said(&["basebackup"]), @r#"
    backstop-client: error: must specify output directory or backup target
    backstop-client: hint: Try "backstop-client basebackup --help" for more information.
    "#);
    insta::assert_snapshot!(said(&["basebackup", "--nosuch"]), @r#"
    backstop-client: error: unexpected argument '--nosuch' found
    backstop-client: hint: Try "backstop-client basebackup --help" for more information.
    "#);
    insta::assert_snapshot!(said(&["basebackup", "-D", "x", "-d", "sslmode=require"]), @r#"backstop-client: error: sslmode value "require" is not supported"#);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let (host, target) = (scratch.path().join("none"), scratch.path().join("x"));
    let arguments =
        ["basebackup", "-h", host.to_str().unwrap(), "-p", "5433", "-U", "u", "-D", target.to_str().unwrap()];
    let output = run(Path::new(BINARY), &arguments);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "backstop-client: error: connection to server on socket \"{}/.s.PGSQL.5433\" failed: No such file or directory\n",
        host.display()
    );
    assert_eq!(text(&output.stderr), expected);
    assert!(!target.exists());
}
