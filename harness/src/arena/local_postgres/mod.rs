//! PostgreSQL of this machine: for every case a server of its own, as the scenario says, in a directory that goes with it.

pub(super) mod configuration;
mod container;
mod process;
mod root;
mod running;
mod setting;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use backstop_mock::config::Role;
use backstop_protocol::version::ServerVersion;

use self::configuration::SUPERUSER;
use self::container::Container;
pub(super) use self::container::engine;
use self::root::Root;
use self::running::Server;
use self::setting::Setting;
use super::data_directory::DataDirectory;
use super::playable;
use super::positions;
use super::real::{Kind, Left, Stage};
use super::sql;
use crate::oracle::original::Original as _;
use crate::oracle::postgres::{Installation, server_user};
use crate::scenario::Case;

/// How often a port is chosen that somebody else takes before the server does.
const PORTS: u32 = 5;

/// A new cluster has about so much in its base directory: what the scenario wants beyond that is loaded.
const NEW_CLUSTER: u64 = 24 << 20;

/// The programs of one release, and the directory of this run.
#[derive(Debug)]
pub struct LocalPostgres {
    installation: Installation,
    version: ServerVersion,
    builds: Builds,
    root: Arc<Home>,
    templates: Mutex<BTreeMap<TemplateKey, PathBuf>>,
}

/// Where servers run and keep their files. The container goes before the directory that it sees.
#[derive(Debug)]
struct Home {
    container: Option<Container>,
    root: Root,
}

/// What a server was built with, as far as `pg_config` tells.
#[derive(Debug)]
struct Builds {
    lz4: bool,
    zstd: bool,
}

impl Builds {
    fn of(installation: &Installation) -> Self {
        let told = installation.tool("pg_config").arg("--configure").output().ok().filter(|told| told.status.success());
        // Where nothing is told, the server says by itself what it lacks.
        let has =
            |option: &str| told.as_ref().is_none_or(|told| String::from_utf8_lossy(&told.stdout).contains(option));
        Self { lz4: has("--with-lz4"), zstd: has("--with-zstd") }
    }

    fn compress(&self, with: &str) -> bool {
        match with.split(':').next() {
            Some("lz4") => self.lz4,
            Some("zstd") => self.zstd,
            _ => true,
        }
    }
}

/// What makes one new cluster differ from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TemplateKey {
    checksums: bool,
    /// Bytes of a segment of WAL.
    segment_size: u64,
    /// Whether the group may read.
    group_access: bool,
}

impl LocalPostgres {
    /// The programs in `bin`. Everything of the run lies in `scratch`, or wherever there is room.
    ///
    /// # Errors
    /// Why there are none, or no directory.
    pub fn find(bin: &Path, scratch: Option<&Path>) -> Result<Self, String> {
        let (installation, version) = Installation::in_directory(bin)?;
        Self::check(&installation, version).map_err(|problem| format!("{} holds {problem}", bin.display()))?;
        let root = Root::make(server_user()?, scratch).map_err(failed("could not make a directory for servers"))?;
        Ok(Self::of(installation, version, root, None))
    }

    /// The programs of `image`, in a container of their own, which sees the directory of this run.
    ///
    /// # Errors
    /// Why there is no such container, or no PostgreSQL in it.
    pub(super) fn in_container(engine: &Path, image: &str, scratch: Option<&Path>) -> Result<Self, String> {
        let root = Root::make(server_user()?, scratch).map_err(failed("could not make a directory for servers"))?;
        let container = Container::start(engine, image, root.path())?;
        let (installation, version) =
            Installation::inside(container.inside()).map_err(|problem| format!("image {image}: {problem}"))?;
        Self::check(&installation, version).map_err(|problem| format!("image {image} holds {problem}"))?;
        Ok(Self::of(installation, version, root, Some(container)))
    }

    fn check(installation: &Installation, version: ServerVersion) -> Result<(), String> {
        for program in ["initdb", "postgres", "pg_resetwal"] {
            if !installation.has(program) {
                return Err(format!("no {program}"));
            }
        }
        if version < ServerVersion::V12 {
            return Err(format!("PostgreSQL {version}: servers are run since 12"));
        }
        Ok(())
    }

    fn of(installation: Installation, version: ServerVersion, root: Root, container: Option<Container>) -> Self {
        let builds = Builds::of(&installation);
        let root = Arc::new(Home { container, root });
        Self { installation, version, builds, root, templates: Mutex::default() }
    }

    /// Why no more servers can be put up, if that is so: their container has ended.
    pub(super) fn gone(&self) -> Option<String> {
        self.root.container.as_ref().and_then(Container::problem)
    }

    /// The release.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Why this server cannot play `case`, if it cannot.
    pub(super) fn cannot_play(&self, case: &Case) -> Option<String> {
        playable::obstacle(case, self.version).or_else(|| {
            let clients = case.scenario.clients.iter().filter_map(|client| client.compress.as_deref());
            let mut asked = clients.filter_map(|compress| compress.strip_prefix("server-"));
            let missing = asked.find(|compress| !self.builds.compress(compress))?;
            Some(format!("this PostgreSQL was built without {}", missing.split(':').next().unwrap_or(missing)))
        })
    }

    /// Puts up the server of `case`.
    ///
    /// # Errors
    /// What a program, the server or the operating system says.
    pub(super) async fn stage(&self, case: &Case) -> Result<Stage, String> {
        let place =
            self.root.root.directory(&self.installation, "case").map_err(failed("could not make a directory"))?;
        let place = Place { path: place, _root: Arc::clone(&self.root) };
        let setting = Setting { local: self, case, place: &place.path };
        let (data, segment_size) = setting.cluster()?;
        let mut case = case.clone();
        setting.own_tablespaces(&mut case);
        let setting = Setting { case: &case, ..setting };
        let mut server = setting.furnished(&data).await?;
        let mut primary = None;
        let stands;
        if case.scenario.server.role == Role::Standby {
            server.stop().await?;
            let (upstream, standby, segment) = setting.standby(&data, segment_size).await?;
            primary = Some(upstream);
            server = standby;
            stands = segment;
        } else {
            let mut sql = server.sql().await?;
            stands = sql.begin_segment(segment_size).await?;
            sql.close().await;
        }
        let data = if primary.is_some() { setting.place.join("standby") } else { data };
        let mut sql = server.sql().await?;
        for name in setting.existing_slots() {
            sql.run(&configuration::slot(&name)).await?;
        }
        sql.close().await;
        let writer = match case.scenario.cluster.wal_rate.0 {
            0 => None,
            rate => Some(sql::write_wal(primary.as_ref().unwrap_or(&server).sql().await?, rate)),
        };
        let upstream = server.upstream(self.version);
        positions::shift(Arc::make_mut(&mut case.scenario), stands, segment_size);
        let tablespaces = &case.scenario.cluster.tablespaces;
        let original = DataDirectory::new(self.version, segment_size, data, tablespaces, self.installation.clone());
        let hidden = vec![place.path.join("ts").display().to_string()];
        let kind = Kind::Local(Box::new(Local { server, primary, original, place }));
        let upstream = Arc::new(upstream);
        Ok(Stage { case, upstream: Arc::clone(&upstream) as _, held: Some(upstream), hidden, kind, writer })
    }

    /// A new cluster, made once for all cases that want one like it.
    fn template(&self, key: TemplateKey) -> Result<PathBuf, String> {
        // Whoever comes second waits.
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = templates.get(&key) {
            return Ok(path.clone());
        }
        let TemplateKey { checksums, segment_size, group_access } = key;
        let path =
            self.root.root.directory(&self.installation, "template").map_err(failed("could not make a directory"))?;
        let mut initdb = self.installation.server_tool("initdb");
        initdb.args(["-U", SUPERUSER, "-A", "trust", "-N", "--no-locale", "-E", "UTF8"]);
        match (checksums, self.version >= ServerVersion::V18) {
            (true, false) => drop(initdb.arg("--data-checksums")),
            (false, true) => drop(initdb.arg("--no-data-checksums")),
            _ => {}
        }
        if group_access {
            initdb.arg("--allow-group-access");
        }
        initdb.arg(format!("--wal-segsize={}", segment_size >> 20)).arg("-D").arg(path.join("data"));
        succeed(&mut initdb, "initdb")?;
        templates.insert(key, path.clone());
        Ok(path)
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Runs a program that has to succeed.
fn succeed(command: &mut Command, name: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("could not run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stderr[..], &output.stdout[..]].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("{name}: {}", said.trim().lines().next_back().unwrap_or("failed without a word")))
}

/// The directory of a case, which goes with the value.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// It stays until the last case has gone.
    _root: Arc<Home>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // What remains goes with the whole.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What a case has of this machine. The server goes before its directory does.
#[derive(Debug)]
pub(super) struct Local {
    server: Server,
    primary: Option<Server>,
    original: DataDirectory,
    place: Place,
}

impl Local {
    /// The end: the server is asked what it holds, and stopped where it stands, so that its files stay as clients found them.
    pub(super) async fn leave(self) -> Left {
        let mut state = match self.server.sql().await {
            Ok(mut sql) => sql.state(self.original.version()).await.unwrap_or_default(),
            // It has gone: nobody is connected, and nothing runs.
            Err(_) => sql::State::default(),
        };
        state.oldest_wal = self.original.oldest_wal();
        let log = self.server.end().await;
        if let Some(primary) = self.primary {
            primary.end().await;
        }
        Left { state, original: Box::new(self.original.kept_by(Box::new(self.place))), log }
    }
}
