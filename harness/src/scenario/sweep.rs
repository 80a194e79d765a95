//! `when.every`: the same fault at every message, command, member or byte, one case for each.
//!
//! The file is the same for all steps; how many there are is counted in a recording run, in which the fault is left out.

use std::fmt;
use std::sync::Arc;

use backstop_mock::SessionCounts;
use backstop_mock::fault::Point;
use backstop_mock::units::{ByteSize, Position};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalSegmentSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Case;
use super::amount::Amount;
use super::document::{Document, Part, ScenarioError};
use super::model::{Scenario, Source};
use super::way::Way;

/// A sweep has no more steps than this.
pub const MAX_STEPS: u64 = 100_000;

/// The manifest, by the name of its file, where a sweep names what its bytes belong to.
const MANIFEST: &str = "backup_manifest";

/// What `client` calls the connection that streams WAL.
const WAL: &str = "wal";

/// The steps of a sweep: `when.every = { unit = "message" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Every {
    /// What is counted.
    pub unit: Unit,
    /// Whose connection it is about, as in any point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Of which archive the bytes are: `base.tar`, `16400.tar`, or `backup_manifest` for the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// Steps end before the unit with this number, or before this byte. Without it they end with the last that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Amount>,
    /// How many units further the next step is: 1 without it. A size for bytes, which need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Amount>,
}

/// What a sweep counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Messages of the server in a session, after its start-up, from 1.
    Message,
    /// Commands that clients send, over all their sessions, from 1: replication commands and statements of SQL.
    Command,
    /// Headers of members, of all archives, from 1.
    Member,
    /// Bytes, from 0: of `archive`, or with `client = "wal"` of streamed WAL, counted from the start of the segment in which
    /// the scenario lets WAL begin.
    Byte,
}

impl Unit {
    /// As scenario files spell it.
    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Command => "command",
            Self::Member => "member",
            Self::Byte => "byte",
        }
    }

    /// The number of the first one.
    fn first(self) -> u64 {
        match self {
            Self::Message | Self::Command | Self::Member => 1,
            Self::Byte => 0,
        }
    }
}

/// Which fault of a scenario is swept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The index of the fault.
    pub fault: usize,
    /// Its steps.
    pub every: Every,
    /// From where bytes of WAL are counted.
    pub wal_begin: Lsn,
}

/// A sweep without steps, or with too many: why, in the words of what was counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSteps(String);

impl Every {
    /// The number of the first step.
    pub fn first(&self) -> u64 {
        self.unit.first()
    }

    fn stride(&self) -> u64 {
        self.step.map_or(1, Amount::count).max(1)
    }

    /// The steps, given that units have numbers below `end`.
    fn steps(&self, end: u64) -> impl Iterator<Item = u64> + use<> {
        let end = self.before.map_or(end, |before| end.min(before.count()));
        let stride = usize::try_from(self.stride()).unwrap_or(usize::MAX);
        (self.first()..end).step_by(stride)
    }

    /// Whether it is about this session: by the client's name, by what the connection does, or by its number.
    fn counts(&self, session: &SessionCounts) -> bool {
        let Some(client) = self.client.as_deref() else { return true };
        session.application_name.as_deref() == Some(client)
            // Commands that came before the one which made it what it is are no points of its role.
            || (session.role == Some(client) && self.unit != Unit::Command)
            || client.strip_prefix('#') == Some(session.session.to_string().as_str())
    }
}

/// The points: `every message`, `one byte in 64KiB of base.tar`.
impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) if step.count() > 1 => write!(f, "one {} in {step}", self.unit.name())?,
            _ => write!(f, "every {}", self.unit.name())?,
        }
        match (self.unit, self.archive.as_deref()) {
            (Unit::Message | Unit::Command | Unit::Member, _) => Ok(()),
            (Unit::Byte, Some(MANIFEST)) => f.write_str(" of the manifest"),
            (Unit::Byte, Some(archive)) => write!(f, " of {archive}"),
            (Unit::Byte, None) => f.write_str(" of streamed WAL"),
        }
    }
}

impl Sweep {
    /// The point of the unit with this number.
    pub fn point(&self, number: u64) -> Point {
        let client = self.every.client.clone();
        match (self.every.unit, self.every.archive.as_deref()) {
            (Unit::Message, _) => Point::Message { client, nth: 1, n: number },
            (Unit::Command, _) => {
                let nth = u32::try_from(number).unwrap_or(u32::MAX);
                Point::Command { client, nth, starts_with: None }
            }
            (Unit::Member, _) => {
                let nth = u32::try_from(number).unwrap_or(u32::MAX);
                Point::Member { client, nth, path: "*".to_owned(), at: None }
            }
            (Unit::Byte, None) => Point::WalData { client, nth: 1, lsn: self.wal_begin.saturating_add(number) },
            (Unit::Byte, Some(MANIFEST)) => {
                Point::ManifestData { client, nth: 1, at: Position::Bytes(ByteSize(number)) }
            }
            (Unit::Byte, Some(archive)) => {
                let archive = Some(archive.to_owned());
                Point::ArchiveData { client, nth: 1, archive, at: Position::Bytes(ByteSize(number)) }
            }
        }
    }

    /// The number after that of the last unit which the sessions were sent. Messages are counted in each session, as their
    /// points are, so that of several sessions the longest decides; commands and members are counted over all of them.
    fn end(&self, counts: &[SessionCounts]) -> u64 {
        let sessions = counts.iter().filter(|session| self.every.counts(session));
        match (self.every.unit, self.every.archive.as_deref()) {
            (Unit::Message, _) => sessions.map(|session| session.messages).max().map_or(0, |last| last + 1),
            (Unit::Command, _) => sessions.map(|session| session.commands).sum::<u64>() + 1,
            (Unit::Member, _) => sessions.map(|session| session.carried.members).sum::<u64>() + 1,
            (Unit::Byte, None) => {
                let ends = sessions.filter_map(|session| session.carried.wal).map(|(_, end)| end);
                ends.max().map_or(0, |end| end.0.saturating_sub(self.wal_begin.0))
            }
            (Unit::Byte, Some(MANIFEST)) => sessions.filter_map(|session| session.carried.manifest).max().unwrap_or(0),
            (Unit::Byte, Some(archive)) => {
                sessions.filter_map(|session| session.carried.archive(archive)).max().unwrap_or(0)
            }
        }
    }
}

/// Whether a scenario has a fault that is swept.
pub fn is_sweep(scenario: &Scenario) -> bool {
    scenario.sweep.is_some()
}

/// The case without the fault that is swept: the run in which the steps are counted.
#[must_use]
pub fn recording(case: &Case) -> Case {
    let mut scenario = Scenario::clone(&case.scenario);
    if let Some(sweep) = scenario.sweep.take()
        && sweep.fault < scenario.faults.len()
    {
        scenario.faults.remove(sweep.fault);
    }
    Case { scenario: Arc::new(scenario), ..case.clone() }
}

/// The cases of a sweep, given what each session was sent in the recording run.
///
/// # Errors
/// There is nothing to sweep over, or more than anybody can wait for: a sweep that tries nothing must not pass.
pub fn steps(case: &Case, counts: &[SessionCounts]) -> Result<Vec<Case>, NoSteps> {
    let Some(sweep) = &case.scenario.sweep else { return Ok(Vec::new()) };
    let numbers = || sweep.every.steps(sweep.end(counts));
    let most = usize::try_from(MAX_STEPS).unwrap_or(usize::MAX);
    match numbers().take(most + 1).count() {
        0 => Err(NoSteps(format!("no {} was sent in the recording run", sweep.every.unit.name()))),
        many if many > most => Err(NoSteps(format!("more than {MAX_STEPS} steps"))),
        _ => Ok(numbers().filter_map(|step| case.at_step(step)).collect()),
    }
}

/// From where bytes of WAL are counted: the start of the segment in which the WAL of a backup begins.
pub(super) fn wal_begin(scenario: &Scenario) -> Lsn {
    let size = WalSegmentSize::new(scenario.server.wal_segment_size.0).unwrap_or_default();
    let start = scenario.cluster.wal_start.unwrap_or(size.start_of(2));
    size.round_down(start)
}

/// Takes `when.every` out of the document and leaves a plain point in its place, which the model can read.
pub(super) fn extract(document: &mut Document<'_>) -> Result<Option<Sweep>, ScenarioError> {
    let faults =
        document.root.get("fault").and_then(|faults| faults.get_ref().as_array()).map_or(0, |faults| faults.len());
    let mut sweep = None;
    for fault in 0..faults {
        let way = Way::new().to("fault").to(fault).to("when").to("every");
        let Some(every) = document.read_at::<Every>(&way)? else { continue };
        let refuse = |part, key: Option<&str>, message: &str| {
            let way = key.into_iter().fold(way.clone(), Way::to);
            Err(document.error_at(&way, part, message.to_owned(), None))
        };
        if sweep.is_some() {
            return refuse(Part::Key, None, "a scenario has at most one \"every\"");
        }
        if let Err((key, message)) = sense(&every) {
            let part = if document.has(&way.clone().to(key)) { Part::Value } else { Part::Key };
            let key = (part == Part::Value).then_some(key);
            return refuse(part, key, &message);
        }
        replace(document, fault);
        sweep = Some(Sweep { fault, every, wal_begin: Lsn::INVALID });
    }
    Ok(sweep)
}

/// Whether the keys of a sweep go together: else the key at fault, and why.
fn sense(every: &Every) -> Result<(), (&'static str, String)> {
    let unit = every.unit;
    let wal = every.client.as_deref() == Some(WAL);
    if let Some(archive) = &every.archive {
        if unit != Unit::Byte {
            return Err(("archive", format!("a sweep over units of \"{}\" goes through all archives", unit.name())));
        }
        if wal {
            return Err(("archive", "the connection that streams WAL carries no archive".to_owned()));
        }
        if archive.is_empty() {
            return Err(("archive", "archive is empty".to_owned()));
        }
    }
    match unit {
        Unit::Member if wal => {
            return Err(("client", "the connection that streams WAL carries no members".to_owned()));
        }
        Unit::Command if wal => {
            let message = "a connection streams WAL only after some of its commands: call it by its number, \"#2\"";
            return Err(("client", message.to_owned()));
        }
        Unit::Byte if every.archive.is_none() && !wal => {
            let message =
                "a sweep over bytes needs archive = \"base.tar\", archive = \"backup_manifest\" or client = \"wal\"";
            return Err(("unit", message.to_owned()));
        }
        Unit::Byte if every.step.is_none() => {
            return Err(("unit", "a sweep over bytes needs a step such as \"64KiB\"".to_owned()));
        }
        Unit::Message | Unit::Command | Unit::Member | Unit::Byte => {}
    }
    for (key, amount, least) in [("step", every.step, 1), ("before", every.before, unit.first() + 1)] {
        let Some(amount) = amount else { continue };
        match (unit, amount) {
            (Unit::Byte, Amount::Number(_)) => {
                return Err((key, format!("{key} of a sweep over bytes is a size such as \"64KiB\"")));
            }
            (Unit::Message | Unit::Command | Unit::Member, Amount::Size(_)) => {
                return Err((key, format!("{key} of a sweep over units of \"{}\" is a number", unit.name())));
            }
            _ => {}
        }
        if amount.count() < least {
            let counted = if key == "before" { ": units are counted from 1" } else { "" };
            return Err((
                key,
                match unit {
                    Unit::Byte => format!("{key} must be at least 1B"),
                    Unit::Message | Unit::Command | Unit::Member => format!("{key} must be at least {least}{counted}"),
                },
            ));
        }
    }
    Ok(())
}

/// Refuses a sweep over bytes of WAL whose beginning only a data directory knows.
pub(super) fn refuse_unknown_wal(
    document: &Document<'_>,
    scenario: &Scenario,
    sweep: &Sweep,
) -> Result<(), ScenarioError> {
    let over_wal = sweep.every.unit == Unit::Byte && sweep.every.archive.is_none();
    if over_wal && scenario.cluster.source != Source::Synthetic {
        let message = "a sweep over bytes of WAL needs a synthetic cluster: a data directory begins its WAL anywhere";
        return Err(document.error_at(&Way::new().to("cluster").to("source"), Part::Value, message.to_owned(), None));
    }
    Ok(())
}

/// Puts `copy-done = {}` in the place of `every = {…}`.
fn replace(document: &mut Document<'_>, fault: usize) {
    let Some(DeValue::Array(faults)) = document.root.get_mut("fault").map(Spanned::get_mut) else { return };
    let Some(DeValue::Table(fault)) = faults.get_mut(fault).map(Spanned::get_mut) else { return };
    let Some(DeValue::Table(when)) = fault.get_mut("when").map(Spanned::get_mut) else { return };
    if let Some((key, value)) = when.remove_entry("every") {
        let empty = Spanned::new(value.span(), DeValue::Table(DeTable::new()));
        when.insert(Spanned::new(key.span(), "copy-done".into()), empty);
    }
}

#[cfg(test)]
mod tests;
