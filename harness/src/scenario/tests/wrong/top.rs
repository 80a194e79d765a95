//! Keys at the top, and the syntax.

use super::super::*;

#[test]
fn a_key_at_the_top_is_misspelt() {
    insta::assert_snapshot!(refusal(r#"sumary = "s"
because = "b"
"#), @r#"
     × unknown key "sumary"
      ╭─[scenarios/area/name.toml:1:1]
    1 │ sumary = "s"
      · ──────
    2 │ because = "b"
      ╰────
     help: did you mean "summary"?
    "#);
}

#[test]
fn a_key_is_missing() {
    insta::assert_snapshot!(refusal(r#"summary = "s"

[server]
version = "15"
"#), @r#"
     × missing key "because"
      ╭─[scenarios/area/name.toml:1:1]
    1 │ summary = "s"
      · ▲
    2 │ 
      ╰────
    "#);
}

#[test]
fn a_table_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[clients]]
name = "a"
"#)), @r#"
     × unknown key "clients"
      ╭─[scenarios/area/name.toml:3:3]
    2 │ because = "b"
    3 │ [[clients]]
      ·   ───────
    4 │ name = "a"
      ╰────
     help: did you mean "client"?
    "#);
}

#[test]
fn the_syntax_is_wrong() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server
version = "15"
"#)), @r#"
     × invalid TOML: unclosed table, expected `]`
      ╭─[scenarios/area/name.toml:3:8]
    2 │ because = "b"
    3 │ [server
      ·        ▲
    4 │ version = "15"
      ╰────
    "#);
}

#[test]
fn a_string_does_not_end() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
version = "15
"#)), @r#"
     × invalid TOML: invalid basic string, expected `"`
      ╭─[scenarios/area/name.toml:4:14]
    3 │ [server]
    4 │ version = "15
      ·              ▲
      ╰────
    "#);
}
