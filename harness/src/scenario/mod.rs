//! Scenario files: one file is one story, named by its path.
//!
//! `scenarios/crash/mid-tablespace.toml` is the scenario `crash/mid-tablespace`. Reading one goes through these steps:
//! the text becomes a document that knows the position of everything in it; `[matrix]` makes one document for each
//! combination; every document becomes a [`model::Scenario`], whose sense is then checked.

pub mod model;
mod standin;

use std::path::PathBuf;
use std::sync::Arc;

use model::Scenario;

/// One case: a scenario with one combination of its matrix, and one step of its sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The scenario's id, then the combination and the step if there are such: `sound/plain[server.version=15]`,
    /// `crash/everywhere[137]`, `crash/everywhere[server.version=15][137]`.
    pub id: String,
    /// The scenario file, as it was found.
    pub path: PathBuf,
    /// What the file says, the combination applied.
    pub scenario: Arc<Scenario>,
    /// The combination: keys and values as in the id, in the order of the file.
    pub combination: Vec<(String, String)>,
    /// Which step of the sweep, from 1. A case whose scenario sweeps but that has no step stands for all steps.
    pub step: Option<u64>,
}
