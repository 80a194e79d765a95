//! The command line of `compare`. What it measures depends on the machine; that its ends work does not.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin_cmd;

#[test]
fn groups_are_listed() {
    let output = cargo_bin_cmd!("compare").arg("--list").assert().success().get_output().stdout.clone();
    let names: Vec<_> = String::from_utf8_lossy(&output)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    insta::assert_debug_snapshot!(names, @r#"
    [
        "mock",
        "client-mock",
        "client-server",
        "compression",
        "small-files",
        "parallel",
        "proxy",
        "receivewal",
        "verifybackup",
        "combinebackup",
    ]
    "#);
}

#[test]
fn a_group_that_is_not_there_is_a_usage_error() {
    let output = cargo_bin_cmd!("compare").args(["--only", "verify"]).assert().code(2).get_output().stderr.clone();
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("invalid value 'verify' for '--only <NAME>'") && text.contains("verifybackup"), "{text}");
}

#[test]
fn frames_go_from_one_end_to_the_other() {
    let mut sender = Command::new(env!("CARGO_BIN_EXE_compare"));
    let mut sender = sender.args(["send-frames", "1000000"]).stdout(Stdio::piped()).spawn().expect("a sender");
    let mut line = String::new();
    BufReader::new(sender.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let port = line.trim_end().rsplit(':').next().expect("a port");
    cargo_bin_cmd!("compare").args(["read-frames", port]).assert().success();
    sender.kill().expect("it runs");
    sender.wait().expect("it ends");
    // Nobody sends there any more.
    cargo_bin_cmd!("compare").args(["read-frames", port]).assert().code(96);
}
