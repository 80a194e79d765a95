//! Scenario files: one file is one story, named by its path.
//!
//! `scenarios/crash/mid-tablespace.toml` is the scenario `crash/mid-tablespace`. Reading one goes through these steps:
//! the text becomes a [`document`] that knows the position of everything in it; [`matrix`] makes one document for each
//! combination; [`sweep`] takes `when.every` out; the document becomes a [`model::Scenario`]; and `validate` checks its
//! sense. [`select`] finds the files that were asked for.

pub mod amount;
pub mod credentials;
pub mod document;
pub mod explain;
pub mod load;
pub mod locate;
pub mod matrix;
pub mod model;
pub mod schema;
pub mod select;
pub mod sweep;
mod validate;
mod way;

use std::path::PathBuf;
use std::sync::Arc;

use credentials::Credentials;
use model::Scenario;

/// One case: a scenario with one combination of its matrix, and one step of its sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The scenario's id, then the combination and the step if there are such: `sound/plain[server.version=15]`,
    /// `crash/everywhere[137]`, `crash/everywhere[server.version=15][137]`.
    pub id: String,
    /// The scenario file, as it was found.
    pub path: PathBuf,
    /// What the file says, the combination applied, and the step if there is one.
    pub scenario: Arc<Scenario>,
    /// The combination: keys and values as in the id, in the order of the file.
    pub combination: Vec<(String, String)>,
    /// Which step of the sweep: the number of a unit, from 1, or the offset of a byte. A case whose scenario sweeps but that has no step stands for
    /// all steps.
    pub step: Option<u64>,
    /// Who its clients log in as.
    pub credentials: Credentials,
}

/// How the ids of known edge cases begin: the short forms of the areas that they are ordered by. An id is a short form, a
/// hyphen and a name: `tar-missing-pg_control`.
const EDGE_CASE_AREAS: [&str; 22] = [
    "cks", "cli", "cmd", "cmp", "conc", "conn", "file", "inc", "mal", "man", "net", "plat", "prog", "proto", "prx",
    "rate", "rst", "stby", "tar", "tbs", "wal", "win",
];

/// Whether the scenario with this id tells a known edge case: its file has the edge case's name.
pub fn is_edge_case(scenario_id: &str) -> bool {
    let name = scenario_id.rsplit('/').next().unwrap_or_default();
    name.split_once('-').is_some_and(|(area, rest)| !rest.is_empty() && EDGE_CASE_AREAS.contains(&area))
}

impl Case {
    /// Whether this case stands for all steps of its sweep.
    pub fn is_unswept(&self) -> bool {
        self.step.is_none() && self.scenario.sweep.is_some()
    }

    /// The id of the scenario, without combination and step.
    pub fn scenario_id(&self) -> &str {
        self.id.split('[').next().unwrap_or_default()
    }

    /// The case at one step of its sweep, or nothing if it does not sweep or has a step already.
    #[must_use]
    pub fn at_step(&self, step: u64) -> Option<Self> {
        let sweep = self.scenario.sweep.as_ref().filter(|sweep| self.step.is_none() && step >= sweep.every.first())?;
        let mut scenario = Scenario::clone(&self.scenario);
        scenario.faults.get_mut(sweep.fault)?.when = sweep.point(step);
        let id = format!("{}[{step}]", self.id);
        Some(Self { id, scenario: Arc::new(scenario), step: Some(step), ..self.clone() })
    }
}

#[cfg(test)]
mod tests;
