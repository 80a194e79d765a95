//! The binary's manners: names, help, version, usage errors, exit status.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
    assert!(help.contains("Example:") && help.contains("-D, --pgdata=DIRECTORY"), "{help}");
    assert!(
        help.starts_with("backstop-client basebackup takes a base backup of a running PostgreSQL server.\n"),
        "{help}"
    );
}

/// The binary under one of PostgreSQL's names.
fn link(scratch: &Path, name: &str) -> PathBuf {
    let link = scratch.join(name);
    std::os::unix::fs::symlink(BINARY, &link).unwrap();
    link
}

#[test]
fn the_version_is_where_scripts_look_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let said = text(&run(&link(scratch.path(), "pg_basebackup"), &["--version"]).stdout);
    let release = said.strip_prefix("pg_basebackup (PostgreSQL) ").unwrap();
    assert!(release.starts_with("18."), "{said}");
    assert!(said.trim_end().ends_with(&format!("(Backstop {})", env!("CARGO_PKG_VERSION"))), "{said}");
    let said = text(&run(Path::new(BINARY), &["basebackup", "-V"]).stdout);
    assert_eq!(said, format!("backstop-client basebackup {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_tool_has_the_manners_of_its_name() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["pg_basebackup", "pg_receivewal", "pg_verifybackup", "pg_combinebackup"] {
        let program = link(scratch.path(), name);
        for option in ["--help", "-?", "--version", "-V"] {
            let output = run(&program, &[option]);
            assert!(output.status.success() && output.stderr.is_empty(), "{name} {option}: {output:?}");
            let text = text(&output.stdout);
            assert!(text.starts_with(name) && text.lines().all(|line| line.len() <= 95), "{name} {option}: {text}");
        }
        let help = text(&run(&program, &["--help"]).stdout);
        assert!(help.contains("\nUsage:\n  pg_") && help.contains("\nExample:\n  pg_"), "{help}");
        for wrong in [&["--not-a-valid-option"][..], &[]] {
            let output = run(&program, wrong);
            assert_eq!(output.status.code(), Some(1), "{name} {wrong:?}");
            assert!(output.stdout.is_empty() && text(&output.stderr).starts_with(&format!("{name}: ")), "{output:?}");
        }
    }
}

#[test]
fn options_are_spelled_as_getopt_long_reads_them() {
    let scratch = tempfile::tempdir().unwrap();
    let program = link(scratch.path(), "pg_basebackup");
    // Nobody listens there; what matters is that every spelling gets that far.
    let host = scratch.path().join("none").to_str().unwrap().to_owned();
    let target = scratch.path().join("x").to_str().unwrap().to_owned();
    let beyond = [
        format!("-D{target} -h{host} -Uu -Xnone"),
        format!("-D {target} -h {host} -U u -X none"),
        format!("--pgdata={target} --host={host} --username=u --wal-method=none"),
        format!("--pgd {target} --ho {host} --us u --wal-m none"),
        format!("-vPnND {target} -h {host} -Uu"),
        format!("-D {target} -D {target} -h nowhere.invalid -h {host} -Uu -v -v -P -P -cspread -cfast"),
        format!("-D {target} -h {host} -U u --label -x --"),
    ];
    for arguments in beyond {
        let output = run(&program, &arguments.split(' ').collect::<Vec<_>>());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        assert!(said.contains(&format!("connection to server on socket \"{host}/.s.PGSQL.5432\" failed")), "{said}");
    }
    let said = |arguments: &str| {
        let output = run(&program, &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        let said = text(&output.stderr);
        let (said, hint) = said.split_once('\n').unwrap();
        assert_eq!(hint, "pg_basebackup: hint: Try \"pg_basebackup --help\" for more information.\n", "{arguments}");
        said.to_owned()
    };
    let refused = [
        "--nosuch",
        "--nosuch=1",
        "-q",
        "-Pq",
        "--no-s",
        "--pgdata",
        "-D",
        "-PD",
        "--verbose=1",
        "-D x one two",
        "-- -D x",
    ];
    insta::assert_snapshot!(refused.map(said).join("\n"), @r#"
    pg_basebackup: unrecognized option '--nosuch'
    pg_basebackup: unrecognized option '--nosuch'
    pg_basebackup: invalid option -- 'q'
    pg_basebackup: invalid option -- 'q'
    pg_basebackup: option '--no-s' is ambiguous; possibilities: '--no-sync' '--no-slot'
    pg_basebackup: option '--pgdata' requires an argument
    pg_basebackup: option requires an argument -- 'D'
    pg_basebackup: option requires an argument -- 'D'
    pg_basebackup: option '--verbose' doesn't allow an argument
    pg_basebackup: error: too many command-line arguments (first is "one")
    pg_basebackup: error: too many command-line arguments (first is "-D")
    "#);
}

#[test]
fn under_the_name_of_a_tool_it_is_that_tool() {
    let scratch = tempfile::tempdir().unwrap();
    let program = link(scratch.path(), "pg_basebackup");
    let output = run(&program, &["-D", "x", "-Xwrong"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr), @r#"pg_basebackup: error: invalid wal-method option "wrong", must be "fetch", "stream", or "none""#);
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
    backstop-client basebackup: error: must specify output directory or backup target
    backstop-client basebackup: hint: Try "backstop-client basebackup --help" for more information.
    "#);
    insta::assert_snapshot!(said(&["basebackup", "--nosuch"]), @r#"
    backstop-client basebackup: unrecognized option '--nosuch'
    backstop-client basebackup: hint: Try "backstop-client basebackup --help" for more information.
    "#);
    insta::assert_snapshot!(said(&["basebackup", "-D", "x", "-d", "sslmode=secure"]), @r#"backstop-client basebackup: error: invalid sslmode value: "secure""#);
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
        "backstop-client basebackup: error: connection to server on socket \"{}/.s.PGSQL.5433\" failed: No such file or directory\n\tIs the server running locally and accepting connections on that socket?\n",
        host.display()
    );
    assert_eq!(text(&output.stderr), expected);
    assert!(!target.exists());
}

#[test]
fn nobody_has_to_read_what_is_said() {
    let ended = |arguments: &[&str], stdout: Option<Stdio>, stderr: Option<Stdio>| {
        let mut command = Command::new(BINARY);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(stdout.unwrap_or_else(Stdio::null)).stderr(stderr.unwrap_or_else(Stdio::null));
        command.status().unwrap().code()
    };
    let full = || Some(Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap()));
    let unread = || Some(Stdio::from(std::io::pipe().unwrap().1));
    for arguments in [&["--help"][..], &["--version"], &["basebackup", "--help"], &["receivewal", "--version"]] {
        assert_eq!(ended(arguments, unread(), None), Some(0), "{arguments:?}");
        assert_eq!(ended(arguments, full(), None), Some(1), "{arguments:?}");
    }
    for arguments in [&[][..], &["nosuch"], &["basebackup"], &["receivewal", "--nosuch"], &["verifybackup", "/nowhere"]]
    {
        assert_eq!(ended(arguments, None, unread()), Some(1), "{arguments:?}");
        assert_eq!(ended(arguments, None, full()), Some(1), "{arguments:?}");
    }
}
