//! `when.every`: the same fault at every message, one case for each.
//!
//! The file is the same for all steps; how many there are is counted in a recording run, in which the fault is left out.

use std::sync::Arc;

use backstop_mock::MessageCount;
use backstop_mock::fault::Point;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Case;
use super::document::{Document, Part, ScenarioError};
use super::model::Scenario;
use super::way::Way;

/// A sweep has no more steps than this.
pub const MAX_STEPS: usize = 100_000;

/// The steps of a sweep: `when.every = { unit = "message" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Every {
    /// What is counted.
    pub unit: Unit,
    /// Whose connection it is about, as in any point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Steps end before the unit with this number. Without it they end with the last that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many units further the next step is.
    #[serde(default = "one")]
    pub step: u64,
}

fn one() -> u64 {
    1
}

/// What a sweep counts, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Messages of the server in a session, after its start-up.
    Message,
}

/// Which fault of a scenario is swept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The index of the fault.
    pub fault: usize,
    /// Its steps.
    pub every: Every,
}

impl Every {
    /// The steps, given that the recording run counted `total` units. Each is the number of a unit.
    pub fn steps(&self, total: u64) -> impl Iterator<Item = u64> + use<> {
        let end = self.before.map_or(total, |before| total.min(before.saturating_sub(1)));
        let stride = usize::try_from(self.step).unwrap_or(usize::MAX).max(1);
        (1..=end).step_by(stride).take(MAX_STEPS)
    }

    /// Whether it is about this session: by the client's name, by what the connection does, or by its number.
    fn counts(&self, session: &MessageCount) -> bool {
        let Some(client) = self.client.as_deref() else { return true };
        session.application_name.as_deref() == Some(client)
            || session.role == Some(client)
            || client.strip_prefix('#') == Some(session.session.to_string().as_str())
    }

    /// The point of the unit with this number.
    pub fn point(&self, number: u64) -> Point {
        match self.unit {
            Unit::Message => Point::Message { client: self.client.clone(), nth: 1, n: number },
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

/// The cases of a sweep, given what each session was sent in the recording run. Of several sessions that a step could strike
/// the longest counts.
pub fn steps(case: &Case, counts: &[MessageCount]) -> Vec<Case> {
    let Some(sweep) = &case.scenario.sweep else { return Vec::new() };
    let total = counts.iter().filter(|count| sweep.every.counts(count)).map(|count| count.messages).max();
    sweep.every.steps(total.unwrap_or(0)).filter_map(|step| case.at_step(step)).collect()
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
        if every.step == 0 {
            return refuse(Part::Value, Some("step"), "step must be at least 1");
        }
        if every.before.is_some_and(|before| before < 2) {
            return refuse(Part::Value, Some("before"), "before must be at least 2: units are counted from 1");
        }
        replace(document, fault);
        sweep = Some(Sweep { fault, every });
    }
    Ok(sweep)
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every(before: Option<u64>, step: u64) -> Every {
        Every { unit: Unit::Message, client: None, before, step }
    }

    #[test]
    fn steps_are_numbers_of_units() {
        let steps = |before, step, total| every(before, step).steps(total).collect::<Vec<_>>();
        assert_eq!(steps(None, 1, 3), [1, 2, 3]);
        assert_eq!(steps(None, 2, 6), [1, 3, 5]);
        assert_eq!(steps(Some(3), 1, 6), [1, 2]);
        assert_eq!(steps(Some(30), 1, 2), [1, 2]);
        assert_eq!(steps(None, 1, 0), [] as [u64; 0]);
    }

    proptest! {
        #[test]
        fn steps_stay_inside(before in proptest::option::of(2..1000_u64), step in 1..1000_u64, total in 0..1000_u64) {
            for number in every(before, step).steps(total) {
                prop_assert!((1..=total).contains(&number));
                prop_assert!(before.is_none_or(|before| number < before));
                prop_assert_eq!((number - 1) % step, 0);
            }
        }
    }
}
