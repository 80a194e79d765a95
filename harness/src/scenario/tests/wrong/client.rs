//! `[[client]]`.

use super::super::*;

#[test]
fn a_value_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
wal = "streaming"
"#)), @r#"
     × unknown value "streaming" of client.wal
      ╭─[scenarios/area/name.toml:5:7]
    4 │ name = "backup"
    5 │ wal = "streaming"
      ·       ───────────
      ╰────
     help: did you mean "stream"?
    "#);
}

#[test]
fn a_client_is_there_twice() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "a"

[[client]]
name = "a"
"#)), @r#"
     × there are two clients called "a"
      ╭─[scenarios/area/name.toml:7:8]
    6 │ [[client]]
    7 │ name = "a"
      ·        ───
      ╰────
    "#);
}

#[test]
fn a_slot_needs_streaming() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
wal = "none"
slot = "temporary"
"#)), @r#"
     × a replication slot needs wal = "stream": nothing else streams WAL
      ╭─[scenarios/area/name.toml:6:8]
    5 │ wal = "none"
    6 │ slot = "temporary"
      ·        ───────────
      ╰────
    "#);
}

#[test]
fn a_release_has_no_manifest() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
version = "12"

[[client]]
name = "backup"
manifest = "sha256"
"#)), @r#"
     × PostgreSQL 12 has no backup manifests
      ╭─[scenarios/area/name.toml:8:12]
    7 │ name = "backup"
    8 │ manifest = "sha256"
      ·            ────────
      ╰────
    "#);
}

#[test]
fn an_incremental_backup_has_no_base() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "full"

[[client]]
name = "next"
incremental-from = "ful"
"#)), @r#"
     × there is no client "ful" before this one
      ╭─[scenarios/area/name.toml:8:20]
    7 │ name = "next"
    8 │ incremental-from = "ful"
      ·                    ─────
      ╰────
     help: did you mean "full"?
    "#);
}

#[test]
fn a_target_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
target = "emtpy"
"#)), @r#"
     × unknown value "emtpy" of client.target
      ╭─[scenarios/area/name.toml:4:10]
    3 │ [[client]]
    4 │ target = "emtpy"
      ·          ───────
      ╰────
     help: did you mean "empty"?
    "#);
}

#[test]
fn a_client_shares_the_target_of_nobody() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"

[[client]]
name = "second"
target = { same-as = "frist" }
"#)), @r#"
     × there is no client "frist" before this one
      ╭─[scenarios/area/name.toml:8:22]
    7 │ name = "second"
    8 │ target = { same-as = "frist" }
      ·                      ───────
      ╰────
     help: did you mean "first"?
    "#);
}

#[test]
fn a_start_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"

[[client]]
name = "second"
starts.client-ends = { client = "first" }
"#)), @r#"
     × unknown point "client-ends"
      ╭─[scenarios/area/name.toml:8:8]
    7 │ name = "second"
    8 │ starts.client-ends = { client = "first" }
      ·        ───────────
      ╰────
     help: did you mean "client-end"?
    "#);
}

#[test]
fn a_client_waits_for_itself() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"
starts.client-end = { client = "first" }
"#)), @r#"
     × a client cannot wait for itself
      ╭─[scenarios/area/name.toml:5:32]
    4 │ name = "first"
    5 │ starts.client-end = { client = "first" }
      ·                                ───────
      ╰────
    "#);
}

#[test]
fn a_client_starts_at_the_end_of_nobody() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"

[[client]]
name = "second"
starts.client-end = {}
"#)), @r#"
     × client-end needs "client": whose end
      ╭─[scenarios/area/name.toml:8:21]
    7 │ name = "second"
    8 │ starts.client-end = {}
      ·                     ──
      ╰────
    "#);
}

#[test]
fn a_parallel_backup_streams_wal() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
tool = "parallel"
wal = "stream"
"#)), @r#"
     × a parallel backup streams no WAL: wal is "fetch" or "none"
      ╭─[scenarios/area/name.toml:6:7]
    5 │ tool = "parallel"
    6 │ wal = "stream"
      ·       ────────
      ╰────
    "#);
}

#[test]
fn a_parallel_backup_has_a_format() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
tool = "parallel"
format = "tar"
"#)), @r#"
     × client.format goes with tool = "basebackup" only
      ╭─[scenarios/area/name.toml:6:1]
    5 │ tool = "parallel"
    6 │ format = "tar"
      · ──────
      ╰────
    "#);
}

#[test]
fn a_parallel_backup_has_too_many_jobs() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
tool = "parallel"
jobs = 129
"#)), @r#"
     × jobs must be from 1 to 128
      ╭─[scenarios/area/name.toml:6:8]
    5 │ tool = "parallel"
    6 │ jobs = 129
      ·        ───
      ╰────
    "#);
}

#[test]
fn one_stream_has_jobs() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "backup"
jobs = 2
"#)), @r#"
     × jobs goes with tool = "parallel" only
      ╭─[scenarios/area/name.toml:5:1]
    4 │ name = "backup"
    5 │ jobs = 2
      · ────
      ╰────
    "#);
}

#[test]
fn a_parallel_backup_builds_on_an_archive_of_wal() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "archive"
tool = "receivewal"

[[client]]
name = "monday"
tool = "parallel"
incremental-from = "archive"
"#)), @r#"
     × client "archive" makes no backup that a backup could be based on
       ╭─[scenarios/area/name.toml:10:20]
     9 │ tool = "parallel"
    10 │ incremental-from = "archive"
       ·                    ─────────
       ╰────
    "#);
}
