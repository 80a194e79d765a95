//! The server side of a case: the mock, set up as the scenario says, or a real server, if need be behind a proxy with the scenario's
//! faults.
//!
//! | server | see |
//! |---|---|
//! | the mock | [`config`], [`start`], [`record`] |
//! | a cassette that was recorded of any server | [`replay`](replay()) |
//! | PostgreSQL of this machine | [`local_postgres`] |
//! | PostgreSQL in containers | [`containers`] |
//! | any server that is there | [`remote`] |
//! | any server, behind the fault proxy, for whoever comes | [`proxy`](proxy()) |
//!
//! The clients of a run come to a real server through the fault proxy, too: see [`passage`].

mod archive;
pub mod containers;
mod data_directory;
pub mod local_postgres;
pub mod passage;
mod playable;
mod positions;
mod proxy;
mod real;
mod recording;
pub mod remote;
mod replay;
mod serve;
mod sql;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use backstop_mock::Server;
use backstop_mock::cluster::Cluster;
use backstop_mock::config::{Config, DamagedPages, ExtraFile, Source, TablespaceConfig, TlsConfig};
use backstop_mock::fault::archive::{ExtraMember, RelinkMember};
use backstop_mock::fault::client::StartClient;
use backstop_mock::fault::server::ChangeRow;
use backstop_mock::fault::{Action, Fault};
use backstop_mock::transcript::Direction;
use backstop_mock::units::ByteSize;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::WalSegmentSize;

pub use self::archive::furnish;
use self::containers::Containers;
use self::local_postgres::LocalPostgres;
pub use self::passage::{Passage, SharedCapture};
pub use self::proxy::{ProxyService, proxy};
pub use self::real::Stage;
use self::remote::Remote;
pub use self::replay::{Replaying, cassette, player, replay};
pub use self::serve::{Endpoint, ServeError, Service, serve};
pub use self::upstream::UpstreamServer;
use crate::cassette::Recorded;
use crate::oracle::original::Original as _;
use crate::plan::ServerSpec;
use crate::record::{ClientRecord, FaultRecord, Record};
use crate::scenario::Case;
use crate::scenario::model::{Slot, Tablespace};

/// The servers of a run.
#[derive(Debug)]
pub enum Arena {
    /// The mock, a new one for every case.
    Mock,
    /// The mock again, but reached over TCP and heard by a witness as real servers are.
    MockBehindProxy,
    /// PostgreSQL of this machine, a new server for every case.
    Local(LocalPostgres),
    /// The same in containers.
    Containers(Containers),
    /// One that was there before.
    Remote(Remote),
}

/// How servers are put up.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArenaOptions<'a> {
    /// Where they are to keep their files, if not wherever there is room.
    pub scratch: Option<&'a Path>,
    /// Whether something may be left on a server that is not ours.
    pub allow_writes: bool,
}

impl Arena {
    /// Looks for what `spec` says.
    ///
    /// # Errors
    /// That it is not there.
    pub async fn prepare(spec: &ServerSpec, options: ArenaOptions<'_>) -> Result<Self, String> {
        match spec {
            ServerSpec::Mock => Ok(Self::Mock),
            ServerSpec::Postgres(bin) => LocalPostgres::find(bin, options.scratch).map(Self::Local),
            ServerSpec::Docker(image) => Containers::find(image.as_deref(), options.scratch).map(Self::Containers),
            ServerSpec::Url(conninfo) => {
                let warn = |warning: String| anstream::eprintln!("warning: {warning}");
                Remote::find(&conninfo.0, options.allow_writes, warn).await.map(Self::Remote)
            }
        }
    }

    /// Why these servers cannot play `case`, if they cannot.
    pub fn cannot_play(&self, case: &Case) -> Option<String> {
        match self {
            Self::Mock | Self::MockBehindProxy => None,
            Self::Local(local) => local.cannot_play(case),
            Self::Containers(containers) => containers.cannot_play(case),
            Self::Remote(remote) => remote.cannot_play(case),
        }
    }

    /// Whether it is no mock.
    pub fn is_real(&self) -> bool {
        !matches!(self, Self::Mock | Self::MockBehindProxy)
    }

    /// Why no more servers can be put up, if that is so.
    pub fn gone(&self) -> Option<String> {
        match self {
            Self::Local(local) => local.gone(),
            Self::Containers(containers) => containers.gone(),
            Self::Mock | Self::MockBehindProxy | Self::Remote(_) => None,
        }
    }

    /// Why no case at all could be played, if that is so.
    pub fn nothing(&self) -> Option<String> {
        match self {
            Self::Containers(containers) => containers.nothing(),
            _ => None,
        }
    }

    /// The case as both these servers and the mock can play it.
    pub fn adapted(&self, case: &Case) -> Case {
        match self {
            Self::Remote(remote) => remote.adapted(case),
            Self::Mock | Self::MockBehindProxy | Self::Local(_) | Self::Containers(_) => case.clone(),
        }
    }

    /// Puts up a real server for `case`; none if the mock plays it in this process. Hostile links lead to `outside`.
    ///
    /// # Errors
    /// Why it does not come up.
    pub async fn stage(&self, case: &Case, outside: &Path) -> Result<Option<Stage>, String> {
        match self {
            Self::Mock => Ok(None),
            Self::MockBehindProxy => {
                let server = start(case, config(case, seed(case), outside)?)?;
                Stage::mock(case.clone(), server).map(Some).map_err(|error| error.to_string())
            }
            Self::Local(local) => local.stage(case).await.map(Some),
            Self::Containers(containers) => containers.servers(case)?.stage(case).await.map(Some),
            Self::Remote(remote) => remote.stage(case).await.map(Some),
        }
    }
}

/// The faults at whose points clients start, with their numbers among all faults.
pub fn starts(case: &Case) -> Vec<(usize, Fault)> {
    (case.scenario.faults.len()..).zip(case.scenario.starts()).collect()
}

/// The seed of a case: the scenario's own, or one made from its id, so that every story differs and every run is alike. The
/// combinations of a matrix and the steps of a sweep share it: nothing moves but what they name.
pub fn seed(case: &Case) -> u64 {
    // FNV-1a: any fixed function would do, as long as it never changes.
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    case.scenario.seed.unwrap_or_else(|| case.scenario_id().bytes().fold(0xCBF2_9CE4_8422_2325, hash))
}

/// The case as its server is: a real data directory or a cassette says itself which release it is of, and which tablespaces a client has to
/// put elsewhere.
///
/// # Errors
/// A data directory that cannot be served, a cassette that cannot be played.
pub fn settle(mut case: Case) -> Result<Case, String> {
    if let Some(player) = player(&case)? {
        let recorded = Recorded::new(player);
        let tablespaces = recorded.tablespaces().into_iter().filter(|tablespace| !tablespace.in_place);
        let tablespaces = tablespaces.map(|tablespace| Tablespace {
            oid: tablespace.oid,
            location: tablespace.location,
            size: ByteSize(0),
        });
        let scenario = Arc::make_mut(&mut case.scenario);
        scenario.cluster.tablespaces = tablespaces.collect();
        scenario.server.version = recorded.version();
    }
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

/// A scenario's tablespace as oracles know it.
fn tablespace(space: &Tablespace) -> backstop_mock::cluster::Tablespace {
    let (oid, location) = (space.oid, space.location.clone());
    backstop_mock::cluster::Tablespace { oid, in_place: location.starts_with("pg_tblspc/"), location }
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
        flavour: scenario.server.flavour,
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
    if let Action::RelinkMember(RelinkMember { to: target })
    | Action::ExtraMember(ExtraMember { target: Some(target), .. })
    | Action::ChangeRow(ChangeRow { to: Some(target), .. }) = &mut fault.r#do
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
    let faults =
        faults.map(|(index, fault)| FaultRecord { description: description(&fault), fired: fired.contains(&index) });
    Record {
        clients,
        state: server.state(),
        backups: server.backups(),
        faults: faults.collect(),
        transcript: server.transcript(),
        errors: errors(&server),
        session_counts: server.session_counts(),
        original: Box::new(server),
        said: BTreeMap::new(),
        log: String::new(),
    }
}

/// A fault in the words of its scenario.
fn description(fault: &Fault) -> String {
    match &fault.r#do {
        Action::StartClient(StartClient { client }) => format!("{client} starts.{}", fault.when.name()),
        action => format!("when.{} do.{}", fault.when.name(), action.name()),
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
            matches!(&actions[..], [Action::ExtraMember(ExtraMember { name, target: Some(target), .. }), Action::RelinkMember(RelinkMember { to })]
                if name == "{outside}" && target == "/forbidden/file" && to == "/forbidden"),
            "{actions:?}"
        );
    }
}
