//! Stories, and timelines held against what is really said.

use std::collections::BTreeSet;
use std::path::Path;

use backstop_mock::fault::{Action, Point};
use backstop_mock::transcript::{Direction, Event};

use super::timeline::{self, Row};
use super::*;
use crate::plan::SubjectSpec;
use crate::runner;
use crate::scenario::Case;
use crate::scenario::select::Selection;

fn case(id: &str) -> Case {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let selection = Selection { wanted: vec![id.to_owned()], root, ..Selection::default() };
    let mut cases = selection.cases().expect(id);
    assert_eq!(cases.len(), 1, "{id}");
    let mut case = cases.remove(0);
    // As it is called from the root of the repository.
    let path = case.path.components().skip_while(|part| part.as_os_str() != "scenarios").collect();
    case.path = path;
    case
}

/// What one side says on a connection, without repetitions and without the data that streams both ways.
fn outline<'a>(said: impl Iterator<Item = (char, &'a str)>) -> Vec<String> {
    let mut outline: Vec<String> = Vec::new();
    let mut streams = false;
    for (sign, message) in said {
        let line = format!("{sign} {message}");
        if message == "CopyBothResponse" {
            streams = true;
        }
        if message == "CopyDone" {
            streams = false;
        }
        if (streams && message == "CopyData") || outline.last() == Some(&line) {
            continue;
        }
        outline.push(line);
    }
    outline
}

fn told(rows: &[Row], lane: &str) -> Vec<String> {
    let rows = rows.iter().filter(|row| row.lane == lane);
    outline(rows.flat_map(|row| row.messages.iter().map(|message| (row.sign, *message))))
}

fn heard(events: &[Event], session: u32) -> Vec<String> {
    let said = events.iter().filter(|event| event.session == session && event.direction != Direction::Note);
    outline(said.map(|event| (if event.direction == Direction::Sent { '>' } else { '<' }, event.message)))
}

/// An outline in which no statement comes twice in a row.
fn without_repetitions(outline: &[String]) -> Vec<&[String]> {
    let mut statements: Vec<&[String]> = Vec::new();
    for statement in outline.split_inclusive(|line| line == "> ReadyForQuery") {
        if statements.last() != Some(&statement) {
            statements.push(statement);
        }
    }
    statements
}

#[test]
fn timelines_are_what_is_really_said() {
    let releases = ["9.1", "9.6", "11"]
        .map(|version| format!("sound/before-12[server.version={version},client.format=plain,client.wal=stream]"));
    let others = [
        "sound/before-12[server.version=9.4,client.format=tar,client.wal=none]",
        "sound/plain[server.version=13,client.wal=fetch]",
        "sound/plain[server.version=14,client.wal=none]",
        "sound/plain[server.version=18,client.wal=stream]",
        "sound/plain[server.version=18,client.wal=none]",
        "sound/authentication[server.version=18,server.auth=scram-sha-256]",
        "sound/authentication[server.version=13,server.auth=md5]",
        "sound/tablespaces[server.version=15,client.format=plain]",
        "parallel/sound[server.version=9.6,client.jobs=1]",
        "parallel/sound[server.version=18,client.jobs=1]",
    ];
    for id in releases.iter().map(String::as_str).chain(others) {
        let case = case(id);
        let record = runner::record(&case, &SubjectSpec::Builtin, None).expect(id);
        let client = &case.scenario.clients[0];
        let rows = timeline::of(&case, client);
        assert_eq!(told(&rows, "backup"), heard(&record.transcript, 1), "{id}: the backup connection");
        let sessions: BTreeSet<u32> =
            record.transcript.iter().map(|event| event.session).filter(|session| *session > 1).collect();
        assert_eq!(rows.iter().any(|row| row.lane == "wal"), sessions.contains(&2), "{id}");
        // Files and segments are read as often as it takes.
        let lanes = [("wal", 2), ("files", 3)].into_iter().filter(|(_, session)| sessions.contains(session));
        for (lane, session) in lanes {
            let (told, heard) = (told(&rows, lane), heard(&record.transcript, session));
            assert_eq!(without_repetitions(&told), without_repetitions(&heard), "{id}: the {lane} connection");
        }
    }
}

#[test]
fn a_story_with_a_fault_inside_an_archive() {
    insta::assert_snapshot!(story(&case("protocol/proto-error-after-copydone[server.version=18]")));
    insta::assert_snapshot!(
        "before_15",
        story(&case("crash/conc-server-crash-mid-backup[server.version=14,client.wal=stream]"))
    );
}

#[test]
fn a_sweep_and_one_of_its_steps() {
    insta::assert_snapshot!("sweep", story(&case("crash/everywhere")));
    insta::assert_snapshot!("step", story(&case("crash/everywhere[7]")));
}

#[test]
fn every_case_can_be_told_and_every_point_and_action_has_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let cases = Selection { root, ..Selection::default() }.cases().expect("scenarios");
    for case in cases {
        let story = story(&case);
        let faults = case.scenario.faults.len();
        assert_eq!(story.matches("\nfault ").count(), faults, "{story}");
        for fault in &case.scenario.faults {
            let words = [words::meaning::<Point>(fault.when.name()), words::meaning::<Action>(fault.r#do.name())];
            assert!(words.iter().all(|words| !words.is_empty()), "{}: {words:?}", case.id);
        }
    }
}
