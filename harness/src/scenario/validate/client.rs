//! `[[client]]`.

use std::time::Duration;

use backstop_client::parallel::MAX_JOBS;
use backstop_mock::fault::client::StartClient;
use backstop_mock::fault::{Action, Fault};
use backstop_mock::units::ByteRate;
use backstop_protocol::wal_archive::ArchivedSegment;

use super::{Checks, MAX_NAME, Result, at};
use crate::scenario::document::Part;
use crate::scenario::explain::suggest;
use crate::scenario::model::{Client, Expect, Manifest, Slot, Target, Tool, WalMethod};
use crate::scenario::way::Way;

/// `MAX_RATE_LOWER` and `MAX_RATE_UPPER` in bytes a second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32 << 10..=1 << 30;
/// No scenario needs more.
const MAX_CLIENTS: usize = 64;

impl Checks<'_> {
    pub(super) fn clients(&self) -> Result {
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
        if client.tool != Tool::Parallel && self.document.has(&key("jobs")) {
            return self.refuse_key(&key("jobs"), "jobs goes with tool = \"parallel\" only");
        }
        match client.tool {
            Tool::Parallel => self.parallel(client, way)?,
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
            let start = Fault { when: point.clone(), r#do: Action::StartClient(StartClient { client: name.clone() }) };
            if let Err(problem) = start.validate() {
                return self.refuse(&way, problem);
            }
        }
        Ok(())
    }

    /// A client that takes a backup with SQL: nothing of a walsender's options is its.
    fn parallel(&self, client: &Client, way: &Way) -> Result {
        let key = |key: &str| way.clone().to(key);
        let foreign = ["format", "slot", "manifest", "max-rate", "compress"].map(|name| (name, "basebackup"));
        let others = ["endpos", "has", "synchronous", "reconnects"].map(|name| (name, "receivewal"));
        let keys = foreign.iter().chain(&others);
        if let Some((way, tool)) = keys.map(|(name, tool)| (key(name), tool)).find(|(way, _)| self.document.has(way)) {
            return self.refuse_key(&way, format!("{way} goes with tool = \"{tool}\" only"));
        }
        if client.wal == WalMethod::Stream {
            return self.refuse(&key("wal"), "a parallel backup streams no WAL: wal is \"fetch\" or \"none\"");
        }
        if client.jobs.is_some_and(|jobs| jobs.get() > MAX_JOBS) {
            return self.refuse(&key("jobs"), format!("jobs must be from 1 to {MAX_JOBS}"));
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
        // Of any server: the client finds out itself what has changed.
        let by_lsn = client.tool == Tool::Parallel || self.scenario.server.flavour.increments_by_lsn();
        self.needs(self.version.has_incremental() || by_lsn, way, "incremental backups")?;
        if base == client.name {
            return self.refuse(way, "a backup cannot be based on itself");
        }
        let Some(base) = earlier.iter().find(|other| other.name == base) else {
            let names: Vec<&str> = earlier.iter().map(|other| other.name.as_str()).collect();
            let help = suggest(base, "client", &names);
            return self.refuse_name(way, Part::Value, format!("there is no client {base:?} before this one"), help);
        };
        let lacks = match base.tool {
            Tool::Basebackup => (!by_lsn && base.manifest_on(self.version) == Manifest::None).then_some("manifest"),
            Tool::Parallel => (client.tool != Tool::Parallel).then_some("manifest"),
            Tool::Receivewal | Tool::Commands => Some(if by_lsn { "backup" } else { "manifest" }),
        };
        if let Some(lacks) = lacks {
            let message = format!("client {:?} makes no {lacks} that a backup could be based on", base.name);
            return self.refuse(way, message);
        }
        Ok(())
    }
}
