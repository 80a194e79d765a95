//! Whether a scenario makes sense: names that must exist, values that exclude each other, what a release does not have.
//!
//! Each check names the key at fault by its [`Way`], and the document knows where that stands.

use std::time::Duration;

use backstop_mock::units::ByteRate;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_archive::ArchivedSegment;
use backstop_protocol::wal_file::WalSegmentSize;

use super::document::{Document, Part, ScenarioError};
use super::explain::suggest;
use super::model::{
    Auth, Client, ClientClaims, Expect, Leaves, Manifest, Outcome, Role, Scenario, ServerClaims, Slot, Source, Target,
    Tool, WalMethod,
};
use super::way::Way;
use backstop_mock::fault::{Action, Fault, Point};

/// The first OID that is not reserved: `FirstNormalObjectId`.
const FIRST_NORMAL_OID: u32 = 16384;
/// The largest that `max_wal_senders` can be: `MAX_BACKENDS`.
const MAX_BACKENDS: u32 = 0x3_FFFF;
/// `MAX_RATE_LOWER` and `MAX_RATE_UPPER` in bytes a second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32 << 10..=1 << 30;
/// No scenario needs more.
const MAX_CLIENTS: usize = 64;
const MAX_FAULTS: usize = 256;
const MAX_TABLESPACES: usize = 1000;
/// The longest name in PostgreSQL: `NAMEDATALEN - 1`.
const MAX_NAME: usize = 63;
/// The names of connections by what they do, which every scenario has besides its clients.
const ROLES: [&str; 2] = ["backup", "wal"];

type Result = std::result::Result<(), ScenarioError>;

/// What the checks need to know.
struct Checks<'a> {
    document: &'a Document<'a>,
    scenario: &'a Scenario,
    version: ServerVersion,
}

/// Refuses a scenario that does not make sense.
pub(super) fn validate(document: &Document<'_>, scenario: &Scenario) -> Result {
    let checks = Checks { document, scenario, version: scenario.server.version };
    checks.top()?;
    checks.server()?;
    checks.cluster()?;
    checks.clients()?;
    checks.faults()?;
    checks.expectations()
}

fn at(key: &str) -> Way {
    Way::new().to(key)
}

impl Checks<'_> {
    fn refuse(&self, way: &Way, message: impl Into<String>) -> Result {
        Err(self.document.error_at(way, Part::Value, message.into(), None))
    }

    fn refuse_key(&self, way: &Way, message: impl Into<String>) -> Result {
        Err(self.document.error_at(way, Part::Key, message.into(), None))
    }

    fn refuse_name(&self, way: &Way, part: Part, message: String, help: Option<String>) -> Result {
        Err(self.document.error_at(way, part, message, help))
    }

    /// The key is a feature that this release does not have.
    fn needs(&self, there: bool, way: &Way, what: &str) -> Result {
        if there { Ok(()) } else { self.refuse(way, format!("PostgreSQL {} has no {what}", self.version)) }
    }

    fn top(&self) -> Result {
        for (key, text) in [("summary", &self.scenario.summary), ("because", &self.scenario.because)] {
            if text.trim().is_empty() {
                return self.refuse(&at(key), format!("{key} is empty"));
            }
        }
        for (index, tag) in self.scenario.tags.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if tag.is_empty() || !tag.chars().all(plain) {
                let message = format!("invalid tag {tag:?}: expected lower-case letters, digits and hyphens");
                return self.refuse(&at("tags").to(index), message);
            }
        }
        Ok(())
    }

    fn server(&self) -> Result {
        let server = &self.scenario.server;
        let way = |key: &str| at("server").to(key);
        if !server.phase.begins() {
            return self
                .refuse(&way("phase"), "a server begins as starting-up, recovery-mode, not-consistent or running");
        }
        if server.timeline == 0 {
            return self.refuse(&way("timeline"), "timeline must be at least 1");
        }
        let segment_size = &way("wal-segment-size");
        match WalSegmentSize::new(server.wal_segment_size.0) {
            None => {
                let message = "wal-segment-size must be a power of two from \"1MiB\" to \"1GiB\"";
                return self.refuse(segment_size, message);
            }
            Some(size) if size != WalSegmentSize::DEFAULT && !self.version.has_segment_size_option() => {
                return self
                    .refuse(segment_size, format!("PostgreSQL {} has WAL segments of 16MiB only", self.version));
            }
            Some(_) => {}
        }
        if server.max_wal_senders > MAX_BACKENDS {
            return self.refuse(&way("max-wal-senders"), format!("max-wal-senders must be at most {MAX_BACKENDS}"));
        }
        if server.role == Role::Standby {
            self.needs(self.version.has_backup_from_standby(), &way("role"), "base backups from a standby")?;
        }
        if server.auth == Auth::ScramSha256 {
            self.needs(self.version.has_scram(), &way("auth"), "SCRAM-SHA-256")?;
        }
        if server.hba.iter().any(|rule| rule.auth() == Some(Auth::ScramSha256)) {
            self.needs(self.version.has_scram(), &way("hba"), "SCRAM-SHA-256")?;
        }
        for (index, user) in server.users.iter().enumerate() {
            let way = way("user").to(index);
            if user.name.is_empty() || user.name.len() > 63 || user.name.contains('\0') {
                return self.refuse(&way.to("name"), "a role needs a name of 1 to 63 bytes");
            }
            if server.users.iter().take(index).any(|other| other.name == user.name) {
                return self.refuse(&way.to("name"), format!("there are two roles {:?}", user.name));
            }
        }
        for (name, value) in &server.settings {
            if name.is_empty() || name.contains('\0') || value.contains('\0') {
                return self.refuse(&way("settings").to(name.as_str()), "a setting needs a name and no zero bytes");
            }
        }
        Ok(())
    }

    fn cluster(&self) -> Result {
        let cluster = &self.scenario.cluster;
        let way = |key: &str| at("cluster").to(key);
        if let Source::Directory(path) = &cluster.source {
            if path.as_os_str().is_empty() {
                return self.refuse(&way("source"), "directory is empty");
            }
            // A real data directory is what it is.
            let own = ["size", "wal-start", "tablespace", "file", "damage"].map(way);
            let server = ["version", "timeline", "checksums", "wal-segment-size"].map(|key| at("server").to(key));
            if let Some(way) = own.iter().chain(&server).find(|way| self.document.has(way)) {
                return self
                    .refuse_key(way, format!("{way} is a fact of the data directory that cluster.source names"));
            }
        }
        if let Some(start) = cluster.wal_start {
            let way = &way("wal-start");
            let segment = self.scenario.server.wal_segment_size.0;
            if start.0 % 8 != 0 {
                return self.refuse(way, format!("no WAL record starts at {start}: positions of records divide by 8"));
            }
            if start.0 < segment {
                let first = WalSegmentSize::new(segment).unwrap_or_default().start_of(1);
                return self.refuse(way, format!("WAL cannot start at {start}: the first segment begins at {first}"));
            }
        }
        self.tablespaces()
    }

    fn tablespaces(&self) -> Result {
        let way = |index: usize, key: &str| at("cluster").to("tablespace").to(index).to(key);
        let tablespaces = &self.scenario.cluster.tablespaces;
        if tablespaces.len() > MAX_TABLESPACES {
            return self.refuse(&at("cluster").to("tablespace"), format!("more than {MAX_TABLESPACES} tablespaces"));
        }
        for (index, tablespace) in tablespaces.iter().enumerate() {
            let earlier = tablespaces.get(..index).unwrap_or_default();
            let (oid, location) = (tablespace.oid, tablespace.location.as_str());
            if oid < FIRST_NORMAL_OID {
                return self
                    .refuse(&way(index, "oid"), format!("oid must be at least {FIRST_NORMAL_OID}: {oid} is reserved"));
            }
            if earlier.iter().any(|other| other.oid == oid) {
                return self.refuse(&way(index, "oid"), format!("there are two tablespaces with oid {oid}"));
            }
            let in_place = location == format!("pg_tblspc/{oid}");
            if !(in_place || location.starts_with('/')) || location.contains('\0') {
                return self.refuse(&way(index, "location"), "location must be an absolute path");
            }
            if earlier.iter().any(|other| other.location == location) {
                return self.refuse(&way(index, "location"), format!("there are two tablespaces at {location:?}"));
            }
        }
        Ok(())
    }

    fn clients(&self) -> Result {
        let clients = &self.scenario.clients;
        if clients.is_empty() || clients.len() > MAX_CLIENTS {
            return self.refuse_key(&at("client"), format!("a scenario has 1 to {MAX_CLIENTS} clients"));
        }
        for (index, client) in clients.iter().enumerate() {
            let earlier = clients.get(..index).unwrap_or_default();
            self.client(client, earlier, &at("client").to(index))?;
        }
        Ok(())
    }

    fn client(&self, client: &Client, earlier: &[Client], way: &Way) -> Result {
        let key = |key: &str| way.clone().to(key);
        let name = &client.name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            let message =
                format!("invalid client name {name:?}: expected lower-case letters, digits, hyphens and underscores");
            return self.refuse(&key("name"), message);
        }
        if name == Expect::SERVER {
            return self.refuse(&key("name"), "no client can be called \"server\": that is the server");
        }
        if earlier.iter().any(|other| other.name == *name) {
            return self.refuse(&key("name"), format!("there are two clients called {name:?}"));
        }
        if client.timeout.0 == Duration::ZERO {
            return self.refuse(&key("timeout"), "timeout must not be 0");
        }
        if client.tool != Tool::Commands {
            let foreign = ["commands", "database"].map(key);
            if let Some(way) = foreign.iter().find(|way| self.document.has(way)) {
                return self.refuse_key(way, format!("{way} goes with tool = \"commands\" only"));
            }
        }
        match client.tool {
            Tool::Commands => {
                let foreign = [
                    "format",
                    "wal",
                    "slot",
                    "manifest",
                    "checkpoint",
                    "max-rate",
                    "compress",
                    "incremental-from",
                    "endpos",
                    "has",
                    "synchronous",
                    "reconnects",
                ];
                if let Some(way) = foreign.map(key).iter().find(|way| self.document.has(way)) {
                    return self.refuse_key(way, format!("{way} does not go with tool = \"commands\""));
                }
                if client.commands.is_empty() {
                    return self.refuse(&key("tool"), "tool = \"commands\" needs commands to send");
                }
            }
            Tool::Receivewal => {
                let foreign = ["format", "wal", "manifest", "checkpoint", "max-rate", "incremental-from"].map(key);
                if let Some(way) = foreign.iter().find(|way| self.document.has(way)) {
                    return self.refuse_key(way, format!("{way} goes with tool = \"basebackup\" only"));
                }
                self.archived(client, &key("has"))?;
            }
            Tool::Basebackup => {
                let foreign = ["endpos", "has", "synchronous", "reconnects"].map(key);
                if let Some(way) = foreign.iter().find(|way| self.document.has(way)) {
                    return self.refuse_key(way, format!("{way} goes with tool = \"receivewal\" only"));
                }
            }
        }
        self.slot(client, &key("slot"))?;
        if client.manifest.is_some_and(|manifest| manifest != Manifest::None) {
            self.needs(self.version.has_manifest(), &key("manifest"), "backup manifests")?;
        }
        if let Some(rate) = client.max_rate {
            self.needs(self.version.has_max_rate(), &key("max-rate"), "MAX_RATE")?;
            if !MAX_RATE.contains(&rate.0) {
                let (low, high) = (ByteRate(*MAX_RATE.start()), ByteRate(*MAX_RATE.end()));
                return self.refuse(&key("max-rate"), format!("max-rate must be from \"{low}\" to \"{high}\""));
            }
        }
        if let Some(compress) = &client.compress {
            self.compress(compress, client.tool, &key("compress"))?;
        }
        if let Some(base) = &client.incremental_from {
            self.incremental(client, base, earlier, &key("incremental-from"))?;
        }
        if let Target::SameAs(other) = &client.target {
            let way = key("target").to("same-as");
            if !earlier.iter().any(|client| client.name == *other) {
                let names: Vec<&str> = earlier.iter().map(|client| client.name.as_str()).collect();
                let message = format!("there is no client {other:?} before this one");
                return self.refuse_name(&way, Part::Value, message, suggest(other, "client", &names));
            }
        }
        if let Some(point) = &client.starts {
            let way = key("starts").to(point.name());
            self.point(point, &way)?;
            if point.client() == Some(&client.name) {
                return self.refuse(&way.to("client"), "a client cannot wait for itself");
            }
            let start = Fault { when: point.clone(), r#do: Action::StartClient { client: name.clone() } };
            if let Err(problem) = start.validate() {
                return self.refuse(&way, problem);
            }
        }
        Ok(())
    }

    /// Names of files in an archive, each of which says what is in it.
    fn archived(&self, client: &Client, way: &Way) -> Result {
        for (index, file) in client.has.iter().enumerate() {
            let way = way.clone().to(index).to("name");
            let history = file.name.strip_suffix(".history").is_some_and(|digits| {
                digits.len() == 8 && u32::from_str_radix(digits, 16).is_ok_and(|timeline| timeline > 1)
            });
            if !history && file.name.parse::<ArchivedSegment>().is_err() {
                let message = format!(
                    "invalid name {:?} of an archived file: expected one such as \"000000010000000000000003.gz\" or \
                     \"00000002.history\"",
                    file.name
                );
                return self.refuse(&way, message);
            }
            if client.has.iter().take(index).any(|other| other.name == file.name) {
                return self.refuse(&way, format!("there are two files {:?}", file.name));
            }
        }
        Ok(())
    }

    fn slot(&self, client: &Client, way: &Way) -> Result {
        let Some(slot) = &client.slot else { return Ok(()) };
        if *slot == Slot::None {
            return Ok(());
        }
        if client.tool == Tool::Basebackup && client.wal != WalMethod::Stream {
            return self.refuse(way, "a replication slot needs wal = \"stream\": nothing else streams WAL");
        }
        self.needs(self.version.has_slots(), way, "replication slots")?;
        match slot {
            Slot::Temporary if client.tool == Tool::Receivewal => self.refuse(way, "receivewal has no temporary slots"),
            Slot::Create(_) if client.tool == Tool::Receivewal => {
                self.refuse(way, "receivewal creates slots in runs of their own, without receiving anything")
            }
            Slot::Temporary => self.needs(self.version.has_temporary_slots(), way, "temporary replication slots"),
            Slot::Create(name) | Slot::Existing(name) => {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
                    let message = format!(
                        "invalid replication slot name {name:?}: expected lower-case letters, digits and underscores"
                    );
                    return self.refuse(way, message);
                }
                Ok(())
            }
            Slot::None => Ok(()),
        }
    }

    /// `--compress`: `[{client|server}-]method[:detail]`, but with the place always said.
    fn compress(&self, compress: &str, tool: Tool, way: &Way) -> Result {
        let place_method = compress.split(':').next().unwrap_or_default().split_once('-');
        let Some((place @ ("client" | "server"), "gzip" | "lz4" | "zstd")) = place_method else {
            let message =
                format!("invalid compression {compress:?}: expected one such as \"client-gzip\" or \"server-zstd:5\"");
            return self.refuse(way, message);
        };
        if place == "server" {
            if tool == Tool::Receivewal {
                return self.refuse(way, "the server compresses base backups only");
            }
            self.needs(self.version.has_archive_stream(), way, "compression of base backups")?;
        }
        Ok(())
    }

    fn incremental(&self, client: &Client, base: &str, earlier: &[Client], way: &Way) -> Result {
        self.needs(self.version.has_incremental(), way, "incremental backups")?;
        if base == client.name {
            return self.refuse(way, "a backup cannot be based on itself");
        }
        let Some(base) = earlier.iter().find(|other| other.name == base) else {
            let names: Vec<&str> = earlier.iter().map(|other| other.name.as_str()).collect();
            let help = suggest(base, "client", &names);
            return self.refuse_name(way, Part::Value, format!("there is no client {base:?} before this one"), help);
        };
        if base.tool != Tool::Basebackup || base.manifest_on(self.version) == Manifest::None {
            return self
                .refuse(way, format!("client {:?} makes no manifest that a backup could be based on", base.name));
        }
        Ok(())
    }

    fn faults(&self) -> Result {
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
            if let Action::Terminate { client: Some(client) } = &fault.r#do {
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

    fn point(&self, point: &Point, way: &Way) -> Result {
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

    fn unknown_client(&self, name: &str, way: &Way, part: Part, others: &[&str]) -> Result {
        let mut names: Vec<&str> = self.scenario.clients.iter().map(|client| client.name.as_str()).collect();
        names.extend(others);
        names.dedup();
        self.refuse_name(way, part, format!("there is no client {name:?}"), suggest(name, "client", &names))
    }

    fn expectations(&self) -> Result {
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
        if client.tool == Tool::Basebackup {
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
