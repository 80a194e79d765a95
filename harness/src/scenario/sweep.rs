//! `when.every`: the same fault at every message, member or byte, one case for each.
//!
//! The file is the same for all steps; how many there are is counted in a recording run, in which nothing strikes.

use backstop_mock::units::{ByteSize, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Part, ScenarioError, Way};
use super::standin::Point;

/// A sweep has no more steps than this.
pub const MAX_STEPS: u64 = 1_000_000;

/// The steps of a sweep: `when.every = { unit = "message" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Every {
    /// What is counted.
    pub unit: Unit,
    /// Whose connection it is about, as in any point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The archive whose bytes are counted: `base.tar` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
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
    /// Members of all archives.
    Member,
    /// Bytes of one archive.
    Byte,
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
        (1..=end).step_by(stride)
    }

    /// The point of the unit with this number.
    pub fn point(&self, number: u64) -> Point {
        let client = self.client.clone();
        match self.unit {
            Unit::Message => Point::Message { client, nth: 1, n: number },
            Unit::Member => {
                let nth = u32::try_from(number).unwrap_or(u32::MAX);
                Point::Member { client, nth, path: "*".to_owned(), at: None }
            }
            Unit::Byte => {
                let archive = Some(self.archive.clone().unwrap_or_else(|| "base.tar".to_owned()));
                let at = Position::Bytes(ByteSize(number.saturating_sub(1)));
                Point::ArchiveData { client, nth: 1, archive, at }
            }
        }
    }
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
        if every.archive.is_some() && every.unit != Unit::Byte {
            return refuse(Part::Key, Some("archive"), "archive goes with unit = \"byte\" only");
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
        Every { unit: Unit::Message, client: None, archive: None, before, step }
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

    #[test]
    fn a_step_is_a_point() {
        let unit = |unit| Every { unit, ..every(None, 1) };
        assert_eq!(unit(Unit::Message).point(7), Point::Message { client: None, nth: 1, n: 7 });
        let member = Point::Member { client: None, nth: 7, path: "*".to_owned(), at: None };
        assert_eq!(unit(Unit::Member).point(7), member);
        let at = Position::Bytes(ByteSize(6));
        let byte = Point::ArchiveData { client: None, nth: 1, archive: Some("base.tar".to_owned()), at };
        assert_eq!(unit(Unit::Byte).point(7), byte);
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
