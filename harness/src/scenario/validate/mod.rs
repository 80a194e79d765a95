//! Whether a scenario makes sense: names that must exist, values that exclude each other, what a release does not have.
//!
//! Each check names the key at fault by its [`Way`], and the document knows where that stands.
//!
//! | what | see |
//! |---|---|
//! | `[server]` | [`server`] |
//! | `[cluster]` | [`cluster`] |
//! | `[[client]]` | [`client`] |
//! | `[[fault]]` | [`fault`] |
//! | `[expect]` | [`expect`] |

mod client;
mod cluster;
mod expect;
mod fault;
mod server;

use backstop_protocol::version::ServerVersion;

use super::document::{Document, Part, ScenarioError};
use super::explain::suggest;
use super::model::Scenario;
use super::way::Way;

/// The longest name in PostgreSQL: `NAMEDATALEN - 1`.
const MAX_NAME: usize = 63;

type Result = std::result::Result<(), ScenarioError>;

/// What the checks need to know.
struct Checks<'a> {
    document: &'a Document<'a>,
    scenario: &'a Scenario,
    version: ServerVersion,
}

/// Refuses a scenario that does not make sense.
pub(super) fn validate(document: &Document<'_>, scenario: &Scenario) -> Result {
    let checks = Checks { document, scenario, version: scenario.server.version };
    checks.top()?;
    checks.server()?;
    checks.cluster()?;
    checks.clients()?;
    checks.faults()?;
    checks.expectations()
}

fn at(key: &str) -> Way {
    Way::new().to(key)
}

impl Checks<'_> {
    fn refuse(&self, way: &Way, message: impl Into<String>) -> Result {
        Err(self.document.error_at(way, Part::Value, message.into(), None))
    }

    fn refuse_key(&self, way: &Way, message: impl Into<String>) -> Result {
        Err(self.document.error_at(way, Part::Key, message.into(), None))
    }

    fn refuse_name(&self, way: &Way, part: Part, message: String, help: Option<String>) -> Result {
        Err(self.document.error_at(way, part, message, help))
    }

    /// The key is a feature that this release does not have.
    fn needs(&self, there: bool, way: &Way, what: &str) -> Result {
        if there { Ok(()) } else { self.refuse(way, format!("PostgreSQL {} has no {what}", self.version)) }
    }

    fn top(&self) -> Result {
        for (key, text) in [("summary", &self.scenario.summary), ("because", &self.scenario.because)] {
            if text.trim().is_empty() {
                return self.refuse(&at(key), format!("{key} is empty"));
            }
        }
        for (index, tag) in self.scenario.tags.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if tag.is_empty() || !tag.chars().all(plain) {
                let message = format!("invalid tag {tag:?}: expected lower-case letters, digits and hyphens");
                return self.refuse(&at("tags").to(index), message);
            }
        }
        Ok(())
    }

    fn unknown_client(&self, name: &str, way: &Way, part: Part, others: &[&str]) -> Result {
        let mut names: Vec<&str> = self.scenario.clients.iter().map(|client| client.name.as_str()).collect();
        names.extend(others);
        names.dedup();
        self.refuse_name(way, part, format!("there is no client {name:?}"), suggest(name, "client", &names))
    }
}
