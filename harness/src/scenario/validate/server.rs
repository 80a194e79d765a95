//! `[server]`.

use backstop_protocol::wal_file::WalSegmentSize;

use super::{Checks, Result, at};
use crate::scenario::model::{Auth, Role};

/// The largest that `max_wal_senders` can be: `MAX_BACKENDS`.
const MAX_BACKENDS: u32 = 0x3_FFFF;

impl Checks<'_> {
    pub(super) fn server(&self) -> Result {
        let server = &self.scenario.server;
        let way = |key: &str| at("server").to(key);
        if server.replay.is_some() {
            return self.replay();
        }
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

    /// What a recorded server was is on its cassette.
    fn replay(&self) -> Result {
        const FACTS: [&str; 14] = [
            "version",
            "flavour",
            "role",
            "phase",
            "ready-after",
            "timeline",
            "checksums",
            "wal-segment-size",
            "max-wal-senders",
            "auth",
            "tls",
            "hba",
            "user",
            "settings",
        ];
        if self.scenario.server.replay.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return self.refuse(&at("server").to("replay"), "replay is empty");
        }
        let facts = FACTS.iter().map(|key| at("server").to(*key)).chain([at("cluster")]);
        if let Some(way) = facts.into_iter().find(|way| self.document.has(way)) {
            return self.refuse_key(&way, format!("{way} is a fact of the cassette that server.replay names"));
        }
        if !self.scenario.faults.is_empty() || self.scenario.sweep.is_some() {
            return self
                .refuse_key(&at("fault"), "faults do not strike in what a cassette plays: it says what was recorded");
        }
        Ok(())
    }
}
