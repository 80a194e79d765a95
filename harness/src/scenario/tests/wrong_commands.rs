//! Ways to get a client wrong that sends given commands.

use super::*;

#[test]
fn commands_are_given_to_another_tool() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "a"
commands = ["IDENTIFY_SYSTEM"]
"#)), @r#"
     × client.commands goes with tool = "commands" only
      ╭─[scenarios/area/name.toml:5:1]
    4 │ name = "a"
    5 │ commands = ["IDENTIFY_SYSTEM"]
      · ────────
      ╰────
    "#);
}

#[test]
fn there_is_nothing_to_send() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "a"
tool = "commands"
"#)), @r#"
     × tool = "commands" needs commands to send
      ╭─[scenarios/area/name.toml:5:8]
    4 │ name = "a"
    5 │ tool = "commands"
      ·        ──────────
      ╰────
    "#);
}

#[test]
fn commands_are_stored_nowhere() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[client]]
name = "a"
tool = "commands"
commands = ["IDENTIFY_SYSTEM"]
format = "tar"
"#)), @r#"
     × client.format does not go with tool = "commands"
      ╭─[scenarios/area/name.toml:7:1]
    6 │ commands = ["IDENTIFY_SYSTEM"]
    7 │ format = "tar"
      · ──────
      ╰────
    "#);
}
