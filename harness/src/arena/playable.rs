//! What of a scenario a real server can play, and why not the rest.

use std::time::Duration;

use backstop_mock::Phase;
use backstop_mock::config::{Role, Source};
use backstop_mock::fault::server::{StartBackup, StopBackup};
use backstop_mock::fault::{Action, Point};
use backstop_mock::proxy;
use backstop_protocol::version::ServerVersion;

use super::local_postgres::configuration::{DIRECTORY_MODE, GROUP_MODE};
use crate::scenario::Case;
use crate::scenario::model::{FileKind, Outcome, Scenario, Tool};

/// What remains of the 107 bytes that a name in an archive's header and a link's target can have, below the directory of a case.
const LONGEST_LOCATION: usize = 30;

/// `FirstNormalObjectId`: databases that somebody made.
const FIRST_NORMAL_OID: u32 = 16_384;

/// A new cluster has about so many bytes.
const SMALLEST_CLUSTER: u64 = 22 << 20;

/// Nobody waits longer than this for a client that is to reach its deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a server of `version` that the harness runs cannot play `case`, if it cannot.
pub(super) fn obstacle(case: &Case, version: ServerVersion) -> Option<String> {
    let scenario = &case.scenario;
    version_obstacle(scenario, version)
        .or_else(|| fault_obstacle(scenario, version))
        .or_else(|| server_obstacle(scenario))
        .or_else(|| receiving_obstacle(scenario))
        .or_else(|| patience_obstacle(scenario))
}

/// A story whose end is a deadline takes as long on a real server.
pub(super) fn patience_obstacle(scenario: &Scenario) -> Option<String> {
    let lasts = scenario.clients.iter().find(|client| {
        let expected = scenario.expect.clients.get(&client.name);
        let ends_late = expected.is_some_and(|expected| expected.must.outcome == Some(Outcome::Timeout));
        ends_late && client.timeout.0 > LONGEST_WAIT
    });
    if let Some(client) = lasts {
        return Some(format!("it takes {} by the clock on the wall", client.timeout));
    }
    let slow = scenario.clients.iter().find(|client| {
        let whole = client.max_rate.map(|rate| Duration::from_secs(SMALLEST_CLUSTER / rate.0.max(1)));
        whole.is_some_and(|whole| whole > client.timeout.0)
    })?;
    Some(format!("at the rate of {} a whole cluster takes longer than its client may", slow.name))
}

/// Whether the scenario is about another release.
pub(super) fn version_obstacle(scenario: &Scenario, version: ServerVersion) -> Option<String> {
    let wanted = scenario.server.version;
    (wanted != version).then(|| format!("the server is PostgreSQL {version}, the scenario's is {wanted}"))
}

/// What goes wrong is made to go wrong by the proxy before the server, or by the server for it, as far as they can.
fn fault_obstacle(scenario: &Scenario, version: ServerVersion) -> Option<String> {
    if scenario.sweep.is_some() {
        return Some("each step of a sweep would need a server of its own".to_owned());
    }
    let packed =
        scenario.clients.iter().any(|client| client.compress.as_ref().is_some_and(|how| how.starts_with("server-")));
    let hidden =
        |point: &Point| matches!(point, Point::ArchiveData { .. } | Point::Member { .. } | Point::ArchiveEnd { .. });
    if let Some(fault) = scenario.faults.iter().find(|fault| packed && hidden(&fault.when)) {
        return Some(format!("when.{}: archives that the server compresses cannot be looked into", fault.when.name()));
    }
    if let Some(path) = scenario.faults.iter().find_map(|fault| of_the_mock(&fault.when)) {
        return Some(format!("\"{path}\" is in the mock's cluster alone"));
    }
    scenario.faults.iter().find_map(|fault| {
        let what = fault.r#do.name();
        let why = proxy::obstacle(fault, true).map(str::to_owned).or_else(|| match &fault.r#do {
            Action::StartBackup(StartBackup { exclusive: true })
            | Action::StopBackup(StopBackup { exclusive: true })
                if !version.has_exclusive_backup() =>
            {
                Some("exclusive backups went with release 15".to_owned())
            }
            Action::Promote(_) if is_last_member(&fault.when) => {
                Some("when its last file passes, a real server has ended the backup".to_owned())
            }
            Action::RecycleWal(_) if matches!(fault.when, Point::WalData { .. }) => {
                Some("a real walsender has read what comes next before it can be removed".to_owned())
            }
            Action::RemoveFile(_)
            | Action::ShrinkFile(_)
            | Action::GrowFile(_)
            | Action::ChangeFile(_)
            | Action::AddFile(_) => Some("the files of a server that runs are its own".to_owned()),
            _ => None,
        })?;
        Some(format!("do.{what}: {why}"))
    })
}

fn server_obstacle(scenario: &Scenario) -> Option<String> {
    let server = &scenario.server;
    let cluster = &scenario.cluster;
    if server.replay.is_some() {
        return Some("it is played from a cassette".to_owned());
    }
    if let Some(name) = server.settings.keys().find(|name| name.starts_with("backstop.")) {
        return Some(format!("the setting {name} is the mock's alone"));
    }
    if let Some(mode) =
        server.settings.get(DIRECTORY_MODE).filter(|mode| !["0700", GROUP_MODE].contains(&mode.as_str()))
    {
        return Some(format!("no server has a data directory of mode {mode}"));
    }
    if server.phase != Phase::Running {
        return Some("a real server cannot be held in start-up".to_owned());
    }
    if server.role == Role::Standby && server.settings.get("hot_standby").is_some_and(|value| value == "off") {
        return Some("a standby that takes no queries does not tell when it is ready".to_owned());
    }
    if server.tls {
        return Some("under TLS nobody can take down what passes".to_owned());
    }
    if cluster.source != Source::Synthetic {
        return Some("the scenario brings a data directory of its own".to_owned());
    }
    if !cluster.damage.is_empty() {
        return Some("the pages to damage are named as the mock's cluster has them".to_owned());
    }
    if let Some(file) = cluster.files.iter().find(|file| is_a_servers_own(&file.path)) {
        return Some(format!("\"{}\" is the server's own file", file.path));
    }
    if cluster.files.iter().any(|file| matches!(file.kind, FileKind::Sparse(size) if size.0 > 64 << 20)) {
        return Some("the file is too large to be copied by everybody".to_owned());
    }
    if let Some(space) = cluster.tablespaces.iter().find(|space| space.location.len() > LONGEST_LOCATION) {
        return Some(format!("the location of tablespace {} is too long below the directory of a case", space.oid));
    }
    if let Some(space) = cluster.tablespaces.iter().find(|space| !space.location.starts_with(['/', 'p'])) {
        return Some(format!("the location \"{}\" is of another system", space.location));
    }
    if let Some(space) = cluster.tablespaces.iter().find(|space| space.location.contains('\'')) {
        return Some(format!("CREATE TABLESPACE refuses the single quote in the location of tablespace {}", space.oid));
    }
    if scenario.clients.iter().any(|client| client.tool == Tool::Parallel) {
        return Some("which files a backup with SQL has found when is known of the mock alone".to_owned());
    }
    None
}

/// Whether a client keeps an archive of WAL.
pub(super) fn receiving_obstacle(scenario: &Scenario) -> Option<String> {
    let receives = scenario.clients.iter().any(|client| client.tool == Tool::Receivewal);
    receives.then(|| "an archive of WAL is compared with the mock's WAL alone".to_owned())
}

/// The member at which a fault strikes, if it is of a database that new clusters do not have.
fn of_the_mock(point: &Point) -> Option<&str> {
    let Point::Member { path, .. } = point else { return None };
    let database = path.strip_prefix("base/")?.split('/').next()?.parse::<u32>().ok()?;
    (database >= FIRST_NORMAL_OID).then_some(path.as_str())
}

/// Whether a fault strikes at the file that a server sends last.
fn is_last_member(point: &Point) -> bool {
    matches!(point, Point::Member { path, .. } if path == "global/pg_control")
}

/// Whether PostgreSQL makes or reads this file itself.
fn is_a_servers_own(path: &str) -> bool {
    const OWN: [&str; 7] = [
        "backup_label",
        "tablespace_map",
        "postmaster.pid",
        "postmaster.opts",
        "recovery.signal",
        "standby.signal",
        "PG_VERSION",
    ];
    OWN.contains(&path)
}
