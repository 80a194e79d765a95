//! SHOW, SET and the functions that do the same.

use std::collections::BTreeMap;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::version::ServerVersion;

use super::super::{Session, Stop};
use super::values;

/// Settings of a session that no command of replication looks at, with their defaults.
const OF_SESSION: [(&str, &str); 10] = [
    ("bytea_output", "hex"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("geqo", "on"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("lock_timeout", "0"),
    ("search_path", "\"$user\", public"),
    ("statement_timeout", "0"),
    ("tcp_user_timeout", "0"),
];

/// Settings that a session may change, of those that the server has.
const CHANGEABLE: [&str; 6] =
    ["client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings", "wal_sender_timeout"];

/// Settings that a server reads again when it is told to.
const RELOADED: [&str; 7] = [
    "full_page_writes",
    "log_timezone",
    "max_slot_wal_keep_size",
    "max_wal_size",
    "wal_keep_segments",
    "wal_keep_size",
    // Before 12.
    "wal_sender_timeout",
];

/// Settings that nobody changes.
const INTERNAL: [&str; 11] = [
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "segment_size",
    "server_encoding",
    "server_version",
    "wal_block_size",
    "wal_segment_size",
];

/// What a session hears of a setting that there is not.
pub(super) fn unknown(name: &str) -> Diagnostic {
    let message = format!("unrecognized configuration parameter \"{name}\"");
    Diagnostic::error(SqlState::UNDEFINED_OBJECT, message)
}

impl Session {
    /// The canonical name of a setting and its value in this session.
    pub(in super::super) fn setting(&self, name: &str) -> Option<(String, String)> {
        let same = |known: &&str| known.eq_ignore_ascii_case(name);
        let own = self.settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((known, value)) = own {
            return Some((known.clone(), value.clone()));
        }
        let reported =
            self.version.reported_settings().iter().copied().chain(["search_path"]).find(|known| same(known));
        if let Some(known) = reported {
            return Some((known.to_owned(), self.reported(known)));
        }
        let there = |known: &str| known != "idle_session_timeout" || self.version >= ServerVersion::V14;
        let of_session = OF_SESSION.into_iter().find(|(known, _)| same(known) && there(known));
        of_session.map(|(known, value)| (known.to_owned(), value.to_owned())).or_else(|| self.shared.cluster.show(name))
    }

    /// SET, or RESET without a value.
    pub(in super::super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Diagnostic> {
        // Settings of extensions have a dot and need not be known.
        let known = self.setting(name).map(|(known, _)| known).or_else(|| name.contains('.').then(|| name.to_owned()));
        let name = known.ok_or_else(|| unknown(name))?;
        let of_session = (name.contains('.')
            || name == "application_name"
            || OF_SESSION.iter().any(|(known, _)| *known == name)
            || CHANGEABLE.contains(&name.as_str())
            || (self.version.reported_settings().contains(&name.as_str()) && !INTERNAL.contains(&name.as_str())))
            && (name != "wal_sender_timeout" || self.version.sessions_set_wal_sender_timeout());
        if !of_session {
            let how = if INTERNAL.contains(&name.as_str()) {
                ""
            } else if RELOADED.contains(&name.as_str()) {
                " now"
            } else {
                " without restarting the server"
            };
            let message = format!("parameter \"{name}\" cannot be changed{how}");
            return Err(Diagnostic::error(SqlState::CANT_CHANGE_RUNTIME_PARAM, message));
        }
        let before = self.setting(&name);
        match value {
            Some(value) => {
                let current = before.as_ref().map_or("", |(_, current)| current);
                self.settings.insert(name.clone(), values::canonical(&name, value, current)?);
            }
            None => {
                self.settings.remove(&name);
            }
        }
        if before != self.setting(&name) {
            self.note_change(name);
        }
        Ok(())
    }

    /// Forgets what has changed: a session that starts up reports everything.
    pub(in super::super) fn forget_changes(&mut self) {
        self.sql.changed.clear();
    }

    /// ROLLBACK: settings are what they were at BEGIN.
    pub(super) fn restore_settings(&mut self, before: BTreeMap<String, String>) {
        let after = std::mem::replace(&mut self.settings, before);
        let names: Vec<_> = self.settings.keys().chain(after.keys()).cloned().collect();
        for name in names {
            if self.settings.get(&name) != after.get(&name) {
                self.note_change(name);
            }
        }
    }

    fn note_change(&mut self, name: String) {
        if name == "application_name" {
            let value = self.settings.get(&name).cloned();
            self.seat.identify(|identity| identity.application_name = value);
        }
        let reported = self.version.reported_settings().contains(&name.as_str());
        if reported && !self.sql.changed.contains(&name) {
            self.sql.changed.push(name);
        }
    }

    /// ParameterStatus for what has changed.
    pub(in super::super) async fn report_settings(&mut self) -> Result<(), Stop> {
        for name in std::mem::take(&mut self.sql.changed) {
            let value = self.reported(&name);
            self.send(BackendMessage::ParameterStatus { name, value }).await?;
        }
        Ok(())
    }
}
