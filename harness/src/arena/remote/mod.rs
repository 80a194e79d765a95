//! A server that was there before and stays: whatever walsender a connection string leads to, PostgreSQL, a fork, a pooler.
//!
//! Nothing is known of it but what it says. So the mock of its release, set up with what it says of itself ([`facts`]), is the
//! reference: the same case is played there first, and what the server answers has to be what the mock does. Cases that would change
//! something on the server that outlives them ([`writes`]) are played only if that was allowed.

mod facts;
mod obstacle;
mod writes;

use std::collections::BTreeSet;
use std::sync::Arc;

use backstop_mock::config::RoleConfig;
use backstop_mock::units::ByteSize;
use backstop_protocol::command::{self, Command};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use self::facts::Facts;
use super::local_postgres::configuration::{literal, slot};
use super::real::{Kind, Left, Stage};
use super::sql::State;
use super::upstream::UpstreamServer;
use crate::oracle::alone::Alone;
use crate::scenario::Case;
use crate::scenario::credentials::Credentials;
use crate::scenario::model::{Slot, Tablespace};

/// A server that is not ours.
#[derive(Debug)]
pub struct Remote {
    upstream: Arc<UpstreamServer>,
    facts: Facts,
    credentials: Credentials,
    allow_writes: bool,
    /// Cases come one after another: what is left of one must not be taken for another's.
    turn: Arc<Mutex<()>>,
}

impl Remote {
    /// Finds out what the server at `conninfo` is. `warn` hears of password files that are not used.
    ///
    /// # Errors
    /// A connection string that makes no sense, nobody who answers, a server that refuses the user, or that is no walsender.
    pub(super) async fn find(conninfo: &str, allow_writes: bool, warn: impl FnMut(String)) -> Result<Self, String> {
        let upstream = UpstreamServer::new(conninfo, warn);
        let mut upstream = upstream.map_err(|error| format!("--server url: {error}"))?;
        upstream.reach().await.map_err(|error| error.to_string())?;
        upstream.log_in().await;
        let facts = Facts::of(&upstream).await?;
        let credentials = upstream.credentials();
        Ok(Self { upstream: Arc::new(upstream), facts, credentials, allow_writes, turn: Arc::default() })
    }

    /// The case as this server can play it, and as the mock has to be for it.
    pub fn adapted(&self, case: &Case) -> Case {
        let mut case = Case { credentials: self.credentials.clone(), ..case.clone() };
        let Facts { auth, segment_size, superuser, settings, tablespaces, .. } = &self.facts;
        let scenario = Arc::make_mut(&mut case.scenario);
        scenario.server.auth = *auth;
        scenario.server.wal_segment_size = ByteSize(segment_size.bytes());
        scenario.server.settings.extend(settings.iter().cloned());
        scenario.server.users = vec![RoleConfig {
            password: self.credentials.password.clone(),
            replication: true,
            superuser: *superuser,
            ..RoleConfig::new(&*self.credentials.user)
        }];
        let tablespaces = tablespaces.iter().map(|(oid, location)| Tablespace {
            oid: *oid,
            location: location.clone(),
            size: ByteSize(1 << 20),
        });
        scenario.cluster.tablespaces = tablespaces.collect();
        case
    }

    /// Why this server cannot play `case`, if it cannot.
    pub(super) fn cannot_play(&self, case: &Case) -> Option<String> {
        obstacle::obstacle(case, &self.facts, self.allow_writes)
    }

    /// Makes what the case needs on the server, when it is its turn.
    ///
    /// # Errors
    /// What the server says against it.
    pub(super) async fn stage(&self, case: &Case) -> Result<Stage, String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let version = self.facts.version;
        let slots = case.scenario.clients.iter().map(|client| client.slot_on(version));
        let existing: BTreeSet<String> =
            slots.filter_map(|slot| if let Slot::Existing(name) = slot { Some(name) } else { None }).collect();
        let mut before = BTreeSet::new();
        if self.facts.asked {
            let rows = self.upstream.run(&["SELECT slot_name FROM pg_replication_slots".to_owned()]).await?;
            before.extend(rows.into_iter().flatten().flatten());
            for name in existing.difference(&before) {
                self.upstream.run(&[slot(name)]).await?;
            }
        }
        let original = Alone {
            version,
            system_identifier: self.facts.system_identifier,
            segment_size: self.facts.segment_size,
            tablespaces: case.scenario.cluster.tablespaces.iter().map(super::tablespace).collect(),
        };
        let visit = Visit {
            upstream: Arc::clone(&self.upstream),
            original,
            names: case.scenario.clients.iter().map(|client| client.name.clone()).collect(),
            made: made(case, version),
            before,
            asked: self.facts.asked,
            _turn: turn,
        };
        let (upstream, kind) = (Arc::clone(&self.upstream), Kind::Remote(Box::new(visit)));
        Ok(Stage { case: case.clone(), upstream, held: None, hidden: Vec::new(), kind, writer: None })
    }
}

/// The names of the permanent slots that a case makes.
fn made(case: &Case, version: ServerVersion) -> BTreeSet<String> {
    let spoken = |command: &String| match command::parse(command, version).ok()?.command {
        Command::CreateReplicationSlot(slot) => Some(slot.slot),
        _ => None,
    };
    let clients = case.scenario.clients.iter();
    let names = clients.flat_map(|client| {
        client.slot_name().map(str::to_owned).into_iter().chain(client.commands.iter().filter_map(spoken))
    });
    names.collect()
}

/// A case's time on the server.
#[derive(Debug)]
pub(super) struct Visit {
    upstream: Arc<UpstreamServer>,
    original: Alone,
    /// The names of its clients.
    names: Vec<String>,
    /// The slots that it makes, and those that were there before it.
    made: BTreeSet<String>,
    before: BTreeSet<String>,
    /// Whether the server can be asked.
    asked: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Visit {
    /// The end: the server is asked what it holds of the case, and what the case made is removed.
    pub(super) async fn leave(self) -> Left {
        let mut log = String::new();
        let mut state = State::default();
        if self.asked {
            match self.upstream.sql().await {
                Ok(mut sql) => {
                    let names: Vec<_> = self.names.iter().map(|name| literal(name)).collect();
                    let whose = format!("application_name IN ({})", names.join(", "));
                    let told = sql.state_of(self.original.version, &whose).await;
                    state = told.unwrap_or_else(|problem| {
                        log = problem;
                        State::default()
                    });
                    state.slots.retain(|slot| !self.before.contains(&slot.name));
                    for name in state.slots.iter().map(|slot| &slot.name).filter(|name| self.made.contains(*name)) {
                        if let Err(problem) = sql.drop_slot(name).await {
                            log = format!("the slot \"{name}\" is left on the server: {problem}");
                        }
                    }
                    sql.close().await;
                }
                Err(problem) => log = problem,
            }
        }
        state.oldest_wal = Lsn::INVALID;
        Left { state, original: Box::new(self.original), log }
    }
}

impl Facts {
    /// The size that a server says in words: `16MB`.
    fn segment_size(text: &str) -> Option<WalSegmentSize> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let shift = match unit {
            "B" => 0,
            "kB" => 10,
            "MB" => 20,
            "GB" => 30,
            _ => return None,
        };
        WalSegmentSize::new(number.parse::<u64>().ok()?.checked_shl(shift)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_servers_print_them() {
        assert_eq!(Facts::segment_size("16MB").map(WalSegmentSize::bytes), Some(16 << 20));
        assert_eq!(Facts::segment_size("1GB").map(WalSegmentSize::bytes), Some(1 << 30));
        assert_eq!(Facts::segment_size("16"), None);
        assert_eq!(Facts::segment_size("3MB"), None);
    }
}
