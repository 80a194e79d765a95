//! Ways to get an archive of WAL wrong.

use super::*;

/// The message about a client with these keys.
fn about(keys: &str) -> String {
    let text = refusal(&with_head(&format!("[[client]]\n{keys}\n")));
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[test]
fn keys_of_an_archive_go_with_receivewal() {
    let keys =
        ["has = [{ name = \"00000002.history\" }]", "synchronous = true", "reconnects = true", "endpos = \"0/1\""];
    insta::assert_snapshot!(keys.map(about).join("\n"), @r#"
    × client.has goes with tool = "receivewal" only
    × client.synchronous goes with tool = "receivewal" only
    × client.reconnects goes with tool = "receivewal" only
    × client.endpos goes with tool = "receivewal" only
    "#);
}

#[test]
fn files_of_an_archive_are_called_as_what_they_are() {
    let named = |names: &str| about(&format!("tool = \"receivewal\"\nhas = [{names}]"));
    let names = [
        r#"{ name = "backup_label" }"#,
        r#"{ name = "000000010000000000000003.bz2" }"#,
        r#"{ name = "00000001.history" }"#,
        r#"{ name = "00000002.history" }, { name = "00000002.history" }"#,
        r#"{ nam = "00000002.history" }"#,
    ];
    insta::assert_snapshot!(names.map(named).join("\n"), @r#"
    × invalid name "backup_label" of an archived file: expected one such as "000000010000000000000003.gz" or "00000002.history"
    × invalid name "000000010000000000000003.bz2" of an archived file: expected one such as "000000010000000000000003.gz" or "00000002.history"
    × invalid name "00000001.history" of an archived file: expected one such as "000000010000000000000003.gz" or "00000002.history"
    × there are two files "00000002.history"
    × unknown key "nam"
    "#);
}

#[test]
fn receivers_create_no_slots_and_backups_hold_no_segments() {
    insta::assert_snapshot!(about("tool = \"receivewal\"\nslot = { create = \"s\" }"), @r#"× receivewal creates slots in runs of their own, without receiving anything"#);
    let claim = "[expect.backup]\nmust.holds = []\n";
    insta::assert_snapshot!(refusal(&with_head(claim)).lines().next().unwrap_or_default(), @r#"  × holds is said of the archive of receivewal only"#);
}
