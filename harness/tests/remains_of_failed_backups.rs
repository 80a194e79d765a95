//! Whoever takes a backup that fails is told of everything that is left of it, and of everything that is not.

mod support;

use support::Serving;
use support::client::{said, tool};

/// Fails when the slot is there, and once more as `what` says.
fn scenario(what: &str) -> String {
    format!(
        r#"
summary = "A server that does not send WAL"
because = "What its client leaves behind is somebody's work"
[server]
version = "18"
wal-segment-size = "1MiB"
[cluster]
size = "512KiB"
[[fault]]
when.command = {{ starts-with = "START_REPLICATION" }}
do.error = {{ sqlstate = "XX000", message = "something went wrong" }}
{what}
"#
    )
}

/// The end of what is said of a backup into the directory `backup` with a slot of its own.
fn told(what: &str, more: &[&str]) -> String {
    let scratch = tempfile::tempdir().expect("a directory");
    let server = Serving::start(scratch.path(), "failing", &scenario(what));
    let options = ["-c", "fast", "-N", "-C", "-S", "weekly", "-D", "backup"];
    let output = tool("basebackup", server.port, &[&options, more].concat()).current_dir(scratch.path()).output();
    let output = output.expect("the client");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output).replace("backstop-client basebackup: ", "")
}

#[test]
fn the_slot_and_the_directory_are_told() {
    insta::assert_snapshot!(told("", &[]), @r#"
    error: background process terminated unexpectedly
    error: could not send replication command "START_REPLICATION": ERROR:  something went wrong
    dropped replication slot "weekly"
    removing data directory "backup"
    "#);
    insta::assert_snapshot!(told("", &["--no-clean"]), @r#"
    error: background process terminated unexpectedly
    error: could not send replication command "START_REPLICATION": ERROR:  something went wrong
    data directory "backup" not removed at user's request
    "#);
}

#[test]
fn a_slot_that_remains_is_told_beside_the_directory_that_does_not() {
    let refused = r#"
[[fault]]
when.command = { starts-with = "DROP_REPLICATION_SLOT" }
do.error = { sqlstate = "55006", message = "replication slot \"weekly\" is active for PID 4711" }
"#;
    insta::assert_snapshot!(told(refused, &[]), @r#"
    error: background process terminated unexpectedly
    error: could not send replication command "START_REPLICATION": ERROR:  something went wrong
    replication slot "weekly" was created and could not be dropped, so that the server keeps WAL for it: could not send replication command "DROP_REPLICATION_SLOT "weekly" WAIT": ERROR:  replication slot "weekly" is active for PID 4711
    removing data directory "backup"
    "#);
}
