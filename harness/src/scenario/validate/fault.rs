//! `[[fault]]`, and the points at which clients start.

use backstop_mock::fault::server::Terminate;
use backstop_mock::fault::{Action, Point};

use super::{Checks, Result, at};
use crate::scenario::document::Part;
use crate::scenario::way::Way;

/// No scenario needs more.
const MAX_FAULTS: usize = 256;
/// The names of connections by what they do, which every scenario has besides its clients.
const ROLES: [&str; 2] = ["backup", "wal"];

impl Checks<'_> {
    pub(super) fn faults(&self) -> Result {
        if self.scenario.faults.len() > MAX_FAULTS {
            return self.refuse_key(&at("fault"), format!("a scenario has at most {MAX_FAULTS} faults"));
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            let way = at("fault").to(index);
            let swept = self.scenario.sweep.as_ref().is_some_and(|sweep| sweep.fault == index);
            // The loader left `copy-done` in the place of `every`, whose key and values have that place's positions.
            let point = if swept { "copy-done" } else { fault.when.name() };
            self.point(&fault.when, &way.clone().to("when").to(point))?;
            let action = way.clone().to("do").to(fault.r#do.name());
            if let Action::Terminate(Terminate { client: Some(client) }) = &fault.r#do {
                self.known_connection(client, &action.clone().to("client"))?;
            }
            if let Some(Some(client)) = fault.r#do.client_machine()
                && self.scenario.client(client).is_none()
            {
                return self.unknown_client(client, &action.to("client"), Part::Value, &[]);
            }
            if let Point::ClientEnd { client: Some(client), .. } = &fault.when
                && self.scenario.client(client).is_none()
            {
                return self.unknown_client(client, &way.to("when").to(point).to("client"), Part::Value, &[]);
            }
            if let Err(problem) = fault.validate() {
                return self.refuse_key(&action, problem);
            }
        }
        Ok(())
    }

    pub(super) fn point(&self, point: &Point, way: &Way) -> Result {
        match point.client() {
            Some(client) => self.known_connection(client, &way.clone().to("client")),
            None => Ok(()),
        }
    }

    /// A client's name, what a connection does, or the number of a connection.
    fn known_connection(&self, name: &str, way: &Way) -> Result {
        if name.starts_with('#') || ROLES.contains(&name) || self.scenario.client(name).is_some() {
            return Ok(());
        }
        self.unknown_client(name, way, Part::Value, &ROLES)
    }
}
