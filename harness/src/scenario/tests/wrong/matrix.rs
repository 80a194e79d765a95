//! `[matrix]`.

use super::super::*;

#[test]
fn a_matrix_has_a_wrong_value() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
server.version = ["14", "15.1"]
"#)), @r#"
     × server.version: unknown PostgreSQL version "15.1": expected one of 9.1 to 9.6, or 10 to 18
      ╭─[scenarios/area/name.toml:4:25]
    3 │ [matrix]
    4 │ server.version = ["14", "15.1"]
      ·                         ──────
      ╰────
     help: this is the combination server.version=15.1
    "#);
}

#[test]
fn a_matrix_has_a_wrong_key() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
client.forma = ["plain"]
"#)), @r#"
     × unknown key "forma"
      ╭─[scenarios/area/name.toml:4:8]
    3 │ [matrix]
    4 │ client.forma = ["plain"]
      ·        ─────
      ╰────
     help: did you mean "format"?
    "#);
}

#[test]
fn a_matrix_has_an_impossible_combination() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
server.version = ["12", "13"]

[[client]]
name = "backup"
manifest = "crc32c"
"#)), @r#"
     × PostgreSQL 12 has no backup manifests
      ╭─[scenarios/area/name.toml:8:12]
    7 │ name = "backup"
    8 │ manifest = "crc32c"
      ·            ────────
      ╰────
     help: this is the combination server.version=12
    "#);
}

#[test]
fn a_matrix_has_no_list() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
server.version = "14"
"#)), @r#"
     × matrix.server.version must be a list
      ╭─[scenarios/area/name.toml:4:18]
    3 │ [matrix]
    4 │ server.version = "14"
      ·                  ────
      ╰────
     help: a key with one value belongs into its own table
    "#);
}

#[test]
fn a_matrix_has_a_value_twice() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
server.version = ["14", "14"]
"#)), @r#"
     × matrix.server.version lists 14 twice
      ╭─[scenarios/area/name.toml:4:25]
    3 │ [matrix]
    4 │ server.version = ["14", "14"]
      ·                         ────
      ╰────
    "#);
}

#[test]
fn a_matrix_repeats_a_key() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
server.version = ["14", "15"]

[server]
version = "14"
"#)), @r#"
     × server.version has a value here and a list in matrix
      ╭─[scenarios/area/name.toml:7:1]
    6 │ [server]
    7 │ version = "14"
      · ───────
      ╰────
     help: leave one of them out
    "#);
}

#[test]
fn a_matrix_names_a_fault_that_is_not_there() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
fault.when = ["x"]
"#)), @r#"
     × matrix.fault.when is a key of no fault
      ╭─[scenarios/area/name.toml:4:7]
    3 │ [matrix]
    4 │ fault.when = ["x"]
      ·       ────
      ╰────
     help: write the point or action without the key, as in: do.chop = {}
    "#);
}

#[test]
fn a_matrix_sets_a_key_of_no_fault() {
    insta::assert_snapshot!(refusal(&with_head(r#"[matrix]
fault.do.chop.into = ["1B"]
[[fault]]
when.wal-begin = {}
do.close = {}
"#)), @r#"
     × matrix.fault.do.chop.into is a key of no fault
      ╭─[scenarios/area/name.toml:4:15]
    3 │ [matrix]
    4 │ fault.do.chop.into = ["1B"]
      ·               ────
    5 │ [[fault]]
      ╰────
     help: write the point or action without the key, as in: do.chop = {}
    "#);
}
