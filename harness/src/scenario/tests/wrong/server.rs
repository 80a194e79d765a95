//! `[server]` and `[cluster]`.

use super::super::*;

#[test]
fn a_server_key_is_misspelt() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
verison = "15"
"#)), @r#"
     × unknown key "verison"
      ╭─[scenarios/area/name.toml:4:1]
    3 │ [server]
    4 │ verison = "15"
      · ───────
      ╰────
     help: did you mean "version"?
    "#);
}

#[test]
fn a_version_is_unknown() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
version = "19"
"#)), @r#"
     × server.version: unknown PostgreSQL version "19": expected one of 9.1 to 9.6, or 10 to 18
      ╭─[scenarios/area/name.toml:4:11]
    3 │ [server]
    4 │ version = "19"
      ·           ────
      ╰────
    "#);
}

#[test]
fn a_version_is_a_number() {
    insta::assert_snapshot!(refusal(&with_head(r"[server]
version = 15
")), @r#"
     × invalid type of server.version: integer `15`, expected a string
      ╭─[scenarios/area/name.toml:4:11]
    3 │ [server]
    4 │ version = 15
      ·           ──
      ╰────
     help: put it in quotes; sizes, rates and times need a unit, as in "8MiB"
    "#);
}

#[test]
fn a_size_has_the_wrong_unit() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
size = "64MB"
"#)), @r#"
     × cluster.size: invalid size "64MB": expected a whole number of B, KiB, MiB, GiB or TiB such as "8MiB"
      ╭─[scenarios/area/name.toml:4:8]
    3 │ [cluster]
    4 │ size = "64MB"
      ·        ──────
      ╰────
    "#);
}

#[test]
fn a_rate_has_no_unit() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
wal-rate = "16MiB"
"#)), @r#"
     × cluster.wal-rate: invalid rate "16MiB": expected a size for each second such as "256KiB/s", or "0"
      ╭─[scenarios/area/name.toml:4:12]
    3 │ [cluster]
    4 │ wal-rate = "16MiB"
      ·            ───────
      ╰────
    "#);
}

#[test]
fn a_size_is_a_number() {
    insta::assert_snapshot!(refusal(&with_head(r"[cluster]
size = 64
")), @r#"
     × invalid type of cluster.size: integer `64`, expected a string
      ╭─[scenarios/area/name.toml:4:8]
    3 │ [cluster]
    4 │ size = 64
      ·        ──
      ╰────
     help: put it in quotes; sizes, rates and times need a unit, as in "8MiB"
    "#);
}

#[test]
fn a_position_is_no_lsn() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
wal-start = "2000028"
"#)), @r#"
     × cluster.wal-start: invalid WAL position "2000028": expected two hexadecimal numbers such as "0/3000028"
      ╭─[scenarios/area/name.toml:4:13]
    3 │ [cluster]
    4 │ wal-start = "2000028"
      ·             ─────────
      ╰────
    "#);
}

#[test]
fn wal_starts_where_no_record_can() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
wal-start = "0/2000029"
"#)), @r#"
     × no WAL record starts at 0/2000029: positions of records divide by 8
      ╭─[scenarios/area/name.toml:4:13]
    3 │ [cluster]
    4 │ wal-start = "0/2000029"
      ·             ───────────
      ╰────
    "#);
}

#[test]
fn wal_starts_before_the_first_segment() {
    insta::assert_snapshot!(refusal(&with_head(r#"[cluster]
wal-start = "0/28"
"#)), @r#"
     × WAL cannot start at 0/28: the first segment begins at 0/1000000
      ╭─[scenarios/area/name.toml:4:13]
    3 │ [cluster]
    4 │ wal-start = "0/28"
      ·             ──────
      ╰────
    "#);
}

#[test]
fn a_segment_size_is_no_power_of_two() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
wal-segment-size = "24MiB"
"#)), @r#"
     × wal-segment-size must be a power of two from "1MiB" to "1GiB"
      ╭─[scenarios/area/name.toml:4:20]
    3 │ [server]
    4 │ wal-segment-size = "24MiB"
      ·                    ───────
      ╰────
    "#);
}

#[test]
fn a_release_has_one_segment_size() {
    insta::assert_snapshot!(refusal(&with_head(r#"[server]
version = "10"
wal-segment-size = "64MiB"
"#)), @r#"
     × PostgreSQL 10 has WAL segments of 16MiB only
      ╭─[scenarios/area/name.toml:5:20]
    4 │ version = "10"
    5 │ wal-segment-size = "64MiB"
      ·                    ───────
      ╰────
    "#);
}

#[test]
fn a_tablespace_is_reserved() {
    insta::assert_snapshot!(refusal(&with_head(r#"[[cluster.tablespace]]
oid = 1663
location = "/t"
"#)), @r#"
     × oid must be at least 16384: 1663 is reserved
      ╭─[scenarios/area/name.toml:4:7]
    3 │ [[cluster.tablespace]]
    4 │ oid = 1663
      ·       ────
    5 │ location = "/t"
      ╰────
    "#);
}

#[test]
fn a_tablespace_lacks_a_key() {
    insta::assert_snapshot!(refusal(&with_head(r"[[cluster.tablespace]]
oid = 16400
")), @r#"
     × missing key "location" in cluster.tablespace
      ╭─[scenarios/area/name.toml:3:1]
    2 │ because = "b"
    3 │ [[cluster.tablespace]]
      · ──────────────────────
    4 │ oid = 16400
      ╰────
    "#);
}

#[test]
fn what_a_cassette_says_cannot_be_said_again() {
    let replay = "[server]\nreplay = \"a.cassette\"\n";
    for (more, problem) in [
        ("version = \"15\"\n", "server.version is a fact of the cassette that server.replay names"),
        ("auth = \"md5\"\n", "server.auth is a fact of the cassette"),
        ("[cluster]\nsize = \"1MiB\"\n", "cluster is a fact of the cassette"),
        ("[[fault]]\nwhen.end-position = {}\ndo.close = {}\n", "faults do not strike in what a cassette plays"),
    ] {
        let said = refusal(&with_head(&format!("{replay}{more}")));
        assert!(said.contains(problem), "{said}");
    }
    let said = refusal(&with_head("[server]\nreplay = \"\"\n"));
    assert!(said.contains("replay is empty"), "{said}");
}
