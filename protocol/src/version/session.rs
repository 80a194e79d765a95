//! Settings, messages and the life of a server, by release.

use std::time::Duration;

use super::ServerVersion;

impl ServerVersion {
    /// Whether ErrorResponse and NoticeResponse carry the severity twice, the second time (field `V`) never translated.
    pub fn sends_untranslated_severity(self) -> bool {
        self >= Self::V9_6
    }

    /// Whether positions have a type in SQL, `pg_lsn`. They are texts before.
    pub fn has_lsn_type(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether a quoted literal of a SELECT is a text. Before 10 it stays `unknown`.
    pub fn resolves_unknown_literals(self) -> bool {
        self >= Self::V10
    }

    /// Whether a changed setting is reported before ReadyForQuery, once, instead of where it changed.
    pub fn reports_settings_when_ready(self) -> bool {
        self >= Self::V14
    }

    /// Whether a missing privilege is explained in a DETAIL, below a short `permission denied to …`.
    pub fn details_missing_privileges(self) -> bool {
        self >= Self::V16
    }

    /// Whether there can be several sockets: `unix_socket_directories` (9.3), `unix_socket_directory` before.
    pub fn has_socket_directories(self) -> bool {
        self >= Self::V9_3
    }

    /// Whether `initdb` knows `--wal-segsize`.
    pub fn has_segment_size_option(self) -> bool {
        self >= Self::V11
    }

    /// Whether names of settings stand in quotes in messages: `"max_wal_senders"` since 17.
    pub fn quotes_settings(self) -> bool {
        self >= Self::V17
    }

    /// What `wal_level` is called that replication needs.
    pub fn replica_wal_level(self) -> &'static str {
        if self >= Self::V9_6 { "replica" } else { "hot_standby" }
    }

    /// A setting's name as it stands in a message or a hint.
    pub fn setting_in_message(self, name: &str) -> String {
        if self.quotes_settings() { format!("\"{name}\"") } else { name.to_owned() }
    }

    /// Settings with their defaults that matter to replication and that not every release has.
    pub fn settings_of_release(self) -> Vec<(&'static str, &'static str)> {
        let since = |release: Self, name, value| (self >= release).then_some((name, value));
        let before = |release: Self, name, value| (self < release).then_some((name, value));
        let settings = [
            since(Self::V11, "data_directory_mode", "0700"),
            before(Self::V13, "wal_keep_segments", "0"),
            since(Self::V13, "wal_keep_size", "0"),
            since(Self::V13, "max_slot_wal_keep_size", "-1"),
            since(Self::V17, "summarize_wal", "off"),
            since(Self::V18, "idle_replication_slot_timeout", "0"),
        ];
        settings.into_iter().flatten().collect()
    }

    /// Whether a crash ends every connection without a word. Before 14 a WARNING 57P02 precedes the end.
    pub fn crashes_silently(self) -> bool {
        self >= Self::V14
    }

    /// Whether a session that does nothing can be ended for it (`idle_session_timeout`, since 14).
    pub fn has_idle_session_timeout(self) -> bool {
        self >= Self::V14
    }

    /// Whether `default_transaction_read_only` and `in_hot_standby` are reported to every client.
    pub fn reports_hot_standby(self) -> bool {
        self >= Self::V14
    }

    /// The settings that are reported to a client at start-up, in the order of the messages: by name up to 15, in the order of
    /// a hash table since.
    pub fn reported_settings(self) -> &'static [&'static str] {
        match self {
            Self::V16 | Self::V17 => &[
                "in_hot_standby",
                "integer_datetimes",
                "TimeZone",
                "IntervalStyle",
                "is_superuser",
                "application_name",
                "default_transaction_read_only",
                "scram_iterations",
                "DateStyle",
                "standard_conforming_strings",
                "session_authorization",
                "client_encoding",
                "server_version",
                "server_encoding",
            ],
            Self::V18 => &[
                "in_hot_standby",
                "integer_datetimes",
                "TimeZone",
                "IntervalStyle",
                "search_path",
                "is_superuser",
                "application_name",
                "default_transaction_read_only",
                "scram_iterations",
                "DateStyle",
                "standard_conforming_strings",
                "session_authorization",
                "client_encoding",
                "server_version",
                "server_encoding",
            ],
            Self::V14 | Self::V15 => &[
                "application_name",
                "client_encoding",
                "DateStyle",
                "default_transaction_read_only",
                "in_hot_standby",
                "integer_datetimes",
                "IntervalStyle",
                "is_superuser",
                "server_encoding",
                "server_version",
                "session_authorization",
                "standard_conforming_strings",
                "TimeZone",
            ],
            _ => &[
                "application_name",
                "client_encoding",
                "DateStyle",
                "integer_datetimes",
                "IntervalStyle",
                "is_superuser",
                "server_encoding",
                "server_version",
                "session_authorization",
                "standard_conforming_strings",
                "TimeZone",
            ],
        }
    }

    /// How long after the shutdown checkpoint walsenders learn that it was written. Since 18 the checkpointer says so itself;
    /// before, the postmaster waits until that process has gone, which gives clients the time to answer unasked.
    pub fn shutdown_signal_delay(self) -> Duration {
        if self >= Self::V18 { Duration::ZERO } else { Duration::from_millis(10) }
    }

    /// Whether the postmaster is told that a crash recovery has begun to replay, as it always is of a standby's: connections
    /// are then refused as "not yet accepting" (15), before as "in recovery mode" to the end.
    pub fn announces_crash_recovery(self) -> bool {
        self >= Self::V15
    }

    /// Whether a standby that takes no connections in says why (14); before, it is "starting up".
    pub fn explains_refusals(self) -> bool {
        self >= Self::V14
    }

    /// Whether a session that hears of changed settings reports `client_encoding`, `DateStyle` and `TimeZone` again, though
    /// they are the same (up to 13).
    pub fn repeats_settings_after_reload(self) -> bool {
        self < Self::V14
    }
}
