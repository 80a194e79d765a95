//! Start-up: from the first byte to the first ReadyForQuery.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState, TransactionStatus};
use backstop_protocol::frontend::{Startup, StartupPacket};

use super::{Ending, Session, Stop, on_off};
use crate::fault::Moment;
use crate::phase::Phase;
use crate::transcript::{Direction, Said};

/// `authentication_timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters of a start-up packet that are no settings.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// What the `replication` parameter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replication {
    No,
    Physical,
    Database,
}

impl Session {
    /// Everything up to and with the first ReadyForQuery. An error here ends the session.
    pub(super) async fn start_up(&mut self) -> Result<(), Stop> {
        if self.seat.began.phase == Phase::Stopped {
            return Err(Ending::Reset.into());
        }
        // Faults may stretch the start-up at will: only waiting for the client is limited.
        self.at(Moment::Connect).await?;
        let startup = match tokio::time::timeout(TIMEOUT, self.read_startup()).await {
            Ok(startup) => startup?,
            Err(_) => return Err(Ending::Close.into()),
        };
        let replication = self.accept_startup(&startup).await?;
        self.refuse_when_down()?;
        if replication == Replication::No {
            let message = "this server accepts replication connections only";
            return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
        }
        if !self.shared.take_walsender_place(&self.seat) {
            let setting = self.version.setting_in_message("max_wal_senders");
            let limit = self.shared.cluster.max_wal_senders();
            let message = format!("number of requested standby connections exceeds {setting} (currently {limit})");
            return Err(Diagnostic::error(SqlState::TOO_MANY_CONNECTIONS, message).into());
        }
        match tokio::time::timeout(TIMEOUT, self.authenticate()).await {
            Ok(authenticated) => authenticated?,
            Err(_) => return Err(Ending::Close.into()),
        }
        self.seat.admitted.store(true, Ordering::SeqCst);
        self.take_settings(&startup)?;
        if replication == Replication::Database {
            let name = startup.get("database").filter(|name| !name.is_empty()).unwrap_or(&self.user).to_owned();
            if !["postgres", "template1"].contains(&name.as_str()) {
                let message = format!("database \"{name}\" does not exist");
                return Err(Diagnostic::error(SqlState::INVALID_CATALOG_NAME, message).into());
            }
            self.database = Some(name);
        }
        self.greet(&startup).await
    }

    /// ParameterStatus, BackendKeyData, ReadyForQuery.
    async fn greet(&mut self, startup: &Startup) -> Result<(), Stop> {
        self.reported_standby = self.shared.cluster.in_recovery();
        for name in self.version.reported_settings() {
            let value = self.reported(name);
            self.send(BackendMessage::ParameterStatus { name: (*name).to_owned(), value }).await?;
        }
        let long_key = u32::from(startup.minor).min(self.version.newest_protocol_minor()) >= 2;
        let key = if long_key { self.seat.key.clone() } else { self.seat.key.slice(..4) };
        self.send(BackendMessage::BackendKeyData { pid: self.seat.pid, key }).await?;
        self.emit(Moment::Ready, vec![BackendMessage::ReadyForQuery(TransactionStatus::Idle)]).await?;
        self.flush().await?;
        self.counts = true;
        Ok(())
    }

    /// Answers requests for encryption, serves a cancel request, and returns the StartupMessage.
    async fn read_startup(&mut self) -> Result<Startup, Stop> {
        let (mut asked_ssl, mut asked_gss) = (false, false);
        loop {
            self.flush().await?;
            let packet = self.wire.read_startup().await.ok_or(Ending::Gone)?;
            let Ok(packet) = StartupPacket::decode(packet) else {
                let message = "invalid startup packet layout: expected terminator as last byte";
                return Err(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).into());
            };
            let asked = match packet {
                StartupPacket::Startup(startup) => {
                    let parameters = startup.parameters.iter().map(|(name, value)| format!("{name}={value}"));
                    let parameters = parameters.collect::<Vec<_>>().join(" ");
                    let detail = format!("{}.{} {parameters}", startup.major, startup.minor);
                    self.note_packet("StartupMessage", Direction::Received, &detail);
                    return Ok(startup);
                }
                StartupPacket::Cancel { pid, key } => {
                    self.note_packet("CancelRequest", Direction::Received, &format!("pid {pid}"));
                    self.shared.cancel(pid, &key);
                    return Err(Ending::Close.into());
                }
                StartupPacket::SslRequest => {
                    self.note_packet("SSLRequest", Direction::Received, "");
                    &mut asked_ssl
                }
                StartupPacket::GssEncRequest => {
                    self.note_packet("GSSENCRequest", Direction::Received, "");
                    &mut asked_gss
                }
            };
            if std::mem::replace(asked, true) {
                let message = "unsupported frontend protocol 1234.5679: server supports";
                let message = format!("{message} {}", self.version.supported_protocols());
                return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
            }
            self.note_packet("refusal", Direction::Sent, "N");
            self.wire.output.extend_from_slice(b"N");
        }
    }

    fn note_packet(&self, message: &'static str, direction: Direction, detail: &str) {
        self.shared.record(self.seat.number, &Said { direction, message, detail, bytes: 0, folds: false });
    }

    /// `ProcessStartupPacket` after the packet was read: the protocol's version, the parameters.
    async fn accept_startup(&mut self, startup: &Startup) -> Result<Replication, Stop> {
        if startup.major != 3 {
            let supported = self.version.supported_protocols();
            let asked = format!("{}.{}", startup.major, startup.minor);
            let message = format!("unsupported frontend protocol {asked}: server supports {supported}");
            if startup.major < 3 {
                // In the form that such a client understands: no length, the severity in the text.
                self.wire.output.extend_from_slice(format!("EFATAL:  {message}\n\0").as_bytes());
                return Err(Ending::Close.into());
            }
            return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
        }
        let replication = self.replication(startup.get("replication").unwrap_or("false"))?;
        startup.get("user").unwrap_or_default().clone_into(&mut self.user);
        self.seat.identify(|identity| {
            identity.application_name = startup.get("application_name").map(str::to_owned);
        });
        self.at(Moment::Startup).await?;
        let unknown = startup.parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with("_pq_."));
        let unrecognized: Vec<_> = unknown.cloned().collect();
        let (asked, newest) = (u32::from(startup.minor), self.version.newest_protocol_minor());
        if asked > newest || !unrecognized.is_empty() {
            let newest = 3 << 16 | asked.min(newest);
            self.send(BackendMessage::NegotiateProtocolVersion { newest, unrecognized }).await?;
        }
        if self.user.is_empty() {
            let message = "no PostgreSQL user name specified in startup packet";
            return Err(Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message).into());
        }
        Ok(replication)
    }

    fn replication(&self, value: &str) -> Result<Replication, Diagnostic> {
        if value == "database" && self.version.has_slots() {
            return Ok(Replication::Database);
        }
        match parse_bool(value) {
            Some(true) => Ok(Replication::Physical),
            Some(false) => Ok(Replication::No),
            None => {
                let message = format!("invalid value for parameter \"replication\": \"{value}\"");
                let hint = "Valid values are: \"false\", 0, \"true\", 1, \"database\".";
                Err(Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint))
            }
        }
    }

    /// `canAcceptConnections`: what the postmaster decided when the connection came.
    fn refuse_when_down(&self) -> Result<(), Stop> {
        let refusal = |message: &str| Diagnostic::error(SqlState::CANNOT_CONNECT_NOW, message);
        let (starting_up, explains) = (refusal("the database system is starting up"), self.version.explains_refusals());
        let warm = self.shared.cluster.is_warm_standby();
        Err(match self.seat.began.phase {
            Phase::Running if !warm => return Ok(()),
            Phase::StartingUp => starting_up,
            Phase::RecoveryMode => refusal("the database system is in recovery mode"),
            Phase::Running | Phase::NotConsistent if !explains => starting_up,
            Phase::Running | Phase::NotConsistent if warm => {
                refusal("the database system is not accepting connections").with_detail("Hot standby mode is disabled.")
            }
            Phase::Running | Phase::NotConsistent => refusal("the database system is not yet accepting connections")
                .with_detail("Consistent recovery state has not been yet reached."),
            Phase::SmartShutdown | Phase::Stopping | Phase::EndingStreams | Phase::Stopped => {
                refusal("the database system is shutting down")
            }
        }
        .into())
    }

    /// Settings in the start-up packet, and in its `options` as `-c name=value`.
    fn take_settings(&mut self, startup: &Startup) -> Result<(), Stop> {
        let given = startup
            .parameters
            .iter()
            .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()) && !name.starts_with("_pq_."));
        let mut settings: Vec<_> = given.cloned().collect();
        let mut words = startup.get("options").unwrap_or_default().split_ascii_whitespace();
        while let Some(word) = words.next() {
            let setting = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
                Some("") => words.next(),
                other => other,
            };
            let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) else {
                let message = format!("invalid command-line argument for server process: {word}");
                return Err(Diagnostic::error(SqlState::SYNTAX_ERROR, message).into());
            };
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
        for (name, value) in settings {
            let reported = self.version.reported_settings().iter().find(|known| known.eq_ignore_ascii_case(&name));
            let known = reported.map(|known| (*known).to_owned());
            let known = known.or_else(|| self.shared.cluster.show(&name).map(|(name, _)| name));
            // Settings of extensions have a dot and need not be known.
            let known = known.or_else(|| name.contains('.').then(|| name.clone()));
            let known = known.or_else(|| CLIENT_SETTINGS.contains(&name.as_str()).then(|| name.clone()));
            let Some(known) = known else {
                let message = format!("unrecognized configuration parameter \"{name}\"");
                return Err(Diagnostic::error(SqlState::UNDEFINED_OBJECT, message).into());
            };
            self.settings.insert(known, value);
        }
        Ok(())
    }

    /// A reported setting's value in this session.
    pub(super) fn reported(&self, name: &str) -> String {
        let encoding = if self.database.is_some() { "UTF8" } else { "SQL_ASCII" };
        match name {
            "client_encoding" | "server_encoding" => return encoding.to_owned(),
            "session_authorization" => return self.user.clone(),
            "in_hot_standby" => return on_off(self.reported_standby).to_owned(),
            "is_superuser" => return "off".to_owned(),
            _ => {}
        }
        if let Some(value) = self.settings.get(name) {
            return value.clone();
        }
        if let ("server_version", Some((_, value))) = (name, self.shared.cluster.show(name)) {
            return value;
        }
        let default = match name {
            "application_name" => "",
            "DateStyle" => "ISO, MDY",
            "IntervalStyle" => "postgres",
            "TimeZone" => "UTC",
            "scram_iterations" => "4096",
            "search_path" => "\"$user\", public",
            "default_transaction_read_only" => "off",
            // integer_datetimes, standard_conforming_strings
            _ => "on",
        };
        default.to_owned()
    }
}

/// Settings that clients send and that need not be among those the cluster shows.
const CLIENT_SETTINGS: [&str; 7] = [
    "bytea_output",
    "extra_float_digits",
    "geqo",
    "lock_timeout",
    "statement_timeout",
    "tcp_user_timeout",
    "wal_sender_timeout",
];

/// `parse_bool`: `true`, `false`, `yes`, `no` and their beginnings, `on`, `off` and `of`, `1`, `0`, in any case.
fn parse_bool(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || value == "on" || value == "1" {
        return Some(true);
    }
    (begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0").then_some(false)
}
