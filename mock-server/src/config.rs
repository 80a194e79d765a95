//! What a server is before anybody connects.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal_file::WalSegmentSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::access::{HbaRule, RoleConfig};
use crate::phase::Phase;

/// What a server is asked to be: release, role, contents, write-ahead log.
#[derive(Clone, Debug)]
pub struct Config {
    /// The release that is spoken. A directory source brings its own.
    pub version: ServerVersion,
    /// What the server is built from.
    pub flavour: Flavour,
    /// Primary or standby.
    pub role: Role,
    /// What the postmaster does at the start: a server can still be starting up, or recovering from a crash.
    pub phase: Phase,
    /// How long after the first connection a server that is not running yet gets there; never without it.
    pub ready_after: Option<Duration>,
    /// The timeline of the WAL at the start. A directory source brings its own.
    pub timeline: TimelineId,
    /// Whether data pages carry checksums. A directory source brings its own.
    pub checksums: bool,
    /// `--wal-segsize` of initdb. A directory source brings its own.
    pub wal_segment_size: WalSegmentSize,
    /// How many walsenders there can be.
    pub max_wal_senders: u32,
    /// How clients must prove who they are, where no rule says so.
    pub auth: Auth,
    /// The roles. Without any there is one of every name, with REPLICATION and the password
    /// [`DEFAULT_PASSWORD`](crate::access::DEFAULT_PASSWORD), and `postgres` is a superuser.
    pub roles: Vec<RoleConfig>,
    /// The lines of `pg_hba.conf`: the first that matches a connection decides. Without any, `auth` decides for all.
    pub hba: Vec<HbaRule>,
    /// Whether connections can be encrypted with TLS, and with which certificate: the setting `ssl`.
    pub tls: Option<TlsConfig>,
    /// Whether GSSENCRequest is accepted, as a server does that was built with GSSAPI. It has no credentials, so that nothing comes
    /// of it.
    pub gssapi: bool,
    /// Settings as in `postgresql.conf`, by name. Those that the server acts on: `full_page_writes`, `hot_standby`,
    /// `idle_replication_slot_timeout`, `max_replication_slots`, `max_slot_wal_keep_size`, `max_wal_senders`,
    /// `max_wal_size`, `summarize_wal`, `wal_keep_segments`, `wal_keep_size`, `wal_level`, `wal_sender_timeout`; the others
    /// are only shown. `backstop.compression` lists with what the server was built to compress archives (`gzip, lz4, zstd`
    /// if there is none).
    /// With `backstop.changed_blocks` = `5%` about so many of a synthetic cluster's blocks change from one WAL segment to the
    /// next (`0%` if there is none), and three small tables grow, shrink and are rewritten; with `backstop.wal_summarizer` = `stuck` WAL is not summarized although it should be.
    pub settings: BTreeMap<String, String>,
    /// Where the files come from.
    pub source: Source,
    /// Bytes in the base directory of a synthetic cluster, about.
    pub size: u64,
    /// Tablespaces of a synthetic cluster besides `pg_default` and `pg_global`.
    pub tablespaces: Vec<TablespaceConfig>,
    /// Files of a synthetic cluster's base directory that are not PostgreSQL's.
    pub extra_files: Vec<ExtraFile>,
    /// Pages of a synthetic cluster that do not agree with their checksums.
    pub damaged_pages: Vec<DamagedPages>,
    /// Where the WAL of a synthetic cluster stands at the start.
    pub wal_start: Option<Lsn>,
    /// How fast WAL grows, in bytes a second; 0: not by itself.
    pub wal_rate: u64,
    /// The directory of this machine that is `/` for backups with TARGET 'server': nothing is written outside of it. Without
    /// it nothing is written at all; [names, sizes and checksums](crate::cluster::Cluster::stored_files) are known either
    /// way.
    pub server_root: Option<PathBuf>,
    /// What goes wrong, and where.
    pub faults: Vec<crate::fault::Fault>,
    /// Decides contents, times and the system identifier.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: ServerVersion::NEWEST,
            flavour: Flavour::default(),
            role: Role::default(),
            phase: Phase::default(),
            ready_after: None,
            timeline: TimelineId::FIRST,
            checksums: true,
            wal_segment_size: WalSegmentSize::DEFAULT,
            max_wal_senders: 10,
            auth: Auth::default(),
            roles: Vec::new(),
            hba: Vec::new(),
            tls: None,
            gssapi: false,
            settings: BTreeMap::new(),
            source: Source::default(),
            size: 8 << 20,
            tablespaces: Vec::new(),
            extra_files: Vec::new(),
            damaged_pages: Vec::new(),
            wal_start: None,
            wal_rate: 0,
            server_root: None,
            faults: Vec::new(),
            seed: 0,
        }
    }
}

/// Whether a server writes WAL of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A server that writes.
    #[default]
    Primary,
    /// A server in recovery, with hot standby.
    Standby,
}

/// How a client must prove who it is: a method of `pg_hba.conf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Not at all.
    #[default]
    Trust,
    /// The password in clear.
    Password,
    /// MD5 with a salt.
    Md5,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
}

/// TLS with a certificate that the server makes for itself, and a certificate authority to check it by:
/// [`Server::ca_certificate_pem`](crate::Server::ca_certificate_pem).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Names and addresses that the certificate is for, besides `localhost`, `127.0.0.1` and `::1`.
    pub names: Vec<String>,
}

/// Where the files of a cluster come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Every byte is a function of the seed.
    #[default]
    Synthetic,
    /// A real data directory whose server has been shut down.
    Directory(PathBuf),
}

/// One tablespace of a synthetic cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TablespaceConfig {
    /// Its OID, from 16384.
    pub oid: u32,
    /// Its absolute location, or `pg_tblspc/<oid>` for one in place (since 15).
    pub location: String,
    /// Its bytes, about.
    pub size: u64,
}

/// Something that a user, a tool or an accident left in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFile {
    /// Below the data directory. Bytes, because file names need not be text.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ExtraFileKind,
    /// Permission bits.
    pub mode: u32,
}

/// What an extra file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraFileKind {
    /// A file with this content.
    Content(Vec<u8>),
    /// A sparse file: so many zero bytes.
    Sparse(u64),
    /// A directory.
    Directory,
    /// A fifo, a socket, a device or a link, none of which is ever sent.
    Special,
}

/// Pages of one relation file whose content has changed behind the server's back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPages {
    /// The file as in the manifest: `base/16384/16385`, `base/16384/16385.1`, `pg_tblspc/16400/…`.
    pub path: String,
    /// Blocks of that file, from 0.
    pub blocks: Vec<u32>,
}

/// A server that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that no server of this release could have.
    #[error("invalid {key}: {problem}")]
    Invalid {
        /// The key as in a scenario file.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A data directory of a server that has not been shut down.
    #[error("the server of data directory {} was not shut down: its state is \"{state}\"", path.display())]
    NotShutDown {
        /// The data directory.
        path: PathBuf,
        /// The state as `pg_controldata` names it: `in production`.
        state: &'static str,
    },
    /// A data directory that holds something else than expected.
    #[error("invalid data directory: file {}: {problem}", path.display())]
    Directory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or directory that cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConfigError {
    /// A value that no server of this release could have.
    pub fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into() }
    }
}
