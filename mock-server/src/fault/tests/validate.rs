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
        r#"{"when": {"ready": {"at": "1s"}}, "do": {"close": {}}}"#,
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
    unknown field `at`, expected `client` or `nth` at line 1 column 24
    "##);
}
