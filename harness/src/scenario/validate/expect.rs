//! `[expect]`.

use super::{Checks, Result, at};
use crate::scenario::document::Part;
use crate::scenario::model::{Client, ClientClaims, Expect, Leaves, Outcome, ServerClaims, Tool};
use crate::scenario::way::Way;

impl Checks<'_> {
    pub(super) fn expectations(&self) -> Result {
        let expect = &self.scenario.expect;
        for (name, expectation) in &expect.clients {
            let way = at("expect").to(name.as_str());
            let Some(client) = self.scenario.client(name) else {
                return self.unknown_client(name, &way, Part::Key, &[Expect::SERVER]);
            };
            for (level, claims) in [("must", &expectation.must), ("should", &expectation.should)] {
                self.client_claims(claims, client, &way.clone().to(level))?;
            }
        }
        if let Some(expectation) = &expect.server {
            for (level, claims) in [("must", &expectation.must), ("should", &expectation.should)] {
                self.server_claims(claims, &at("expect").to(Expect::SERVER).to(level))?;
            }
        }
        Ok(())
    }

    fn client_claims(&self, claims: &ClientClaims, client: &Client, way: &Way) -> Result {
        let key = |key: &str| way.clone().to(key);
        if claims.holds.is_some() && client.tool != Tool::Receivewal {
            return self.refuse_key(&key("holds"), "holds is said of the archive of receivewal only");
        }
        if matches!(client.tool, Tool::Basebackup | Tool::Parallel) {
            match (claims.outcome, claims.leaves) {
                (Some(Outcome::Success), Some(Leaves::Nothing | Leaves::NothingRestorable)) => {
                    return self.refuse(&key("leaves"), "a success that leaves no backup is never right");
                }
                (Some(Outcome::Failure | Outcome::Killed), Some(Leaves::Restorable)) => {
                    return self.refuse(
                        &key("leaves"),
                        "a failure that leaves something that passes for a backup is never right",
                    );
                }
                _ => {}
            }
        }
        if claims.outcome == Some(Outcome::Killed) && self.scenario.signals_to(&client.name).is_empty() {
            let message = format!("no fault kills {:?}: outcome \"killed\" goes with do.kill-client", client.name);
            return self.refuse(&key("outcome"), message);
        }
        for (name, text) in [("says", &claims.says), ("names", &claims.names)] {
            if text.as_ref().is_some_and(String::is_empty) {
                return self.refuse(&key(name), format!("{name} is empty, so that anything holds it"));
            }
        }
        if let Some(sqlstate) = &claims.sqlstate {
            let plain = |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase();
            if sqlstate.len() != 5 || !sqlstate.bytes().all(plain) {
                let message = format!(
                    "invalid SQLSTATE {sqlstate:?}: expected five digits or upper-case letters such as \"58P01\""
                );
                return self.refuse(&key("sqlstate"), message);
            }
        }
        if let Some(within) = claims.within
            && within > client.timeout
        {
            let message = format!("within is longer than the client's timeout of {}", client.timeout);
            return self.refuse(&key("within"), message);
        }
        Ok(())
    }

    fn server_claims(&self, claims: &ServerClaims, way: &Way) -> Result {
        for (index, command) in claims.commands.iter().flatten().enumerate() {
            if command.is_empty() {
                return self.refuse(&way.clone().to("commands").to(index), "a command is empty");
            }
        }
        Ok(())
    }
}
