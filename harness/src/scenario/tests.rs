//! What scenario files become, and what is said about wrong ones.

use std::path::PathBuf;

use backstop_mock::units::{ByteRate, ByteSize, Position};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use proptest::prelude::*;

use super::document::SourceFile;
use super::load::read;
use super::model::{Format, Leaves, Outcome, Slot, WalMethod};
use super::*;
use backstop_mock::fault::wire::{Chop, Close};

const RECYCLED: &str = r#"#:schema ../scenario.schema.json
summary = "A WAL segment is recycled before the streaming connection has read it"
because = "https://github.com/postgrespro/pg_probackup/issues/314"
tags    = ["wal", "recycling"]

[matrix]
server.version = ["14", "15", "17", "18"]

[cluster]
size      = "64MiB"
wal-start = "0/2000028"
wal-rate  = "16MiB/s"

[[client]]
name = "backup"
wal  = "stream"
slot = "none"                         # a slot would pin the segment

[[fault]]
when.wal-data  = { client = "backup", lsn = "0/5000000" }
do.recycle-wal = { through = "000000010000000000000005" }

[expect.backup]
must.outcome = "failure"
must.says    = "has already been removed"
must.leaves  = "nothing-restorable"

[expect.server]
must.sessions = 0
"#;

fn source(text: &str) -> SourceFile {
    SourceFile { path: PathBuf::from("scenarios/area/name.toml"), text: text.into() }
}

fn cases(text: &str) -> Vec<Case> {
    read("area/name", &source(text)).unwrap_or_else(|error| panic!("{}", error.draw(false)))
}

fn ids(text: &str) -> Vec<String> {
    cases(text).into_iter().map(|case| case.id).collect()
}

/// `text` below the two keys that every scenario needs.
fn with_head(text: &str) -> String {
    format!("summary = \"s\"\nbecause = \"b\"\n{text}")
}

/// What is said about the scenario, line and column included.
fn refusal(text: &str) -> String {
    match read("area/name", &source(text)) {
        Ok(_) => panic!("the scenario was accepted"),
        Err(error) => error.draw(false),
    }
}

#[test]
fn reads_a_whole_scenario() {
    let cases = cases(RECYCLED);
    assert_eq!(cases.len(), 4);
    let Case { id, scenario, combination, .. } = &cases[1];
    assert_eq!(id, "area/name[server.version=15]");
    assert_eq!(*combination, [("server.version".to_owned(), "15".to_owned())]);
    assert_eq!(scenario.server.version, ServerVersion::V15);
    assert_eq!(scenario.cluster.size, ByteSize(64 << 20));
    assert_eq!(scenario.cluster.wal_start, Some(Lsn(0x200_0028)));
    assert_eq!(scenario.cluster.wal_rate, ByteRate(16 << 20));
    let client = scenario.client("backup").expect("the client");
    assert_eq!((client.wal, client.format, client.slot.clone()), (WalMethod::Stream, Format::Plain, Some(Slot::None)));
    assert_eq!((scenario.faults[0].when.name(), scenario.faults[0].r#do.name()), ("wal-data", "recycle-wal"));
    let must = &scenario.expect.clients["backup"].must;
    assert_eq!((must.outcome, must.leaves), (Some(Outcome::Failure), Some(Leaves::NothingRestorable)));
    assert_eq!(scenario.expect.server.as_ref().and_then(|server| server.must.sessions), Some(0));
}

#[test]
fn the_shortest_scenario_has_two_lines() {
    let cases = cases(&with_head(""));
    assert_eq!(cases.len(), 1);
    let scenario = &cases[0].scenario;
    assert_eq!((cases[0].id.as_str(), scenario.clients.len()), ("area/name", 1));
    assert_eq!(scenario.server.version, ServerVersion::V18);
    assert_eq!(scenario.clients[0].slot_on(ServerVersion::V18), Slot::Temporary);
    assert_eq!(scenario.clients[0].slot_on(ServerVersion::V9_6), Slot::None);
}

#[test]
fn a_matrix_makes_every_combination_in_the_order_of_the_file() {
    let text = with_head("[matrix]\nserver.version = [\"9.6\", \"15\"]\nclient.format = [\"plain\", \"tar\"]\n");
    assert_eq!(
        ids(&text),
        [
            "area/name[server.version=9.6,client.format=plain]",
            "area/name[server.version=9.6,client.format=tar]",
            "area/name[server.version=15,client.format=plain]",
            "area/name[server.version=15,client.format=tar]",
        ]
    );
    let last = cases(&text).pop().expect("a case");
    assert_eq!((last.scenario.clients[0].name.as_str(), last.scenario.clients[0].format), ("backup", Format::Tar));
}

#[test]
fn a_matrix_sets_every_client() {
    let text = with_head(
        "[matrix]\nclient.slot = [{ create = \"s1\" }, \"none\"]\n[[client]]\nname = \"a\"\n[[client]]\nname = \"b\"\n",
    );
    assert_eq!(ids(&text), [r#"area/name[client.slot={ create = "s1" }]"#, "area/name[client.slot=none]"]);
    for client in &cases(&text)[0].scenario.clients {
        assert_eq!(client.slot, Some(Slot::Create("s1".to_owned())));
    }
}

#[test]
fn a_matrix_reaches_into_settings() {
    let text = with_head("[matrix]\nserver.settings.wal_keep_size = [\"0\", \"1GB\"]\n");
    assert_eq!(
        ids(&text),
        ["area/name[server.settings.wal_keep_size=0]", "area/name[server.settings.wal_keep_size=1GB]"]
    );
    assert_eq!(cases(&text)[1].scenario.server.settings["wal_keep_size"], "1GB");
}

#[test]
fn a_sweep_is_one_case_until_it_is_counted() {
    let cases = cases(&with_head("[[fault]]\nwhen.every = { unit = \"message\", step = 2 }\ndo.close = {}\n"));
    let case = &cases[0];
    assert!(sweep::is_sweep(&case.scenario));
    let step = case.at_step(137).expect("a step");
    assert_eq!((step.id.as_str(), step.step), ("area/name[137]", Some(137)));
    assert_eq!(step.scenario.faults[0].when, backstop_mock::fault::Point::Message { client: None, nth: 1, n: 137 });
    assert_eq!(step.at_step(1), None);
    assert_eq!(sweep::recording(case).scenario.faults, []);
}

#[test]
fn a_sweep_goes_over_members_and_bytes() {
    use backstop_mock::fault::Point;
    use backstop_mock::units::ByteSize;
    let point = |every: &str, step| {
        let fault =
            format!("[server]\nwal-segment-size = \"1MiB\"\n[[fault]]\nwhen.every = {every}\ndo.close = {{}}\n");
        let cases = cases(&with_head(&fault));
        let step = cases[0].at_step(step).expect("a step");
        step.scenario.faults[0].when.clone()
    };
    let (client, nth) = (None, 1);
    let path = "*".to_owned();
    assert_eq!(point(r#"{ unit = "member" }"#, 17), Point::Member { client: None, nth: 17, path, at: None });
    let archive = Some("base.tar".to_owned());
    let at = Position::Bytes(ByteSize(65536));
    let every = r#"{ unit = "byte", archive = "base.tar", step = "64KiB" }"#;
    assert_eq!(point(every, 65536), Point::ArchiveData { client: None, nth, archive, at });
    let every = r#"{ unit = "byte", archive = "backup_manifest", step = "1KiB" }"#;
    assert_eq!(point(every, 0), Point::ManifestData { client, nth, at: Position::Bytes(ByteSize(0)) });
    let (client, lsn) = (Some("wal".to_owned()), Lsn(0x20_0400));
    assert_eq!(point(r#"{ unit = "byte", client = "wal", step = "1KiB" }"#, 1024), Point::WalData { client, nth, lsn });
}

#[test]
fn a_matrix_reaches_into_faults() {
    let text = with_head(
        "[matrix]\nfault.do.chop.into = [\"1B\", \"8191B\"]\n[[fault]]\nwhen.wal-begin = {}\ndo.chop = {}\n\
         [[fault]]\nwhen.manifest-begin = {}\ndo.close = {}\n",
    );
    assert_eq!(ids(&text), ["area/name[fault.do.chop.into=1B]", "area/name[fault.do.chop.into=8191B]"]);
    let faults = &cases(&text)[1].scenario.faults;
    let into = backstop_mock::units::ByteSize(8191);
    assert_eq!(faults[0].r#do, backstop_mock::fault::Action::Chop(Chop { into }));
    assert_eq!(faults[1].r#do, backstop_mock::fault::Action::Close(Close {}));
}

#[test]
fn what_is_explained_can_be_read_again() {
    let text = with_head(
        "seed = 3\n[cluster]\nwal-start = \"0/3000000\"\n[[cluster.tablespace]]\noid = 16400\nlocation = \"/t\"\n\
         [server.settings]\nwal_keep_size = \"0\"\n\
         [[client]]\nslot = { create = \"s\" }\nmax-rate = \"32KiB/s\"\nstarts.start-position = {}\n",
    );
    for case in cases(RECYCLED).into_iter().chain(cases(&text)) {
        let explained = toml::to_string_pretty(&*case.scenario).expect("a printed scenario");
        assert_eq!(cases(&explained)[0].scenario, case.scenario, "{explained}");
    }
}

#[test]
fn points_keep_their_positions() {
    let text = "[[fault]]\nwhen.member = { path = \"base/5/1259\", at = \"50%\", nth = 2 }\ndo.close = {}\n";
    let fault = &cases(&with_head(text))[0].scenario.faults[0];
    let at = Some(Position::Percent(50));
    let path = "base/5/1259".to_owned();
    assert_eq!(fault.when, backstop_mock::fault::Point::Member { client: None, nth: 2, path, at });
}

proptest! {
    #[test]
    fn a_matrix_is_the_product_of_its_lists(
        versions in proptest::sample::subsequence(vec!["13", "14", "15", "16", "17", "18"], 1..=6),
        formats in proptest::sample::subsequence(vec!["plain", "tar"], 1..=2),
        sizes in proptest::sample::subsequence(vec!["1MiB", "2MiB", "8MiB"], 1..=3),
    ) {
        let text = with_head(&format!("[matrix]\nserver.version = {versions:?}\nclient.format = {formats:?}\ncluster.size = {sizes:?}\n"));
        let ids = ids(&text);
        prop_assert_eq!(ids.len(), versions.len() * formats.len() * sizes.len());
        let different: std::collections::BTreeSet<&String> = ids.iter().collect();
        prop_assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn any_text_is_safe(text in "(?s).{0,80}") {
        let _ = read("area/name", &source(&text));
    }

    #[test]
    fn any_change_of_a_scenario_is_safe(at in 0..RECYCLED.len(), length in 0..20_usize, new in "[a-z0-9\"=\\[\\]{}., \n]{0,6}") {
        let mut text = RECYCLED.to_owned();
        text.replace_range(at..(at + length).min(RECYCLED.len()), &new);
        if let Err(error) = read("area/name", &source(&text)) {
            prop_assert!(error.line() >= 1 && error.column() >= 1);
            prop_assert!(!error.draw(false).is_empty());
        }
    }
}

mod archives;
mod wrong;
mod wrong_commands;
