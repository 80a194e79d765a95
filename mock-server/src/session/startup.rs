//! Start-up: from the first byte to the first ReadyForQuery.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState, TransactionStatus};
use backstop_protocol::frontend::Startup;
use bytes::Bytes;

use super::{Ending, Session, Stop, on_off, options};
use crate::fault::Moment;
use crate::phase::Phase;
use crate::random;

/// `authentication_timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters of a start-up packet that are no settings.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// What the names of protocol options begin with.
const PROTOCOL_OPTION: &str = "_pq_.";

const NO_USER: &str = "no PostgreSQL user name specified in startup packet";

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
        self.is_walsender = replication != Replication::No;
        if self.is_walsender && !self.shared.take_walsender_place(&self.seat) {
            let setting = self.version.setting_in_message("max_wal_senders");
            let limit = self.shared.cluster.max_wal_senders();
            let message = format!("number of requested standby connections exceeds {setting} (currently {limit})");
            return Err(Diagnostic::error(SqlState::TOO_MANY_CONNECTIONS, message).into());
        }
        let database = startup.get("database").filter(|name| !name.is_empty()).unwrap_or(&self.user);
        let database = truncated(database).to_owned();
        let physical = replication == Replication::Physical;
        match tokio::time::timeout(TIMEOUT, self.authenticate(physical, &database)).await {
            Ok(authenticated) => authenticated?,
            Err(_) => return Err(Ending::Close.into()),
        }
        self.seat.admitted.store(true, Ordering::SeqCst);
        self.log_in(replication)?;
        if replication != Replication::Physical {
            if !["postgres", "template1"].contains(&database.as_str()) {
                let message = format!("database \"{database}\" does not exist");
                return Err(Diagnostic::error(SqlState::INVALID_CATALOG_NAME, message).into());
            }
            self.database = Some(database);
        }
        self.take_settings(&startup).await?;
        self.greet(&startup).await
    }

    /// What the role that was proven may do: `InitializeSessionUserId`, and the privilege to replicate.
    fn log_in(&mut self, replication: Replication) -> Result<(), Stop> {
        let role = self.shared.access.role(&self.user);
        let refuse = |problem| {
            let message = format!("role \"{}\" {problem}", self.user);
            Err(Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message).into())
        };
        let Some(role) = role else { return refuse("does not exist") };
        if !role.login {
            return refuse("is not permitted to log in");
        }
        let may_replicate = role.replication || (role.superuser && self.version.superusers_may_replicate());
        if replication != Replication::No && !may_replicate {
            let refusal = |message| Diagnostic::error(SqlState::INSUFFICIENT_PRIVILEGE, message);
            return Err(if self.version.details_missing_privileges() {
                let detail = "Only roles with the REPLICATION attribute may start a WAL sender process.";
                refusal("permission denied to start WAL sender").with_detail(detail).into()
            } else if self.version.superusers_may_replicate() {
                refusal("must be superuser or replication role to start walsender").into()
            } else {
                refusal("must be replication role to start walsender").into()
            });
        }
        self.superuser = role.superuser;
        Ok(())
    }

    /// ParameterStatus, BackendKeyData, ReadyForQuery.
    async fn greet(&mut self, startup: &Startup) -> Result<(), Stop> {
        self.reported_standby = self.shared.cluster.in_recovery();
        for name in self.version.reported_settings() {
            let value = self.reported(name);
            self.send(BackendMessage::ParameterStatus { name: (*name).to_owned(), value }).await?;
        }
        let long_key = u32::from(startup.minor).min(self.version.newest_protocol_minor()) >= 2;
        let key = random::bytes::<32>(self.shared.config.seed, self.seat.number, "cancel key");
        let key = Bytes::copy_from_slice(if long_key { &key } else { &key[..4] });
        let key = self.seat.key.get_or_init(|| key).clone();
        self.send(BackendMessage::BackendKeyData { pid: self.seat.pid, key }).await?;
        self.emit(Moment::Ready, vec![BackendMessage::ReadyForQuery(TransactionStatus::Idle)]).await?;
        self.flush().await?;
        self.counts = true;
        Ok(())
    }

    /// `ProcessStartupPacket` after the packet was read: the protocol's version, the parameters.
    async fn accept_startup(&mut self, startup: &Startup) -> Result<Replication, Stop> {
        let (asked, newest) = (u32::from(startup.minor), self.version.newest_protocol_minor());
        let negotiates = self.version.negotiates_protocol();
        if startup.major == 2 && self.version.speaks_protocol_2() {
            // Not here: nothing in this protocol asks for replication.
            let user = startup.get("user").unwrap_or_default();
            let problem = if user.is_empty() { NO_USER } else { "this server does not speak protocol 2" };
            return Err(self.refuse_in_protocol_2(problem));
        }
        if startup.major != 3 || (asked > newest && !negotiates) {
            return Err(self.unsupported_protocol(startup.major, startup.minor));
        }
        let mut replication = Replication::No;
        for (_, value) in startup.parameters.iter().filter(|(name, _)| name == "replication") {
            replication = self.replication(value)?;
        }
        truncated(startup.get("user").unwrap_or_default()).clone_into(&mut self.user);
        self.seat.identify(|identity| {
            identity.application_name = startup.get("application_name").map(str::to_owned);
        });
        self.at(Moment::Startup).await?;
        let unknown = startup.parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with(PROTOCOL_OPTION));
        let unrecognized: Vec<_> = unknown.filter(|_| negotiates).cloned().collect();
        if asked > newest || !unrecognized.is_empty() {
            let newest = 3 << 16 | asked.min(newest);
            self.send(BackendMessage::NegotiateProtocolVersion { newest, unrecognized }).await?;
        }
        if self.user.is_empty() {
            return Err(Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, NO_USER).into());
        }
        Ok(replication)
    }

    /// A protocol that the server does not speak. A client of an old one is told in the form that it understands, one that asks for
    /// no version at all is not.
    pub(super) fn unsupported_protocol(&mut self, major: u16, minor: u16) -> Stop {
        let supported = self.version.supported_protocols();
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports {supported}");
        if (1..3).contains(&major) || (major == 0 && self.version.speaks_protocol_2()) {
            return self.refuse_in_protocol_2(&message);
        }
        Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into()
    }

    /// A last word in the form of protocol 2: no length, the severity in the text.
    pub(super) fn refuse_in_protocol_2(&mut self, message: &str) -> Stop {
        self.wire.output.extend_from_slice(format!("EFATAL:  {message}\n\0").as_bytes());
        Ending::Close.into()
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

    /// Settings in the start-up packet's `options`, then those that are parameters of their own (`process_startup_options`).
    async fn take_settings(&mut self, startup: &Startup) -> Result<(), Stop> {
        let mut settings = options::settings(startup.get("options").unwrap_or_default())?;
        let is_setting = |name: &str| {
            let reserved = self.version.negotiates_protocol() && name.starts_with(PROTOCOL_OPTION);
            !NOT_SETTINGS.contains(&name) && !reserved
        };
        settings.extend(startup.parameters.iter().filter(|(name, _)| is_setting(name)).cloned());
        for (name, value) in settings {
            let is_name = name.eq_ignore_ascii_case("application_name");
            let value = if is_name { self.clean_name(&value).await? } else { value };
            self.set(&name, Some(&value))?;
        }
        self.forget_changes();
        Ok(())
    }

    /// An `application_name` as the server keeps it: printable ASCII (`pg_clean_ascii`), at most 63 bytes.
    async fn clean_name(&mut self, name: &str) -> Result<String, Stop> {
        let mut clean = String::new();
        for byte in name.bytes() {
            match byte {
                b' '..=b'~' => clean.push(char::from(byte)),
                _ if self.version.escapes_unprintable_names() => {
                    // Writing to a String cannot fail.
                    let _ = write!(clean, "\\x{byte:02x}");
                }
                _ => clean.push('?'),
            }
        }
        let kept = truncated(&clean);
        if kept.len() < clean.len() {
            let notice = format!("identifier \"{clean}\" will be truncated to \"{kept}\"");
            let notice = Diagnostic::notice(SqlState::NAME_TOO_LONG, notice);
            self.send(BackendMessage::NoticeResponse(notice)).await?;
        }
        Ok(kept.to_owned())
    }

    /// A reported setting's value in this session.
    pub(super) fn reported(&self, name: &str) -> String {
        let encoding = if self.database.is_some() { "UTF8" } else { "SQL_ASCII" };
        match name {
            "server_encoding" => return encoding.to_owned(),
            "session_authorization" => return self.user.clone(),
            "in_hot_standby" => return on_off(self.reported_standby).to_owned(),
            "is_superuser" => return on_off(self.superuser).to_owned(),
            _ => {}
        }
        if let Some(value) = self.settings.get(name) {
            return value.clone();
        }
        if CONFIGURED.contains(&name)
            && let Some((_, value)) = self.shared.cluster.show(name)
        {
            return value;
        }
        let default = match name {
            "application_name" => "",
            "client_encoding" => encoding,
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

/// Reported settings that `postgresql.conf` may have set.
const CONFIGURED: [&str; 8] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "default_transaction_read_only",
    "scram_iterations",
    "search_path",
    "server_version",
    "standard_conforming_strings",
];

/// A name as far as it fits into NAMEDATALEN, with its terminating zero. Cut between characters, as the clients' texts are UTF-8 here.
fn truncated(name: &str) -> &str {
    let end = (0..=name.len().min(63)).rev().find(|at| name.is_char_boundary(*at));
    name.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// `parse_bool`: `true`, `false`, `yes`, `no` and their beginnings, `on`, `off` and `of`, `1`, `0`, in any case.
pub(super) fn parse_bool(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || value == "on" || value == "1" {
        return Some(true);
    }
    (begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0").then_some(false)
}
