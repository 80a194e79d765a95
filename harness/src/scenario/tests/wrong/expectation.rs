//! `[expect]`.

use super::super::*;

#[test]
fn an_expectation_has_no_client() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "first"

[expect.firts]
must.outcome = "failure"
"#)), @r#"
     × there is no client "firts"
      ╭─[scenarios/area/name.toml:6:9]
    5 │ 
    6 │ [expect.firts]
      ·         ─────
    7 │ must.outcome = "failure"
      ╰────
     help: did you mean "first"?
    "#);
}

#[test]
fn an_outcome_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[expect.backup]
must.outcome = "fails"
"#)), @r#"
     × unknown value "fails" of expect.backup.must.outcome
      ╭─[scenarios/area/name.toml:4:16]
    3 │ [expect.backup]
    4 │ must.outcome = "fails"
      ·                ───────
      ╰────
     help: valid values: success, failure, timeout, killed
    "#);
}

#[test]
fn a_claim_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[expect.backup]
must.sqlsate = "58P01"
"#)), @r#"
     × unknown key "sqlsate"
      ╭─[scenarios/area/name.toml:4:6]
    3 │ [expect.backup]
    4 │ must.sqlsate = "58P01"
      ·      ───────
      ╰────
     help: did you mean "sqlstate"?
    "#);
}

#[test]
fn a_claim_contradicts_the_law() {
    insta::assert_snapshot!(refusal(&with_head(r#"[expect.backup]
must.outcome = "success"
must.leaves = "nothing"
"#)), @r#"
     × a success that leaves no backup is never right
      ╭─[scenarios/area/name.toml:5:15]
    4 │ must.outcome = "success"
    5 │ must.leaves = "nothing"
      ·               ─────────
      ╰────
    "#);
}

#[test]
fn a_sqlstate_is_none() {
    insta::assert_snapshot!(refusal(&with_head(r#"[expect.backup]
should.sqlstate = "58p01"
"#)), @r#"
     × invalid SQLSTATE "58p01": expected five digits or upper-case letters such as "58P01"
      ╭─[scenarios/area/name.toml:4:19]
    3 │ [expect.backup]
    4 │ should.sqlstate = "58p01"
      ·                   ───────
      ╰────
    "#);
}

#[test]
fn nobody_is_killed() {
    insta::assert_snapshot!(refusal(&with_head(r#"[expect.backup]
must.outcome = "killed"
"#)), @r#"
     × no fault kills "backup": outcome "killed" goes with do.kill-client
      ╭─[scenarios/area/name.toml:4:16]
    3 │ [expect.backup]
    4 │ must.outcome = "killed"
      ·                ────────
      ╰────
    "#);
}
