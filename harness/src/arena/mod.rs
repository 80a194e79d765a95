//! The server side of a case: the mock, set up as the scenario says.

mod archive;
mod serve;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstop_mock::Server;
use backstop_mock::cluster::Cluster;
use backstop_mock::config::{Config, DamagedPages, ExtraFile, Source, TablespaceConfig, TlsConfig};
use backstop_mock::fault::{Action, Fault};
use backstop_mock::transcript::Direction;
use backstop_mock::units::ByteSize;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::WalSegmentSize;

pub use self::archive::furnish;
pub use self::serve::{Endpoint, Service, serve};
use crate::record::{ClientRecord, FaultRecord, Record};
use crate::scenario::Case;
use crate::scenario::model::{Slot, Tablespace};

/// The seed of a case: the scenario's own, or one made from its id, so that every story differs and every run is alike. The
/// combinations of a matrix and the steps of a sweep share it: nothing moves but what they name.
pub fn seed(case: &Case) -> u64 {
    // FNV-1a: any fixed function would do, as long as it never changes.
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    case.scenario.seed.unwrap_or_else(|| case.scenario_id().bytes().fold(0xCBF2_9CE4_8422_2325, hash))
}

/// The case as its server is: a real data directory says itself which release it is of, and which tablespaces a client has to
/// put elsewhere.
///
/// # Errors
/// A data directory that cannot be served.
pub fn settle(mut case: Case) -> Result<Case, String> {
    if let Source::Directory(_) = case.scenario.cluster.source {
        let config = config(&case, seed(&case), Path::new("/"))?;
        let cluster = Cluster::new(&config).map_err(|error| error.to_string())?;
        let tablespaces = cluster.tablespaces().into_iter().filter(|tablespace| !tablespace.in_place);
        let tablespaces = tablespaces.map(|tablespace| Tablespace {
            size: ByteSize(cluster.tablespace_size(Some(tablespace.oid))),
            oid: tablespace.oid,
            location: tablespace.location,
        });
        let scenario = Arc::make_mut(&mut case.scenario);
        scenario.cluster.tablespaces = tablespaces.collect();
        scenario.server.version = cluster.version();
    }
    Ok(case)
}

/// Stands in the target of a link for the absolute path of a directory that no client may touch. Names of members are in the
/// transcript, which is the same in every run, so that they cannot hold it.
const OUTSIDE: &str = "{outside}";

/// The mock's configuration for a case, in which hostile links lead to `outside`.
///
/// # Errors
/// What no such server can be.
pub fn config(case: &Case, seed: u64, outside: &Path) -> Result<Config, String> {
    let scenario = &case.scenario;
    let size = scenario.server.wal_segment_size.0;
    let wal_segment_size = WalSegmentSize::new(size).ok_or_else(|| {
        format!("wal-segment-size {} is not a power of two from 1MiB to 1GiB", scenario.server.wal_segment_size)
    })?;
    let synthetic = scenario.cluster.source == Source::Synthetic;
    let tablespaces = scenario.cluster.tablespaces.iter().filter(|_| synthetic).map(TablespaceConfig::from);
    Ok(Config {
        version: scenario.server.version,
        role: scenario.server.role,
        phase: scenario.server.phase,
        ready_after: scenario.server.ready_after.map(|after| after.0),
        timeline: TimelineId(scenario.server.timeline),
        checksums: scenario.server.checksums,
        wal_segment_size,
        max_wal_senders: scenario.server.max_wal_senders,
        auth: scenario.server.auth,
        hba: scenario.server.hba.clone(),
        roles: scenario.server.users.clone(),
        tls: scenario.server.tls.then(TlsConfig::default),
        settings: scenario.server.settings.clone(),
        source: scenario.cluster.source.clone(),
        size: scenario.cluster.size.0,
        tablespaces: tablespaces.collect(),
        extra_files: scenario.cluster.files.iter().map(ExtraFile::from).collect(),
        damaged_pages: scenario.cluster.damage.iter().map(DamagedPages::from).collect(),
        wal_start: scenario.cluster.wal_start,
        wal_rate: scenario.cluster.wal_rate.0,
        seed,
        faults: scenario.faults.iter().cloned().map(|fault| lead(fault, outside)).chain(scenario.starts()).collect(),
        ..Config::default()
    })
}

/// The fault with its links leading to `outside`.
fn lead(mut fault: Fault, outside: &Path) -> Fault {
    if let Action::RelinkMember { to: target }
    | Action::ExtraMember { target: Some(target), .. }
    | Action::ChangeRow { to: Some(target), .. } = &mut fault.r#do
    {
        *target = target.replace(OUTSIDE, &outside.display().to_string());
    }
    fault
}

/// Starts the mock, with the slots that clients expect to find.
///
/// # Errors
/// A data directory that cannot be served, a slot that cannot be made.
pub fn start(case: &Case, config: Config) -> Result<Server, String> {
    let server = Server::new(config).map_err(|error| error.to_string())?;
    let slots = case.scenario.clients.iter().map(|client| client.slot_on(case.scenario.server.version));
    let names = slots.filter_map(|slot| if let Slot::Existing(name) = slot { Some(name) } else { None });
    // Clients may share one.
    for name in names.collect::<BTreeSet<_>>() {
        server.cluster().create_slot(&name, false, true, 0).map_err(|error| error.message)?;
    }
    Ok(server)
}

/// Collects what is left of a run.
pub fn record(case: &Case, server: Server, clients: Vec<ClientRecord>) -> Record {
    let fired = server.fired();
    let faults = case.scenario.faults.iter().cloned().chain(case.scenario.starts()).enumerate();
    let faults = faults.map(|(index, fault)| FaultRecord {
        description: match &fault.r#do {
            Action::StartClient { client } => format!("{client} starts.{}", fault.when.name()),
            action => format!("when.{} do.{}", fault.when.name(), action.name()),
        },
        fired: fired.contains(&index),
    });
    Record {
        clients,
        state: server.state(),
        backups: server.backups(),
        faults: faults.collect(),
        transcript: server.transcript(),
        errors: errors(&server),
        session_counts: server.session_counts(),
        original: Box::new(server),
    }
}

/// The SQLSTATEs of the errors that were sent, with the connection's number.
fn errors(server: &Server) -> Vec<(u32, String)> {
    let transcript = server.transcript();
    let errors =
        transcript.iter().filter(|event| event.direction == Direction::Sent && event.message == "ErrorResponse");
    // `ERROR 58P01 requested WAL segment …`
    errors.filter_map(|event| Some((event.session, event.detail.split(' ').nth(1)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::document::SourceFile;
    use crate::scenario::load;

    #[test]
    fn hostile_links_lead_outside_and_names_stay() {
        let text = r#"
summary = "A link"
because = "It leads outside"
[[fault]]
when.member = { path = "PG_VERSION" }
do.extra-member = { name = "{outside}", kind = "symlink", target = "{outside}/file" }
[[fault]]
when.member = { path = "pg_tblspc/*" }
do.relink-member = { to = "{outside}" }
"#;
        let file = SourceFile { path: "case.toml".into(), text: text.into() };
        let cases = load::read("case", &file).expect("a scenario");
        let config = config(&cases[0], 0, Path::new("/forbidden")).expect("a server");
        let actions: Vec<_> = config.faults.into_iter().map(|fault| fault.r#do).collect();
        assert!(
            matches!(&actions[..], [Action::ExtraMember { name, target: Some(target), .. }, Action::RelinkMember { to }]
                if name == "{outside}" && target == "/forbidden/file" && to == "/forbidden"),
            "{actions:?}"
        );
    }
}
