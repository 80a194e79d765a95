//! `[[fault]]`.

use super::super::*;

#[test]
fn a_point_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.wal-dta = { lsn = "0/5000000" }
do.close = {}
"#)), @r#"
     × unknown point "wal-dta"
      ╭─[scenarios/area/name.toml:4:6]
    3 │ [[fault]]
    4 │ when.wal-dta = { lsn = "0/5000000" }
      ·      ───────
    5 │ do.close = {}
      ╰────
     help: did you mean "wal-data"?
    "#);
}

#[test]
fn a_key_of_a_point_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.member = { path = "base/1/1", att = "50%" }
do.close = {}
"#)), @r#"
     × unknown key "att"
      ╭─[scenarios/area/name.toml:4:36]
    3 │ [[fault]]
    4 │ when.member = { path = "base/1/1", att = "50%" }
      ·                                    ───
    5 │ do.close = {}
      ╰────
     help: did you mean "at"?
    "#);
}

#[test]
fn an_action_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r"[[fault]]
when.copy-done = {}
do.closse = {}
")), @r#"
     × unknown action "closse"
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.copy-done = {}
    5 │ do.closse = {}
      ·    ──────
      ╰────
     help: did you mean "close"?
    "#);
}

#[test]
fn a_fault_has_two_points() {
    insta::assert_snapshot!(refusal(&with_head(r"[[fault]]
when.copy-done = {}
when.ready = {}
do.close = {}
")), @r"
     × fault.when needs exactly one point
      ╭─[scenarios/area/name.toml:4:1]
    3 │ [[fault]]
    4 │ when.copy-done = {}
      · ────
    5 │ when.ready = {}
      ╰────
     help: as in: when.copy-done = {}
    ");
}

#[test]
fn a_fault_has_no_action() {
    insta::assert_snapshot!(refusal(&with_head(r"[[fault]]
when.copy-done = {}
")), @r#"
     × missing key "do" in fault
      ╭─[scenarios/area/name.toml:3:1]
    2 │ because = "b"
    3 │ [[fault]]
      · ─────────
    4 │ when.copy-done = {}
      ╰────
    "#);
}

#[test]
fn an_action_has_nothing_to_act_on() {
    insta::assert_snapshot!(refusal(&with_head(r"[[fault]]
when.copy-done = {}
do.garble = { bits = 3 }
")), @r"
     × garble cannot strike at copy-done: it needs a byte: archive-data, member with at, manifest-data or wal-data
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.copy-done = {}
    5 │ do.garble = { bits = 3 }
      ·    ──────
      ╰────
    ");
}

#[test]
fn a_fault_names_a_client_that_is_not_there() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"

[[fault]]
when.copy-done = { client = "frist" }
do.close = {}
"#)), @r#"
     × there is no client "frist"
      ╭─[scenarios/area/name.toml:7:29]
    6 │ [[fault]]
    7 │ when.copy-done = { client = "frist" }
      ·                             ───────
    8 │ do.close = {}
      ╰────
     help: did you mean "first"?
    "#);
}

#[test]
fn a_segment_name_is_wrong() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.copy-done = {}
do.recycle-wal = { through = "000000010000000000000G05" }
"#)), @r#"
     × invalid WAL file name "000000010000000000000G05": expected 24 upper-case hexadecimal digits such as "000000010000000000000003"
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.copy-done = {}
    5 │ do.recycle-wal = { through = "000000010000000000000G05" }
      ·    ───────────
      ╰────
    "#);
}

#[test]
fn a_signal_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.copy-done = {}
do.kill-client = { signal = "SIGTREM" }
"#)), @r#"
     × unknown value "SIGTREM" of fault.do.kill-client.signal
      ╭─[scenarios/area/name.toml:5:29]
    4 │ when.copy-done = {}
    5 │ do.kill-client = { signal = "SIGTREM" }
      ·                             ─────────
      ╰────
     help: did you mean "SIGTERM"?
    "#);
}

#[test]
fn a_fault_strikes_the_machine_of_nobody() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.copy-done = {}
do.fill-disk = { client = "bakcup" }
"#)), @r#"
     × there is no client "bakcup"
      ╭─[scenarios/area/name.toml:5:27]
    4 │ when.copy-done = {}
    5 │ do.fill-disk = { client = "bakcup" }
      ·                           ────────
      ╰────
     help: did you mean "backup"?
    "#);
}

#[test]
fn the_clock_strikes_no_machine_by_itself() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.clock = { at = "1s" }
do.fail-fsync = {}
"#)), @r#"
     × fail-fsync cannot strike at clock: it needs "client": no connection comes to this point
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.clock = { at = "1s" }
    5 │ do.fail-fsync = {}
      ·    ──────────
      ╰────
    "#);
}

#[test]
fn a_file_appears_outside_of_the_data_directory() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.copy-done = {}
do.add-file = { path = "../x" }
"#)), @r#"
     × "../x" is no path in the data directory
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.copy-done = {}
    5 │ do.add-file = { path = "../x" }
      ·    ────────
      ╰────
    "#);
}
