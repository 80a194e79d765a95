//! One connection: what a walsender says.
//!
//! [`serve`] runs a session from its first byte to its last. After start-up it is a loop over commands, one file for each. What
//! every command needs is here, in `output` (sending) and in `faults` (asking the plan and doing what it says).

mod alter_replication_slot;
mod archiving;
mod auth;
mod base_backup;
pub(crate) mod changes;
mod create_replication_slot;
mod drop_replication_slot;
mod faults;
mod identify_system;
mod logical;
mod negotiation;
mod options;
pub(crate) mod output;
mod read_replication_slot;
mod scram;
mod show;
mod sql;
pub(crate) mod start_replication;
mod startup;
pub(crate) mod throttle;
mod timeline_history;
mod upload_manifest;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, Severity, SqlState};
use backstop_protocol::base_backup::manifest::PriorBackup;
use backstop_protocol::command::{self, Command, CommandError, MAX_COMMAND, OptionError};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::version::ServerVersion;
use bytes::BytesMut;
use tokio::time::Instant;

use self::changes::Changes;
use self::sql::Sql;
use self::throttle::Throttle;
use self::wire::{Received, Wire};
use crate::fault::{Moment, Role};
use crate::phase::Phase;
use crate::server::{BackupOutcome, Order, Seat, Shared};
use crate::transport::Stream;

/// How long a session that ends waits for its client to take the last bytes.
const LINGER: Duration = Duration::from_secs(5);

/// What keeps a command from going on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// ERROR: the command is over, the session is not.
    Error(Diagnostic),
    /// The session is over.
    End(Ending),
}

impl From<Diagnostic> for Stop {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Error(diagnostic)
    }
}

impl From<Ending> for Stop {
    fn from(ending: Ending) -> Self {
        Self::End(ending)
    }
}

impl From<OptionError> for Stop {
    fn from(error: OptionError) -> Self {
        Self::Error(refused_option(error))
    }
}

/// What a wrong option makes a server say.
fn refused_option(error: OptionError) -> Diagnostic {
    let code = SqlState::new(error.code).unwrap_or(SqlState::INTERNAL_ERROR);
    let OptionError { message, detail, hint, .. } = error;
    Diagnostic { detail, hint, ..Diagnostic::error(code, message) }
}

/// How a session ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The client said Terminate.
    Terminated,
    /// The client is gone, or what it sends cannot be framed.
    Gone,
    /// The server closes, after what was said.
    Close,
    /// The connection is reset.
    Reset,
    /// A last word, then the server closes.
    Fatal(Diagnostic),
    /// The server crashed, or shuts down at once.
    Crash,
}

/// A session's state.
pub(crate) struct Session {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    version: ServerVersion,
    wire: Wire,
    /// Whether the session takes replication commands: with `replication=true` or `database`.
    is_walsender: bool,
    /// From the start-up packet.
    user: String,
    /// Whether the user is a superuser.
    superuser: bool,
    /// The database that it is connected to, which a physical walsender is not.
    database: Option<String>,
    /// What SQL keeps from one statement to the next.
    sql: Sql,
    /// Settings that the client gave.
    settings: BTreeMap<String, String>,
    /// What `in_hot_standby` was reported as.
    reported_standby: bool,
    /// How often settings had changed when the session looked last.
    reloads: u64,
    /// Whether start-up is over, so that messages count.
    counts: bool,
    /// Whether any fault counts messages.
    counted: bool,
    /// The manifest that an incremental backup builds on.
    uploaded: Option<Arc<PriorBackup>>,
    /// Whether a base backup runs: its end by an error is announced since 16.
    backup_runs: bool,
    /// Where the session's backup stands in the server's book.
    record: Option<usize>,
    /// A fault slows the session down.
    pace: Option<Throttle>,
    /// When a client that takes nothing more is given up: while WAL is sent.
    patience: Option<Instant>,
    /// A fault cuts CopyData into pieces of so many bytes.
    piece: Option<usize>,
    /// Faults change what comes.
    changes: Changes,
    /// What a fault has taken out of its place, to be said after the next message, and whether more of it comes.
    held: BytesMut,
    holds: bool,
}

/// Runs a session.
pub(crate) async fn serve(shared: Arc<Shared>, seat: Arc<Seat>, stream: Stream) {
    let mut session = Session {
        version: shared.cluster.version(),
        wire: Wire::new(stream, shared.tap(seat.number)),
        is_walsender: false,
        user: String::new(),
        superuser: false,
        database: None,
        sql: Sql::new(),
        settings: BTreeMap::new(),
        reported_standby: false,
        reloads: shared.cluster.reloads(),
        counts: false,
        counted: shared.counts_messages(),
        uploaded: None,
        backup_runs: false,
        record: None,
        pace: None,
        patience: None,
        piece: None,
        changes: Changes::default(),
        held: BytesMut::new(),
        holds: false,
        seat: seat.clone(),
        shared: shared.clone(),
    };
    // Also when the task is aborted or panics: the book must not name sessions that are not there.
    let _leave = Leave { shared: shared.clone(), seat: seat.clone() };
    let ending = tokio::select! {
        biased;
        ending = struck_down(&shared, &seat) => ending,
        ending = session.converse() => ending,
    };
    session.finish(ending).await;
}

/// Takes a session off the book.
struct Leave {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.cluster.end_session(self.seat.pid);
        self.shared.leave(&self.seat);
    }
}

/// Resolves when the server, another session or the clock ends this session.
async fn struck_down(shared: &Shared, seat: &Seat) -> Ending {
    let (mut life, mut order) = (shared.life.subscribe(), seat.order.subscribe());
    let mut condemned = pin!(shared.cluster.condemned(seat.pid));
    loop {
        let now = *life.borrow_and_update();
        if now.crashes != seat.began.crashes {
            return Ending::Crash;
        }
        // A session that the postmaster has not taken in is refused by its start-up; one that streams ends in its own way.
        let stops = now.phase.stops_walsenders() && seat.began.phase == Phase::Running;
        if stops && !seat.streams.load(Ordering::SeqCst) {
            let admitted = seat.admitted.load(Ordering::SeqCst);
            return if admitted { Ending::Fatal(terminated()) } else { Ending::Close };
        }
        match *order.borrow_and_update() {
            Some(Order::Terminate) => return Ending::Fatal(terminated()),
            Some(Order::Close) => return Ending::Close,
            Some(Order::Reset) => return Ending::Reset,
            None => {}
        }
        // The senders live as long as what is borrowed here.
        tokio::select! {
            biased;
            _ = life.changed() => {}
            _ = order.changed() => {}
            () = &mut condemned => return Ending::Fatal(terminated()),
        }
    }
}

/// What a session hears that an administrator ends.
pub(crate) fn terminated() -> Diagnostic {
    Diagnostic::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

/// What a session hears whose query is cancelled.
fn canceled() -> Stop {
    Stop::Error(Diagnostic::error(SqlState::QUERY_CANCELED, "canceling statement due to user request"))
}

impl Session {
    /// The session until it ends by itself.
    async fn converse(&mut self) -> Ending {
        match self.start_up().await {
            Ok(()) => {}
            // During start-up every error is fatal.
            Err(Stop::Error(error)) => {
                return Ending::Fatal(Diagnostic { severity: Severity::Fatal, ..error });
            }
            Err(Stop::End(ending)) => return ending,
        }
        loop {
            if let Err(ending) = self.command().await {
                return ending;
            }
        }
    }

    /// One command and its answer, ReadyForQuery included.
    async fn command(&mut self) -> Result<(), Ending> {
        let outcome = match self.receive().await? {
            FrontendMessage::Terminate => return Err(Ending::Terminated),
            FrontendMessage::Query(_) if self.sql.skips() => return Ok(()),
            FrontendMessage::Query(text) => {
                self.forget_cancel();
                self.hear_of_reload();
                self.run(&text).await
            }
            // Leftovers of a COPY that an error has ended, and Flush, have no answer.
            FrontendMessage::CopyData(_)
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail(_)
            | FrontendMessage::Flush => return Ok(()),
            FrontendMessage::Sync => {
                self.sql.sync();
                Ok(())
            }
            FrontendMessage::Password(_) => {
                let message = "invalid frontend message type 112";
                return Err(Ending::Fatal(Diagnostic::fatal(SqlState::PROTOCOL_VIOLATION, message)));
            }
            FrontendMessage::FunctionCall(body) if !self.is_walsender => {
                let oid = body.first_chunk().map_or(0, |oid| u32::from_be_bytes(*oid));
                let message = format!("function with OID {oid} does not exist");
                Err(Diagnostic::error(SqlState::UNDEFINED_FUNCTION, message).into())
            }
            message if !self.is_walsender => {
                self.forget_cancel();
                return match self.extended(message).await {
                    Ok(()) => Ok(()),
                    Err(Stop::Error(error)) => self.report(error).await,
                    Err(Stop::End(ending)) => Err(ending),
                };
            }
            _ => {
                let message = "extended query protocol not supported in a replication connection";
                self.report(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message)).await?;
                self.skip_to_sync().await?;
                Ok(())
            }
        };
        match outcome {
            Ok(()) => {}
            Err(Stop::Error(error)) => self.report(error).await?,
            Err(Stop::End(ending)) => return Err(ending),
        }
        // What a fault puts in ReadyForQuery's place can be an ERROR, which ReadyForQuery follows.
        loop {
            match self.ready().await {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) => self.report(error).await?,
                Err(Stop::End(ending)) => return Err(ending),
            }
        }
    }

    /// `ProcessConfigFile`: settings that changed since the last command.
    fn hear_of_reload(&mut self) {
        let reloads = self.shared.cluster.reloads();
        if std::mem::replace(&mut self.reloads, reloads) != reloads && self.version.repeats_settings_after_reload() {
            for name in ["client_encoding", "DateStyle", "TimeZone"] {
                let value = self.reported(name);
                self.say_unasked(&BackendMessage::ParameterStatus { name: name.to_owned(), value });
            }
        }
    }

    /// After an error in the extended query protocol everything up to Sync is ignored.
    async fn skip_to_sync(&mut self) -> Result<(), Ending> {
        loop {
            match self.receive().await? {
                FrontendMessage::Sync => return Ok(()),
                FrontendMessage::Terminate => return Err(Ending::Terminated),
                _ => {}
            }
        }
    }

    /// Reads the next message, after what waits was written.
    async fn receive(&mut self) -> Result<FrontendMessage, Ending> {
        // What was to change places with a message that does not come.
        let held = std::mem::take(&mut self.held);
        self.wire.output.extend_from_slice(&held);
        self.flush().await?;
        let received = self.wire.read(MAX_COMMAND).await;
        self.heard(received)
    }

    /// Takes note of what was read.
    fn heard(&mut self, received: Received) -> Result<FrontendMessage, Ending> {
        let violation = |message| Err(Ending::Fatal(Diagnostic::fatal(SqlState::PROTOCOL_VIOLATION, message)));
        match received {
            Received::Message(message) => {
                self.record_received(&message);
                Ok(message)
            }
            Received::Gone => Err(Ending::Gone),
            Received::Unknown(tag) => violation(format!("invalid frontend message type {tag}")),
            Received::Malformed(problem) => violation(problem.to_string()),
        }
    }

    /// Parses and runs a command.
    async fn run(&mut self, text: &[u8]) -> Result<(), Stop> {
        let text = String::from_utf8_lossy(text).into_owned();
        self.shared.book().commands.push(text.clone());
        if !self.is_walsender {
            self.at(Moment::Command(&text)).await?;
            return self.sql(&text).await;
        }
        let parsed = command::parse_as(&text, self.version, self.shared.config.flavour);
        match parsed.as_ref().map(|parsed| &parsed.command) {
            Ok(Command::BaseBackup(_)) => self.seat.identify(|identity| identity.role = Some(Role::Backup)),
            Ok(Command::StartReplication(_)) => self.seat.identify(|identity| identity.role = Some(Role::Wal)),
            _ => {}
        }
        self.at(Moment::Command(&text)).await?;
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(CommandError::NotReplication) if self.database.is_some() => return self.sql(&text).await,
            Err(CommandError::NotReplication) => {
                let message = "cannot execute SQL commands in WAL sender for physical replication";
                return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
            }
            Err(CommandError::Syntax(error)) => {
                return Err(Diagnostic::error(SqlState::SYNTAX_ERROR, error.message).into());
            }
        };
        for notice in parsed.notices {
            self.send(BackendMessage::NoticeResponse(Diagnostic::notice(SqlState::NAME_TOO_LONG, notice))).await?;
        }
        let name = parsed.command.name();
        self.refuse_in_transaction(&parsed.command)?;
        match parsed.command {
            Command::IdentifySystem => self.identify_system().await?,
            Command::Show(setting) => self.show(&setting).await?,
            Command::TimelineHistory(timeline) => self.timeline_history(timeline).await?,
            Command::BaseBackup(options) => self.base_backup(&options).await?,
            Command::CreateReplicationSlot(create) => self.create_replication_slot(&create).await?,
            Command::DropReplicationSlot { slot, wait } => self.drop_replication_slot(&slot, wait).await?,
            Command::AlterReplicationSlot { slot, options } => self.alter_replication_slot(&slot, &options)?,
            Command::ReadReplicationSlot(slot) => self.read_replication_slot(&slot).await?,
            Command::StartReplication(start) => self.start_replication(start).await?,
            Command::UploadManifest => self.upload_manifest().await?,
        }
        self.complete(self.version.command_tag(name)).await?;
        self.edit_record(|record| record.command_complete = true);
        Ok(())
    }

    /// An ERROR, and what goes with it: temporary slots die, and a backup that ran is aborted.
    async fn report(&mut self, error: Diagnostic) -> Result<(), Ending> {
        self.shared.cluster.drop_temporary_slots(self.seat.pid);
        self.fail_backup(&error.message);
        self.fail_transaction();
        let announced = std::mem::take(&mut self.backup_runs) && self.version.warns_of_aborted_backup();
        let warning = announced.then(|| BackendMessage::NoticeResponse(aborting(self.version)));
        for message in warning.into_iter().chain([BackendMessage::ErrorResponse(error)]) {
            match self.send(message).await {
                Ok(()) => {}
                // A fault's error in place of an error: it is said without asking the plan again.
                Err(Stop::Error(other)) => self.say_unasked(&BackendMessage::ErrorResponse(other)),
                Err(Stop::End(ending)) => return Err(ending),
            }
        }
        Ok(())
    }

    /// ReadyForQuery, after news that the client must hear first.
    async fn ready(&mut self) -> Result<(), Stop> {
        let standby = self.shared.cluster.in_recovery();
        if self.version.reports_hot_standby() && self.reported_standby != standby {
            self.reported_standby = standby;
            let (name, value) = ("in_hot_standby".to_owned(), on_off(standby).to_owned());
            self.send(BackendMessage::ParameterStatus { name, value }).await?;
        }
        self.report_settings().await?;
        let said = self.emit(Moment::Ready, vec![BackendMessage::ReadyForQuery(self.sql.status())]).await?;
        self.flush().await?;
        if said > 0 {
            self.close_record(|| BackupOutcome::Complete);
        }
        Ok(())
    }

    /// Notes that the session's backup failed.
    fn fail_backup(&mut self, why: &str) {
        self.close_record(|| BackupOutcome::Failed(why.to_owned()));
    }

    fn close_record(&mut self, outcome: impl FnOnce() -> BackupOutcome) {
        if let Some(record) = self.record.take()
            && let Some(backup) = self.shared.book().backups.get_mut(record)
        {
            backup.ended = outcome();
        }
    }

    /// The session's last words, and its end on the wire.
    async fn finish(&mut self, ending: Ending) {
        let (why, how) = match &ending {
            Ending::Terminated => ("the client terminated the session", "closed by the client"),
            Ending::Gone => ("the connection was lost", "closed by the client"),
            Ending::Close => ("the server closed the connection", "closed"),
            Ending::Reset => ("the server reset the connection", "reset"),
            Ending::Fatal(error) => (error.message.as_str(), "closed"),
            Ending::Crash => ("the server crashed", "closed"),
        };
        self.fail_backup(why);
        self.fail_sql_record(why);
        let sql_backup = self.sql.abort_backup();
        let (how, number) = (how.to_owned(), self.seat.number);
        if matches!(ending, Ending::Terminated) {
            for backup in self.shared.book().backups.iter_mut().filter(|backup| backup.session == number) {
                backup.client_terminated = true;
            }
        }
        let (resets, crashes) = (matches!(ending, Ending::Reset), matches!(ending, Ending::Crash));
        match ending {
            Ending::Fatal(error) => {
                self.say_unasked(&BackendMessage::ErrorResponse(error));
                if sql_backup || (self.backup_runs && self.version.warns_of_aborted_backup()) {
                    self.say_unasked(&BackendMessage::NoticeResponse(aborting(self.version)));
                }
            }
            Ending::Crash if !self.version.crashes_silently() => {
                self.say_unasked(&BackendMessage::NoticeResponse(crashed()));
            }
            _ => {}
        }
        self.note_end(&how);
        // What cannot be delivered in time is lost, as it is when a process ends.
        let _ = tokio::time::timeout(LINGER, self.wire.flush()).await;
        if resets {
            self.wire.reset();
        } else if crashes {
            let _ = tokio::time::timeout(LINGER, self.wire.abandon()).await;
        } else {
            let _ = tokio::time::timeout(LINGER, self.wire.shut_down()).await;
        }
    }

    /// A cancel request that came while nothing ran has no effect: `Notify` keeps at most one, which is taken here.
    fn forget_cancel(&self) {
        let _ = pin!(self.seat.cancel.notified()).poll(&mut Context::from_waker(Waker::noop()));
    }
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn aborting(version: ServerVersion) -> Diagnostic {
    let function = version.backup_stop_function();
    let message = format!("aborting backup due to backend exiting before {function} was called");
    Diagnostic::warning(SqlState::WARNING, message)
}

fn crashed() -> Diagnostic {
    let message = "terminating connection because of crash of another server process";
    let detail = "The postmaster has commanded this server process to roll back the current transaction and exit, because \
                  another server process exited abnormally and possibly corrupted shared memory.";
    let hint = "In a moment you should be able to reconnect to the database and repeat your command.";
    Diagnostic::warning(SqlState::CRASH_SHUTDOWN, message).with_detail(detail).with_hint(hint)
}
