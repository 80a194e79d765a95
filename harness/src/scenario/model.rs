//! What a scenario file says, table by table and key by key.
//!
//! One case has one [`Scenario`]: `[matrix]` is applied before the model is read, so it has no place here. Every enum is
//! externally tagged and every table refuses unknown keys, so that an error knows its line and column. The model holds no
//! positions itself: whoever finds fault with a value names it by its path, and the document that it was read from knows where
//! that stands.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use backstop_mock::Phase;
pub use backstop_mock::config::{Auth, HbaRule, Role, RoleConfig, Source};
use backstop_mock::config::{DamagedPages, ExtraFile, ExtraFileKind, TablespaceConfig};
use backstop_mock::units::{ByteRate, ByteSize, Span};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::{Flavour, ServerVersion};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::sweep::Sweep;
use backstop_mock::fault::client::{KillClient, StartClient};
use backstop_mock::fault::{Action, Fault, Point, Signal};

/// The name of the client that a scenario has if it says nothing else.
pub const DEFAULT_CLIENT: &str = "backup";

/// A scenario: one story about base backups, its server, its clients, what goes wrong and what must come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in one sentence.
    pub summary: String,
    /// Why this matters: a bug, a commit, a thread, or one sentence.
    pub because: String,
    /// Words to choose scenarios by: `backstop run --filter TAG`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The seed of everything random. Without it, one is made from the case's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What the server is.
    #[serde(default)]
    pub server: Server,
    /// What the server has.
    #[serde(default)]
    pub cluster: Cluster,
    /// The clients under test. Without any there is one, `backup`, with every default.
    #[serde(default = "default_clients", rename = "client")]
    pub clients: Vec<Client>,
    /// What goes wrong, and when. Each fires once unless its point says otherwise.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// What must come of it, by client name, and for the server under `server`.
    #[serde(default)]
    pub expect: Expect,
    /// The fault that makes this a sweep: `when.every`. The loader takes it out of the faults, where the point of its
    /// first step stands for it.
    #[serde(skip)]
    pub sweep: Option<Sweep>,
}

fn default_clients() -> Vec<Client> {
    vec![Client::default()]
}

impl Scenario {
    /// The client with whose target `client` works: its own, as a rule.
    pub fn owner_of_target<'a>(&'a self, client: &'a Client) -> &'a Client {
        match &client.target {
            Target::SameAs(other) => self.client(other).unwrap_or(client),
            _ => client,
        }
    }

    /// The deadly signals that faults send to the client called `name`. One that names no client may mean any.
    pub fn signals_to(&self, name: &str) -> Vec<Signal> {
        let signals = self.faults.iter().filter_map(|fault| match &fault.r#do {
            Action::KillClient(KillClient { client, signal })
                if client.as_ref().is_none_or(|client| client == name) =>
            {
                Some(*signal)
            }
            _ => None,
        });
        signals.filter(|signal| signal.is_deadly()).collect()
    }

    /// The faults at whose points clients start, in the order of the clients that do not start at once.
    pub fn starts(&self) -> Vec<Fault> {
        let starts = self.clients.iter().filter_map(|client| {
            let after = |base: &String| Point::ClientEnd { client: Some(base.clone()), nth: 1 };
            let when = client.starts.clone().or_else(|| client.incremental_from.as_ref().map(after))?;
            Some(Fault { when, r#do: Action::StartClient(StartClient { client: client.name.clone() }) })
        });
        starts.collect()
    }

    /// The client called `name`.
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.name == name)
    }
}

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Server {
    /// The PostgreSQL release: `"9.1"` to `"9.6"`, `"10"` to `"18"`.
    pub version: ServerVersion,
    /// A cassette that is played in place of a server, as a path from the directory of this file (`backstop proxy --record`). All else
    /// of `server` and `cluster` is what was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<PathBuf>,
    /// What it is built from: `"incremental-poc"` takes incremental backups by LSN, as the proof of concept of 2014 did.
    #[serde(skip_serializing_if = "is_stock")]
    pub flavour: Flavour,
    /// Whether it is a primary or a standby.
    pub role: Role,
    /// What it does with connections at the start: it can be starting up, or recovering, and not running yet.
    #[serde(skip_serializing_if = "is_running")]
    pub phase: Phase,
    /// How long after the first connection it runs, where it does not at the start. Never, without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_after: Option<Span>,
    /// Its timeline, from 1.
    pub timeline: u32,
    /// Whether data pages have checksums.
    pub checksums: bool,
    /// The size of a WAL segment: a power of two from `"1MiB"` to `"1GiB"`, and `"16MiB"` before release 11.
    pub wal_segment_size: ByteSize,
    /// `max_wal_senders`: how many replication connections it accepts at a time.
    pub max_wal_senders: u32,
    /// How clients authenticate, where no rule of `hba` says so.
    pub auth: Auth,
    /// Whether it accepts TLS, with a certificate for `localhost`, `127.0.0.1` and `::1`.
    pub tls: bool,
    /// The lines of its `pg_hba.conf`, of which the first that matches a connection decides. Without any, `auth` decides for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hba: Vec<HbaRule>,
    /// Its roles. Without any there is one of every name, with REPLICATION and the password `secret`; clients log in as
    /// `backstop` with this password.
    #[serde(rename = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<RoleConfig>,
    /// Further settings, as SHOW prints them.
    pub settings: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_stock(flavour: &Flavour) -> bool {
    *flavour == Flavour::Stock
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_running(phase: &Phase) -> bool {
    *phase == Phase::Running
}

impl Default for Server {
    fn default() -> Self {
        Self {
            version: ServerVersion::NEWEST,
            replay: None,
            flavour: Flavour::Stock,
            role: Role::Primary,
            phase: Phase::Running,
            ready_after: None,
            timeline: 1,
            checksums: true,
            wal_segment_size: ByteSize(16 << 20),
            max_wal_senders: 10,
            auth: Auth::Trust,
            tls: false,
            hba: Vec::new(),
            users: Vec::new(),
            settings: BTreeMap::new(),
        }
    }
}

/// What the server has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Cluster {
    /// Where its files come from.
    pub source: Source,
    /// About how large the base directory of a synthetic cluster is, without tablespaces and WAL.
    pub size: ByteSize,
    /// Where WAL stands when the clients connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_start: Option<Lsn>,
    /// How fast WAL grows: `"16MiB/s"`, or `"0"`.
    pub wal_rate: ByteRate,
    /// Its tablespaces besides `pg_default` and `pg_global`.
    #[serde(rename = "tablespace")]
    pub tablespaces: Vec<Tablespace>,
    /// Files in its data directory that are not PostgreSQL's.
    #[serde(rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ClusterFile>,
    /// Pages that do not agree with their checksums.
    #[serde(rename = "damage", skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            source: Source::Synthetic,
            size: ByteSize(8 << 20),
            wal_start: None,
            wal_rate: ByteRate(0),
            tablespaces: Vec::new(),
            files: Vec::new(),
            damage: Vec::new(),
        }
    }
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tablespace {
    /// Its OID, from 16384: the name of its archive and of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its absolute path on the server.
    pub location: String,
    /// About how large it is.
    #[serde(default = "default_tablespace_size")]
    pub size: ByteSize,
}

impl From<&Tablespace> for TablespaceConfig {
    fn from(tablespace: &Tablespace) -> Self {
        let Tablespace { oid, location, size } = tablespace;
        Self { oid: *oid, location: location.clone(), size: size.0 }
    }
}

/// A file in the data directory that is not PostgreSQL's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClusterFile {
    /// Where it is, below the data directory.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A file with this content.
    Text(String),
    /// A sparse file of zeros.
    Sparse(ByteSize),
    /// A directory.
    Directory,
    /// A fifo, a socket, a device or a link: nothing that a backup can hold.
    Special,
}

impl From<&ClusterFile> for ExtraFile {
    fn from(file: &ClusterFile) -> Self {
        let (kind, mode) = match &file.kind {
            FileKind::Text(text) => (ExtraFileKind::Content(text.clone().into_bytes()), 0o600),
            FileKind::Sparse(size) => (ExtraFileKind::Sparse(size.0), 0o600),
            FileKind::Directory => (ExtraFileKind::Directory, 0o700),
            FileKind::Special => (ExtraFileKind::Special, 0o600),
        };
        Self { path: file.path.clone().into_bytes(), kind, mode }
    }
}

/// Pages of one file whose content has changed behind the server's back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Damage {
    /// The file as in the manifest: `base/16384/16385`.
    pub path: String,
    /// Blocks of that file, from 0.
    pub blocks: Vec<u32>,
}

impl From<&Damage> for DamagedPages {
    fn from(damage: &Damage) -> Self {
        Self { path: damage.path.clone(), blocks: damage.blocks.clone() }
    }
}

fn default_tablespace_size() -> ByteSize {
    ByteSize(1 << 20)
}

/// A client under test: what it is to do. How a given tool is told to do it is up to its adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Client {
    /// Its name in faults and expectations, and its `application_name`.
    pub name: String,
    /// What kind of client it is.
    pub tool: Tool,
    /// How the backup is stored.
    pub format: Format,
    /// How the WAL of the backup gets into it. A `parallel` client does not stream it: `"fetch"`, its default, fetches segments again
    /// and again while the backup runs.
    pub wal: WalMethod,
    /// Over how many connections a `parallel` client fetches files: 1 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZero<usize>>,
    /// The replication slot of the WAL connection. Without it: temporary if the WAL is streamed, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The checksums in the manifest. Without it: CRC32C where the server knows manifests, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// How the checkpoint at the start is done.
    pub checkpoint: Checkpoint,
    /// The fastest that the server may send: `"32KiB/s"` to `"1GiB/s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<ByteRate>,
    /// Who compresses and how: `"client-gzip"`, `"server-zstd:5"`, as `pg_basebackup --compress` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// The client whose backup this incremental backup is based on. A `parallel` client leaves out files that have not changed since that
    /// backup started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental_from: Option<String>,
    /// What lies where its backup is to go.
    #[serde(skip_serializing_if = "is_missing")]
    pub target: Target,
    /// Where `receivewal` ends, as `pg_receivewal --endpos` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpos: Option<Lsn>,
    /// What `commands` sends, one after another on one connection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// The database that `commands` connects to: it can then speak SQL, too (`replication=database`). Without it: a physical walsender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What lies in the archive of `receivewal` before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<ArchivedFile>,
    /// Whether `receivewal` forces WAL to disk as it comes, and reports it at once.
    #[serde(skip_serializing_if = "is_false")]
    pub synchronous: bool,
    /// Whether `receivewal` makes a lost connection again, five seconds later.
    #[serde(skip_serializing_if = "is_false")]
    pub reconnects: bool,
    /// The deadline: a client that has not ended by then hangs.
    pub timeout: Span,
    /// When it starts, if not at once: `starts.client-end = { client = "first" }`. One that builds on another's backup starts
    /// when that client has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<Point>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            name: DEFAULT_CLIENT.to_owned(),
            tool: Tool::Basebackup,
            format: Format::Plain,
            wal: WalMethod::Stream,
            jobs: None,
            slot: None,
            manifest: None,
            checkpoint: Checkpoint::Fast,
            max_rate: None,
            compress: None,
            incremental_from: None,
            target: Target::Missing,
            endpos: None,
            commands: Vec::new(),
            database: None,
            has: Vec::new(),
            synchronous: false,
            reconnects: false,
            timeout: Span(Duration::from_secs(60)),
            starts: None,
        }
    }
}

impl Client {
    /// The slot, the default resolved for a server of this release.
    pub fn slot_on(&self, version: ServerVersion) -> Slot {
        let streams = self.tool == Tool::Basebackup && self.wal == WalMethod::Stream;
        let default = if streams && version.has_temporary_slots() { Slot::Temporary } else { Slot::None };
        self.slot.clone().unwrap_or(default)
    }

    /// The name of its slot, if it has one that has a name.
    pub fn slot_name(&self) -> Option<&str> {
        match &self.slot {
            Some(Slot::Create(name) | Slot::Existing(name)) => Some(name),
            _ => None,
        }
    }

    /// The manifest, the default resolved for a server of this release.
    pub fn manifest_on(&self, version: ServerVersion) -> Manifest {
        self.manifest.unwrap_or(if version.has_manifest() { Manifest::Crc32c } else { Manifest::None })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A file in an archive of WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArchivedFile {
    /// Its name, which says what it holds and how: `"000000010000000000000003.gz"`, `"000000010000000000000004.partial"`,
    /// `"00000002.history"`. It holds what the server has.
    pub name: String,
    /// How many bytes of WAL it holds, where that is not a whole segment: what is more than that is zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
}

/// What lies where a backup is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Nothing: the client makes the directory.
    #[default]
    Missing,
    /// An empty directory.
    Empty,
    /// A symbolic link to an empty directory.
    Link,
    /// A directory with somebody's files, none of which may change.
    NotEmpty,
    /// Somebody's file, which may not change.
    File,
    /// An empty directory in which the client may not make anything.
    ReadOnly,
    /// The same place as that of another client, by its name.
    SameAs(String),
}

fn is_missing(target: &Target) -> bool {
    *target == Target::Missing
}

/// The kinds of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// Takes a base backup, as `pg_basebackup` does.
    #[default]
    Basebackup,
    /// Receives WAL until it is told to stop, as `pg_receivewal` does.
    Receivewal,
    /// Sends replication commands as they are given, and fails if one of them is refused.
    Commands,
    /// Takes a base backup over ordinary connections, with SQL, as `backstop-client parallelbackup` does.
    Parallel,
}

/// How a backup is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As the files of a data directory.
    #[default]
    Plain,
    /// As tar archives.
    Tar,
}

/// How the WAL of a backup gets into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WalMethod {
    /// A second connection streams it while the backup runs.
    #[default]
    Stream,
    /// The server appends it to the base archive; a `parallel` client fetches its segments.
    Fetch,
    /// It does not.
    None,
}

/// The replication slot of a WAL connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// No slot: the server may recycle WAL that is still wanted.
    None,
    /// One that ends with its connection.
    Temporary,
    /// A permanent one that the client creates.
    Create(String),
    /// A permanent one that is there before the client starts.
    Existing(String),
}

/// The checksums in a backup's manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Manifest {
    /// A manifest with CRC-32C checksums.
    #[default]
    Crc32c,
    /// A manifest with SHA-224 checksums.
    Sha224,
    /// A manifest with SHA-256 checksums.
    Sha256,
    /// A manifest with SHA-384 checksums.
    Sha384,
    /// A manifest with SHA-512 checksums.
    Sha512,
    /// No manifest.
    None,
}

/// How the checkpoint at the start of a backup is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoint {
    /// At once.
    #[default]
    Fast,
    /// Spread over time.
    Spread,
}

/// What must come of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Expect {
    /// By client name.
    #[serde(flatten)]
    pub clients: BTreeMap<String, ClientExpectation>,
    /// Of the server: `[expect.server]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerExpectation>,
}

impl Expect {
    /// The name that stands for the server, which no client can have.
    pub const SERVER: &'static str = "server";
}

impl<'de> Deserialize<'de> for Expect {
    /// Reads a table whose keys are client names, but for `server`. A visitor and not `flatten`, which would lose the
    /// positions of errors.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ExpectVisitor;
        impl<'de> Visitor<'de> for ExpectVisitor {
            type Value = Expect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table for each client, or for the server")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expect, A::Error> {
                let mut expect = Expect::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == Expect::SERVER {
                        expect.server = Some(map.next_value()?);
                    } else {
                        expect.clients.insert(name, map.next_value()?);
                    }
                }
                Ok(expect)
            }
        }
        deserializer.deserialize_map(ExpectVisitor)
    }
}

impl JsonSchema for Expect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "What must come of the scenario, by client name, and for the server under `server`.",
            "properties": { Self::SERVER: generator.subschema_for::<ServerExpectation>() },
            "additionalProperties": generator.subschema_for::<ClientExpectation>(),
        })
    }
}

/// What must come of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ClientExpectation {
    /// What fails the case if it does not hold.
    pub must: ClientClaims,
    /// What weakens the case if it does not hold.
    pub should: ClientClaims,
}

/// Requirements on one client. What is not said is not required, beyond the built-in law.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ClientClaims {
    /// How it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it leaves in its target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Leaves>,
    /// The names of all files in the archive of `receivewal`, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<Vec<String>>,
    /// A text that its messages hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// A name that its messages hold: a member, an archive, a slot, a WAL file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// The SQLSTATE of the error that the server sent it: `"58P01"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// How soon it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With exit status 0.
    Success,
    /// With another exit status.
    Failure,
    /// Not before its deadline.
    Timeout,
    /// By the signal that `kill-client` sent it, or with an exit status other than 0 for it.
    Killed,
}

/// What a client leaves in its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Leaves {
    /// A complete backup.
    Restorable,
    /// Nothing that passes for a backup, though there may be files.
    NothingRestorable,
    /// No file at all.
    Nothing,
}

/// What must come of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerExpectation {
    /// What fails the case if it does not hold.
    pub must: ServerClaims,
    /// What weakens the case if it does not hold.
    pub should: ServerClaims,
}

/// Requirements on the server after the last client has ended. What is not said is not required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerClaims {
    /// The number of walsender sessions that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// The number of base backups that it believes to be running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_backups: Option<usize>,
    /// The number of replication slots that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// The oldest position whose WAL it still has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained_from: Option<Lsn>,
    /// What the commands that it received begin with, in order, of all its sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
}
