//! What cannot happen is refused with a reason.

use crate::fault::Fault;

fn refusal(fault: &str) -> String {
    match serde_json::from_str::<Fault>(fault) {
        Ok(fault) => fault.validate().unwrap_err(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn impossible_pairs_are_refused() {
    let refusals: Vec<_> = [
        r#"{"when": {"wal-data": {"lsn": "0/3000028"}}, "do": {"rename-member": {"to": "x"}}}"#,
        r#"{"when": {"clock": {"at": "1s"}}, "do": {"drop": {}}}"#,
        r#"{"when": {"clock": {"at": "1s"}}, "do": {"delay": {"for": "1s"}}}"#,
        r#"{"when": {"ready": {}}, "do": {"garble": {}}}"#,
        r#"{"when": {"member": {"path": "x"}}, "do": {"drop": {}}}"#,
        r#"{"when": {"archive-begin": {}}, "do": {"truncate": {}}}"#,
        r#"{"when": {"archive-data": {"at": "1B"}}, "do": {"truncate": {"to": "1B"}}}"#,
        r#"{"when": {"connect": {"client": "backup"}}, "do": {"close": {}}}"#,
        r##"{"when": {"ready": {"client": "#x"}}, "do": {"close": {}}}"##,
        r#"{"when": {"ready": {"nth": 0}}, "do": {"close": {}}}"#,
        r#"{"when": {"ready": {}}, "do": {"recycle-wal": {"through": "x"}}}"#,
        r#"{"when": {"archive-end": {}}, "do": {"extra-member": {"name": "x", "kind": "symlink"}}}"#,
        r#"{"when": {"ready": {}}, "do": {"swap": {}}}"#,
        r#"{"when": {"archive-data": {"at": "1B"}}, "do": {"swap": {}}}"#,
        r#"{"when": {"copy-done": {}}, "do": {"change-row": {"column": "x"}}}"#,
        r#"{"when": {"end-position": {}}, "do": {"change-row": {"column": "x"}}}"#,
        r#"{"when": {"end-position": {}}, "do": {"change-row": {"column": "tli", "row": 0}}}"#,
        r#"{"when": {"ready": {}}, "do": {"change-parameter": {"name": "x", "to": "y"}}}"#,
        r#"{"when": {"member": {"path": "PG_VERSION"}}, "do": {"change-control": {"system-identifier": 1}}}"#,
        r#"{"when": {"member": {"path": "x", "at": "1B"}}, "do": {"rewrite-member": {"content": "x"}}}"#,
        r#"{"when": {"member": {"path": "x"}}, "do": {"write-header": {"field": "typeflag", "hex": "3030"}}}"#,
        r#"{"when": {"member": {"path": "x"}}, "do": {"remode-member": {"to": "rwx"}}}"#,
        r#"{"when": {"archive-end": {}}, "do": {"extra-member": {"name": "x", "kind": "fifo", "content": "x"}}}"#,
        r#"{"when": {"ready": {"at": "1s"}}, "do": {"close": {}}}"#,
        r#"{"when": {"clock": {"at": "1s"}}, "do": {"fill-disk": {}}}"#,
        r#"{"when": {"client-end": {}}, "do": {"promote": {}}}"#,
        r##"{"when": {"client-end": {"client": "#1"}}, "do": {"promote": {}}}"##,
        r#"{"when": {"client-end": {"client": "x"}}, "do": {"error": {"sqlstate": "58030", "message": "x"}}}"#,
        r##"{"when": {"ready": {}}, "do": {"kill-client": {"client": "#1", "signal": "SIGINT"}}}"##,
        r#"{"when": {"ready": {}}, "do": {"kill-client": {"signal": "SIGTRM"}}}"#,
    ]
    .iter()
    .map(|fault| refusal(fault))
    .collect();
    insta::assert_snapshot!(refusals.join("\n"), @r##"
    rename-member cannot strike at wal-data: it needs a member's header: member without at
    drop cannot strike at clock: it needs a message of its own
    delay cannot strike at clock: it needs a session of its own
    garble cannot strike at ready: it needs a byte: archive-data, member with at, manifest-data or wal-data
    drop cannot strike at member: it needs a message: use omit-member
    truncate cannot strike at archive-begin: it needs "to"
    truncate cannot strike at archive-data: it needs no "to": the point says where the archive ends
    client "backup" cannot be known at connect: use a connection's number, such as "#2"
    client "#x" is no connection's number: expected "#1" or higher
    nth of ready counts from 1
    invalid WAL file name "x": expected 24 upper-case hexadecimal digits such as "000000010000000000000003"
    a link needs a target
    swap cannot strike at ready: it needs a message that another follows: use message for one with data
    swap cannot strike at archive-data: it needs a message that another follows: use message for one with data
    change-row cannot strike at copy-done: it needs a result set: command, start-position, tablespace-list or end-position
    end-position has no column "x": its columns are recptr, tli
    row of change-row counts from 1
    change-parameter cannot strike at ready: it needs connect or startup, before the settings are reported
    change-control cannot strike at member: it needs the member global/pg_control, without at
    rewrite-member cannot strike at member: it needs a member's header: member without at
    hex of write-header has more than the 1 bytes of the field
    invalid mode "rwx": expected up to 7 octal digits such as "4777" at line 1 column 73
    only a file has content
    unknown field `at`, expected `client` or `nth` at line 1 column 24
    fill-disk cannot strike at clock: it needs "client": no connection comes to this point
    client-end needs "client": whose end
    client "#1" of client-end is a connection: it needs a client's name
    error cannot strike at client-end: it needs a session of its own
    client "#1" is a connection: kill-client needs a client's name
    unknown variant `SIGTRM`, expected one of `SIGHUP`, `SIGINT`, `SIGTERM`, `SIGKILL`, `SIGSTOP`, `SIGCONT` at line 1 column 65
    "##);
}
