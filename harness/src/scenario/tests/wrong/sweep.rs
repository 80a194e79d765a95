//! `when.every`.

use super::super::*;

#[test]
fn a_sweep_has_a_wrong_unit() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "messages" }
do.close = {}
"#)), @r#"
     × unknown value "messages" of fault.when.every.unit
      ╭─[scenarios/area/name.toml:4:23]
    3 │ [[fault]]
    4 │ when.every = { unit = "messages" }
      ·                       ──────────
    5 │ do.close = {}
      ╰────
     help: did you mean "message"?
    "#);
}

#[test]
fn a_sweep_cannot_stand_still() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "message", step = 0 }
do.close = {}
"#)), @r#"
     × step must be at least 1
      ╭─[scenarios/area/name.toml:4:41]
    3 │ [[fault]]
    4 │ when.every = { unit = "message", step = 0 }
      ·                                         ─
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_bytes_belongs_to_nothing() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "byte", step = "64KiB" }
do.close = {}
"#)), @r#"
     × a sweep over bytes needs archive = "base.tar", archive = "backup_manifest" or client = "wal"
      ╭─[scenarios/area/name.toml:4:23]
    3 │ [[fault]]
    4 │ when.every = { unit = "byte", step = "64KiB" }
      ·                       ──────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_bytes_has_no_step() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "byte", archive = "base.tar" }
do.close = {}
"#)), @r#"
     × a sweep over bytes needs a step such as "64KiB"
      ╭─[scenarios/area/name.toml:4:23]
    3 │ [[fault]]
    4 │ when.every = { unit = "byte", archive = "base.tar" }
      ·                       ──────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_bytes_counts_in_numbers() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "byte", archive = "base.tar", step = 65536 }
do.close = {}
"#)), @r#"
     × step of a sweep over bytes is a size such as "64KiB"
      ╭─[scenarios/area/name.toml:4:60]
    3 │ [[fault]]
    4 │ when.every = { unit = "byte", archive = "base.tar", step = 65536 }
      ·                                                            ─────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_bytes_stands_still() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "byte", client = "wal", step = "0B" }
do.close = {}
"#)), @r#"
     × step must be at least 1B
      ╭─[scenarios/area/name.toml:4:54]
    3 │ [[fault]]
    4 │ when.every = { unit = "byte", client = "wal", step = "0B" }
      ·                                                      ────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_members_counts_in_bytes() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "member", step = "64KiB" }
do.close = {}
"#)), @r#"
     × step of a sweep over units of "member" is a number
      ╭─[scenarios/area/name.toml:4:40]
    3 │ [[fault]]
    4 │ when.every = { unit = "member", step = "64KiB" }
      ·                                        ───────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_looks_for_members_in_wal() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "member", client = "wal" }
do.close = {}
"#)), @r#"
     × the connection that streams WAL carries no members
      ╭─[scenarios/area/name.toml:4:42]
    3 │ [[fault]]
    4 │ when.every = { unit = "member", client = "wal" }
      ·                                          ─────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_commands_calls_a_connection_by_what_it_becomes() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "command", client = "wal" }
do.close = {}
"#)), @r##"
     × a connection streams WAL only after some of its commands: call it by its number, "#2"
      ╭─[scenarios/area/name.toml:4:43]
    3 │ [[fault]]
    4 │ when.every = { unit = "command", client = "wal" }
      ·                                           ─────
    5 │ do.close = {}
      ╰────
    "##);
}

#[test]
fn a_sweep_over_members_names_an_archive() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "member", archive = "base.tar" }
do.close = {}
"#)), @r#"
     × a sweep over units of "member" goes through all archives
      ╭─[scenarios/area/name.toml:4:43]
    3 │ [[fault]]
    4 │ when.every = { unit = "member", archive = "base.tar" }
      ·                                           ──────────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_ends_before_it_begins() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "member", before = 1 }
do.close = {}
"#)), @r#"
     × before must be at least 2: units are counted from 1
      ╭─[scenarios/area/name.toml:4:42]
    3 │ [[fault]]
    4 │ when.every = { unit = "member", before = 1 }
      ·                                          ─
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_has_steps_of_no_kind() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "member", step = true }
do.close = {}
"#)), @r#"
     × invalid type of fault.when.every.step: boolean `true`, expected a number, or a size such as "64KiB"
      ╭─[scenarios/area/name.toml:4:40]
    3 │ [[fault]]
    4 │ when.every = { unit = "member", step = true }
      ·                                        ────
    5 │ do.close = {}
      ╰────
    "#);
}

#[test]
fn a_sweep_over_wal_has_a_data_directory() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
source = { directory = "/srv/data" }
[[fault]]
when.every = { unit = "byte", client = "wal", step = "64KiB" }
do.close = {}
"#)), @r#"
     × a sweep over bytes of WAL needs a synthetic cluster: a data directory begins its WAL anywhere
      ╭─[scenarios/area/name.toml:4:10]
    3 │ [cluster]
    4 │ source = { directory = "/srv/data" }
      ·          ───────────────────────────
    5 │ [[fault]]
      ╰────
    "#);
}

#[test]
fn a_sweep_has_an_impossible_action() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[fault]]
when.every = { unit = "message" }
do.garble = {}
"#)), @r#"
     × garble cannot strike at message: it needs a byte: archive-data, member with at, manifest-data or wal-data
      ╭─[scenarios/area/name.toml:5:4]
    4 │ when.every = { unit = "message" }
    5 │ do.garble = {}
      ·    ──────
      ╰────
    "#);
}
