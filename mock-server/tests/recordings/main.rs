//! The mock against recordings of real servers, 12 to 18: the client's half of each session is replayed, the server's half is
//! compared message by message.
//!
//! There is a test for each group of recordings; its snapshot has a line for each release: how many sessions are equal, which
//! differ, which are out of scope. A change that makes more sessions equal updates it with
//! `INSTA_UPDATE=always cargo test -p backstop-mock --test recordings`. What differs is told with `-- --nocapture`:
//!
//! * `cargo test -p backstop-mock --test recordings slots -- --nocapture` for a group,
//! * `BACKSTOP_RECORDING=v15/slots` (or `v15`, or the name of a session) for the recordings whose name contains it; snapshots
//!   are not compared then.

mod archive;
mod compare;
mod message;
mod peer;
mod recording;
mod replay;
mod stage;
mod upload;

use std::fmt::Write;

use backstop_protocol::diagnostic::{Origin, Severity};
use backstop_protocol::version::ServerVersion;

/// The releases of which there are recordings.
const RELEASES: [ServerVersion; 7] = [
    ServerVersion::V12,
    ServerVersion::V13,
    ServerVersion::V14,
    ServerVersion::V15,
    ServerVersion::V16,
    ServerVersion::V17,
    ServerVersion::V18,
];

/// Replays a group of every release; the table.
fn table(group: &str) -> String {
    let wanted = std::env::var("BACKSTOP_RECORDING").unwrap_or_default();
    let mut table = String::new();
    for version in RELEASES {
        let (mut equal, mut differing, mut beyond) = (0, Vec::new(), Vec::new());
        for session in recording::load(version).iter().filter(|session| session.group == group) {
            let name = format!("v{version}/{group}/{}", session.name);
            if !name.contains(&wanted) {
                continue;
            }
            if stage::out_of_scope(session).is_some() {
                beyond.push(session.name.clone());
                continue;
            }
            // Each in a runtime of its own, so that what one server left behind is not the next one's.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let outcome = runtime.expect("a runtime").block_on(replay::replay(session, version));
            match outcome {
                Ok(()) => equal += 1,
                Err(problem) => {
                    println!("{name}: {problem}\n");
                    differing.push(session.name.clone());
                }
            }
        }
        let list = |names: &[String]| {
            if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{version}  {equal} equal, {} differing, {} out of scope{}{}",
            differing.len(),
            beyond.len(),
            list(&differing),
            if beyond.is_empty() { String::new() } else { format!(" (out of scope{})", list(&beyond)) },
        );
    }
    println!("{group}\n{table}");
    table
}

macro_rules! groups {
    ($($group:ident)*) => {
        $(#[test]
        fn $group() {
            let table = table(stringify!($group));
            if std::env::var_os("BACKSTOP_RECORDING").is_none() {
                insta::assert_snapshot!(table);
            }
        })*
    };
}

groups! { startup identify slots basebackup basebackup_errors stream incremental shutdown checksum standby timeline logical }

/// What is left out is little, and has a reason.
#[test]
fn hardly_anything_is_out_of_scope() {
    let (mut sessions, mut beyond, mut commands, mut left_out) = (0, 0, 0, 0);
    for version in RELEASES {
        for session in recording::load(version) {
            sessions += 1;
            beyond += usize::from(stage::out_of_scope(&session).is_some());
            for event in &session.events {
                let recording::Event::Front(recording::Front { sql: Some(command), .. }) = event else { continue };
                commands += 1;
                left_out += usize::from(stage::left_out(&session, command).is_some());
            }
        }
    }
    println!("{beyond} of {sessions} sessions out of scope, {left_out} of {commands} commands left out");
    assert!(sessions > 600 && beyond * 20 < sessions, "{beyond} of {sessions} sessions");
    assert!(commands > 1000 && left_out * 100 < commands, "{left_out} of {commands} commands");
}

/// The table of origins knows every message of the recordings, whether or not the mock sends it.
#[test]
fn every_recorded_error_has_its_origin() {
    let mut count = 0;
    for version in RELEASES {
        for session in recording::load(version) {
            for event in &session.events {
                let recording::Event::Back { back: recording::Back::Message(message), number } = event else {
                    continue;
                };
                let field = |label: &str| message.field(label).unwrap_or_default();
                // ALTER_REPLICATION_SLOT says of an option what CREATE_REPLICATION_SLOT says.
                let alters = session.name == "logical" && field("M").starts_with("unrecognized option");
                let alters = alters.then_some("Alter");
                if !b"EN".contains(&message.tag) {
                    continue;
                }
                let severity = if field("S") == "FATAL" { Severity::Fatal } else { Severity::Error };
                let Origin { file, line, routine } = Origin::of(version, severity, field("M"), alters);
                let place = format!("v{version}/{}/{} {number}: {}", session.group, session.name, field("M"));
                assert_eq!((file, routine), (field("F"), field("R")), "{place}");
                // Two rules of the grammar say the same of a timeline.
                if !field("M").starts_with("invalid timeline") {
                    assert_eq!(line.to_string(), field("L"), "{place}");
                }
                count += 1;
            }
        }
    }
    assert!(count > 900, "{count} messages");
}
