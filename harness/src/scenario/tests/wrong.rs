//! One test for each way to get a scenario wrong: the message, its line and column, and what it suggests.

use super::*;

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
