//! The mock against recordings of real servers, 12 to 18: the client's half of each session is replayed, the server's half is
//! compared message by message.
//!
//! There is a test for each group of recordings; its snapshot has a line for each release: how many sessions are equal, which
//! differ, which are equal but for commands that are out of scope. A change that makes more sessions equal updates it with
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

/// Replays a session, up to its first difference.
fn replayed(session: &recording::Session, version: ServerVersion) -> Result<(), String> {
    // Each in a runtime of its own, so that what one server left behind is not the next one's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(replay::replay(session, version))
}

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
            match replayed(session, version) {
                Ok(()) if session.commands().any(|command| stage::left_out(session, command).is_some()) => {
                    beyond.push(session.name.clone());
                }
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
    let (mut sessions, mut commands, mut left_out) = (0, 0, 0);
    for version in RELEASES {
        for session in recording::load(version) {
            sessions += 1;
            commands += session.commands().count();
            left_out += session.commands().filter(|command| stage::left_out(&session, command).is_some()).count();
        }
    }
    println!("{left_out} of {commands} commands in {sessions} sessions are out of scope");
    assert!(sessions > 600 && commands > 1000, "{commands} commands in {sessions} sessions");
    assert!(left_out * 50 < commands, "{left_out} of {commands} commands");
}

/// A replay that cannot fail would prove nothing: every field of every message of the server matters.
#[test]
fn one_changed_field_of_a_recording_is_noticed() {
    let version = ServerVersion::V18;
    for name in ["identify-physical", "slots", "replication-true", "plain"] {
        let mut sessions = recording::load(version);
        let session = sessions.iter_mut().find(|session| session.name == name).expect("it was recorded");
        assert_eq!(replayed(session, version), Ok(()), "{name}");
        for event in 0..session.events.len() {
            let fields = session.fields(event).map_or(0, |fields| fields.len());
            for field in 0..fields {
                let Some((label, Some(value))) = session.fields(event).map(|fields| fields[field].clone()) else {
                    continue;
                };
                // Every process has its own id, and two rules of the grammar say the same of a timeline.
                let timeline = |(_, value): &(String, Option<String>)| value.as_deref() == Some("invalid timeline 0");
                let twice = session.fields(event).is_some_and(|fields| fields.iter().any(timeline));
                if label == "pid" || (label == "L" && twice) {
                    continue;
                }
                let change = |session: &mut recording::Session, value: String| {
                    if let Some(fields) = session.fields(event) {
                        fields[field].1 = Some(value);
                    }
                };
                change(session, format!("{value}x"));
                let noticed = replayed(session, version).is_err();
                assert!(noticed, "{name}: nobody noticed {label} = {value}x");
                change(session, value);
            }
        }
    }
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
