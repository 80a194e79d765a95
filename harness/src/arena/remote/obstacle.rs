//! What of a scenario a server can play that is not ours, and why not the rest.

use backstop_mock::Phase;
use backstop_mock::config::{Auth, Role};
use backstop_protocol::version::Flavour;

use super::Facts;
use super::writes::writes;
use crate::arena::playable::{patience_obstacle, receiving_obstacle, version_obstacle};
use crate::scenario::Case;
use crate::scenario::model::{Cluster, Scenario, Server, Slot};

/// Why the server cannot play `case`, if it cannot.
pub(super) fn obstacle(case: &Case, facts: &Facts, allow_writes: bool) -> Option<String> {
    let scenario = &case.scenario;
    version_obstacle(scenario, facts.version)
        .or_else(|| fault_obstacle(scenario))
        .or_else(|| server_obstacle(scenario, facts))
        .or_else(|| cluster_obstacle(scenario))
        .or_else(|| receiving_obstacle(scenario))
        .or_else(|| patience_obstacle(scenario))
        .or_else(|| {
            let unanswered = scenario.expect.server.is_some() && !facts.asked;
            unanswered.then(|| "this user may not ask the server in SQL what it holds in the end".to_owned())
        })
        .or_else(|| if allow_writes { None } else { write_obstacle(scenario, facts) })
}

fn fault_obstacle(scenario: &Scenario) -> Option<String> {
    let fault = scenario.faults.first()?;
    Some(format!("do.{} would strike somebody else's server; see backstop proxy", fault.r#do.name()))
}

/// Everything that somebody would have to set up.
fn server_obstacle(scenario: &Scenario, facts: &Facts) -> Option<String> {
    let server = &scenario.server;
    let usual = Server::default();
    let standby = server.role == Role::Standby;
    if server.replay.is_some() {
        return Some("it is played from a cassette".to_owned());
    }
    if server.flavour != Flavour::Stock {
        return Some(format!("the scenario's server is built as {}", server.flavour));
    }
    if standby != facts.standby {
        let is = |standby: bool| if standby { "standby" } else { "primary" };
        return Some(format!("the server is a {}, the scenario's is a {}", is(facts.standby), is(standby)));
    }
    if server.timeline != facts.timeline && server.timeline != usual.timeline {
        return Some(format!("the server is on timeline {}, the scenario's on {}", facts.timeline, server.timeline));
    }
    if facts.checksums.is_some_and(|checksums| checksums != server.checksums) && !server.checksums {
        return Some("the server's pages have checksums, the scenario's have none".to_owned());
    }
    if server.wal_segment_size != usual.wal_segment_size && server.wal_segment_size.0 != facts.segment_size.bytes() {
        return Some(format!("it needs WAL segments of {}", server.wal_segment_size));
    }
    if let Some(name) = server.settings.keys().next() {
        return Some(format!("it needs the setting {name}"));
    }
    if server.phase != Phase::Running {
        return Some("a server cannot be held in start-up".to_owned());
    }
    if server.auth != Auth::Trust || !server.users.is_empty() || !server.hba.is_empty() || server.tls {
        return Some("it needs roles and rules of its own".to_owned());
    }
    (server.max_wal_senders != usual.max_wal_senders)
        .then(|| format!("it needs max_wal_senders = {}", server.max_wal_senders))
}

fn cluster_obstacle(scenario: &Scenario) -> Option<String> {
    let usual = Cluster::default();
    let Cluster { source, wal_start, wal_rate, tablespaces, files, damage, .. } = &scenario.cluster;
    if *source != usual.source {
        return Some("the scenario brings a data directory of its own".to_owned());
    }
    if !tablespaces.is_empty() || !files.is_empty() || !damage.is_empty() {
        return Some("it needs files and tablespaces of its own".to_owned());
    }
    (wal_start.is_some() || *wal_rate != usual.wal_rate).then(|| "it needs WAL of its own".to_owned())
}

/// What outlives the case on the server.
fn write_obstacle(scenario: &Scenario, facts: &Facts) -> Option<String> {
    let slots = scenario.clients.iter().filter_map(|client| client.slot.as_ref());
    let mut named = slots.filter_map(|slot| match slot {
        Slot::Create(name) | Slot::Existing(name) => Some(name),
        Slot::None | Slot::Temporary => None,
    });
    if let Some(name) = named.next() {
        return Some(format!("it creates the slot \"{name}\", which --allow-writes allows"));
    }
    scenario.clients.iter().find_map(|client| {
        let of_database = client.database.is_some();
        let found = client.commands.iter().find_map(|command| writes(command, facts.version, of_database));
        found.map(|what| format!("it {what}, which --allow-writes allows"))
    })
}
