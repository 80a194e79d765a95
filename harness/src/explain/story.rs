//! The story in English.

use std::num::NonZero;

use backstop_mock::fault::{Action, Fault, Point};
use backstop_protocol::version::ServerVersion;

use super::timeline::{self, Row};
use super::words::{differences, fields, meaning};
use crate::scenario::Case;
use crate::scenario::model::{
    Client, ClientClaims, Format, Leaves, Manifest, Outcome, ServerClaims, Slot, Tool, WalMethod,
};

/// The width of the column of headings.
const HEADING: usize = 9;

/// The case in words.
pub fn story(case: &Case) -> String {
    let mut text = Text::default();
    let scenario = &case.scenario;
    text.line(&case.id);
    text.line(&case.path.display().to_string());
    text.line("");
    text.line(&scenario.summary);
    text.item("why", &scenario.because);
    text.line("");
    text.item("server", &server(case));
    for client in &scenario.clients {
        text.item("client", &who(client, scenario.server.version));
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        let sweep = scenario.sweep.as_ref().filter(|sweep| sweep.fault == index && case.step.is_none());
        let place = match sweep {
            Some(sweep) => format!("at {}, one case each", sweep.every),
            None => at(&fault.when),
        };
        text.item(&format!("fault {}", index + 1), &format!("{place}: {}", does(fault)));
    }
    if scenario.faults.is_empty() {
        text.item("faults", "none: everybody does as they should");
    }
    for (name, expectation) in &scenario.expect.clients {
        for claim in claims(&expectation.must) {
            text.item("must", &format!("{name} {claim}"));
        }
        for claim in claims(&expectation.should) {
            text.item("should", &format!("{name} {claim}"));
        }
    }
    if let Some(server) = &scenario.expect.server {
        for claim in on_server(&server.must) {
            text.item("must", &format!("in the end the server has {claim}"));
        }
        for claim in on_server(&server.should) {
            text.item("should", &format!("in the end the server has {claim}"));
        }
    }
    text.item("law", "success means a complete backup, byte for byte the server's; failure leaves nothing that passes for one; nothing \
                      changes outside the target; every fault fires");
    for client in &scenario.clients {
        text.line("");
        text.line(&format!(
            "what {} and the server say when nothing goes wrong (< client, > server, ! fault)",
            client.name
        ));
        for row in timeline::of(case, client) {
            text.row(&row);
        }
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.extend([line.trim_end(), "\n"]);
    }

    fn item(&mut self, heading: &str, text: &str) {
        self.line(&format!("{heading:HEADING$} {}", text.split_whitespace().collect::<Vec<_>>().join(" ")));
    }

    fn row(&mut self, row: &Row) {
        let Row { lane, sign, messages, detail, points } = row;
        let said = [messages.join(", "), detail.clone()].join(" ");
        let points = if points.is_empty() { String::new() } else { format!("[{}]", points.join(", ")) };
        self.line(&format!("  {lane:7} {sign} {:<72} {points}", said.trim()));
    }
}

fn server(case: &Case) -> String {
    let scenario = &case.scenario;
    let cluster = &scenario.cluster;
    let version = scenario.server.version;
    let mut parts = vec![match &scenario.server.replay {
        Some(cassette) => format!("PostgreSQL {version} as it was recorded in {}", cassette.display()),
        None => format!("PostgreSQL {version} with {} of data", cluster.size),
    }];
    parts.extend(
        cluster
            .tablespaces
            .iter()
            .map(|tablespace| format!("a tablespace {} at {}", tablespace.oid, tablespace.location)),
    );
    parts.extend(differences(&scenario.server, &["version", "replay"]));
    parts.extend(differences(cluster, &["size", "tablespace"]));
    parts.join("; ")
}

fn who(client: &Client, version: ServerVersion) -> String {
    let known = ["name", "tool", "format", "wal", "slot", "manifest", "checkpoint", "jobs"];
    let slot = match client.slot_on(version) {
        Slot::None => "without a slot".to_owned(),
        Slot::Temporary => "with a temporary slot".to_owned(),
        Slot::Create(name) => format!("with a new slot {name}"),
        Slot::Existing(name) => format!("with the slot {name}"),
    };
    let mut parts = match client.tool {
        Tool::Basebackup => {
            let format = match client.format {
                Format::Plain => "as files",
                Format::Tar => "as tar archives",
            };
            let wal = match client.wal {
                WalMethod::Stream => format!("streams WAL over a second connection {slot}"),
                WalMethod::Fetch => "fetches WAL at the end".to_owned(),
                WalMethod::None => "leaves WAL to others".to_owned(),
            };
            let manifest = match client.manifest_on(version) {
                Manifest::None => "without a manifest".to_owned(),
                sums => format!(
                    "with a manifest of {} sums",
                    serde_json::to_value(sums).unwrap_or_default().as_str().unwrap_or_default()
                ),
            };
            vec![format!("{} takes a base backup {format}, {manifest}, and {wal}", client.name)]
        }
        Tool::Parallel => {
            let jobs = client.jobs.map_or(1, NonZero::get);
            let connections = if jobs == 1 { "one connection".to_owned() } else { format!("{jobs} connections") };
            let wal = match client.wal {
                WalMethod::None => "leaves WAL to others",
                WalMethod::Fetch | WalMethod::Stream => "fetches WAL again and again over one more",
            };
            vec![format!(
                "{} takes a base backup with SQL over {connections} besides the one that holds it, and {wal}",
                client.name
            )]
        }
        other => {
            let tool = serde_json::to_value(other).unwrap_or_default();
            vec![format!("{} runs {} {slot}", client.name, tool.as_str().unwrap_or_default())]
        }
    };
    parts.extend(differences(client, &known));
    parts.join("; ")
}

/// The moment of a fault.
fn at(point: &Point) -> String {
    let fields = fields(point);
    let fields = if fields.is_empty() { String::new() } else { format!(" ({fields})") };
    format!("{}{fields}, {}", point.name(), lower(&meaning::<Point>(point.name())))
}

fn does(fault: &Fault) -> String {
    let fields = fields(&fault.r#do);
    let fields = if fields.is_empty() { String::new() } else { format!(" ({fields})") };
    format!("{}{fields}. {}", fault.r#do.name(), meaning::<Action>(fault.r#do.name()))
}

/// A sentence in the middle of another.
fn lower(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    match sentence.split_once(' ') {
        Some((word @ ("A" | "An" | "The"), rest)) => format!("{} {rest}", word.to_lowercase()),
        _ => sentence.to_owned(),
    }
}

fn claims(claims: &ClientClaims) -> Vec<String> {
    let ClientClaims { outcome, leaves, says, names, sqlstate, within, .. } = claims;
    let mut said = Vec::new();
    said.extend(outcome.map(|outcome| match outcome {
        Outcome::Success => "succeeds".to_owned(),
        Outcome::Failure => "fails".to_owned(),
        Outcome::Timeout => "is still running at its deadline".to_owned(),
        Outcome::Killed => "is ended by the signal".to_owned(),
    }));
    said.extend(leaves.map(|leaves| match leaves {
        Leaves::Restorable => "leaves a backup that can be restored".to_owned(),
        Leaves::NothingRestorable => "leaves nothing that can be restored".to_owned(),
        Leaves::Nothing => "leaves nothing at all".to_owned(),
    }));
    said.extend(says.as_ref().map(|text| format!("says {text:?}")));
    said.extend(names.as_ref().map(|text| format!("names {text:?}")));
    said.extend(sqlstate.as_ref().map(|code| format!("hears SQLSTATE {code}")));
    said.extend(within.as_ref().map(|within| format!("ends within {within}")));
    let known = ["outcome", "leaves", "says", "names", "sqlstate", "within"];
    said.extend(differences(claims, &known));
    said
}

fn on_server(claims: &ServerClaims) -> Vec<String> {
    differences(claims, &[])
}
