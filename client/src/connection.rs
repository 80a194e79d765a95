//! A walsender connection: framing, start-up, simple commands.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::version::{Flavour, ServerVersion};
use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::auth::{AuthError, Channel, Exchange, Step};
use crate::connector::{BoxStream, Connector, Purpose, SessionKey};
use crate::error::{ClientError, shown};
use crate::login::{Login, Replication};
use crate::mutation::{Mutation, Weakness};
use crate::observer::{Observer, Phase};
use crate::start_up::Opening;

/// What is read from the transport at once, in bytes: at first, and once more than that is there each time.
const READ_AHEAD: usize = 64 << 10;
const MOST_READ_AHEAD: usize = 256 << 10;
/// More settings than any server reports.
const MAX_PARAMETERS: usize = 1000;
/// More notices than a server has reason to send on one connection: an endless stream of them must end.
const MAX_NOTICES: usize = 1_000_000;

/// Rows of a command that answers with few of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResultSet {
    pub(crate) columns: usize,
    pub(crate) rows: Vec<Vec<Option<Bytes>>>,
}

impl ResultSet {
    /// The text in the first row's column `index`, if it is neither missing nor NULL.
    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        self.rows.first()?.get(index)?.as_deref().and_then(|value| str::from_utf8(value).ok())
    }
}

/// A connection after start-up.
pub(crate) struct Connection {
    stream: BoxStream,
    input: BytesMut,
    read_ahead: usize,
    observer: Arc<dyn Observer>,
    parameters: BTreeMap<String, String>,
    notices: usize,
    key: SessionKey,
    server: String,
    version: ServerVersion,
    /// What errors begin with.
    doing: String,
    /// The deadline for the next byte, and what it is called.
    patience: (Option<Duration>, Phase),
    /// Whether Terminate still makes sense.
    open: bool,
    weakness: Weakness,
}

impl Connection {
    /// Opens a session, all of it within `limit`.
    pub(crate) async fn open(
        connector: &dyn Connector,
        purpose: Purpose,
        login: &Login,
        limit: Option<Duration>,
        weakness: Weakness,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ClientError> {
        Opening { connector, purpose, login, weakness, observer }.within(limit).await
    }

    /// A connection on which nothing was said yet, in clear or not.
    pub(crate) fn over(
        stream: BoxStream,
        server: String,
        doing: String,
        weakness: Weakness,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(READ_AHEAD),
            read_ahead: READ_AHEAD,
            observer,
            parameters: BTreeMap::new(),
            notices: 0,
            key: SessionKey::default(),
            server,
            version: ServerVersion::NEWEST,
            doing,
            patience: (None, Phase::Connecting),
            open: true,
            weakness,
        }
    }

    /// Logs in, and learns the server's version. `host` is the connector's number for it.
    pub(crate) async fn log_in(&mut self, login: &Login, host: usize, channel: Channel) -> Result<(), ClientError> {
        self.authenticate(login, login.password_for(host), channel).await.map_err(|error| match &login.passfile {
            // libpq tells where the password came from that was wrong.
            Some(file) if login.password.is_none() && error.sqlstate() == Some(SqlState::INVALID_PASSWORD) => {
                error.with_remark(&format!("password retrieved from file \"{}\"", file.display()))
            }
            _ => error,
        })?;
        self.version = self.announced_version()?;
        Ok(())
    }

    async fn authenticate(
        &mut self,
        login: &Login,
        password: Option<&str>,
        channel: Channel,
    ) -> Result<(), ClientError> {
        let mut out = BytesMut::new();
        let replication = match login.replication {
            Replication::Off => None,
            Replication::Physical => Some("true"),
            Replication::Database => Some("database"),
        };
        let given = [
            ("user", Some(login.user.as_str())),
            ("database", Some(login.database.as_str())),
            ("replication", replication),
            ("options", login.session_options.as_deref()),
            ("application_name", Some(login.application_name.as_str())),
            ("client_encoding", login.client_encoding.as_deref()),
        ];
        let parameters = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
        frontend::startup_message(parameters, &mut out)
            .map_err(|error| ClientError::Refused(format!("invalid connection option: {error}")))?;
        self.send(&out).await?;

        let mut exchange = Exchange::new(login, password, channel);
        let mut authenticated = false;
        let mut negotiated = false;
        loop {
            match self.receive().await? {
                BackendMessage::Authentication(message) if !authenticated => match exchange.step(&message) {
                    Ok(Step::Answer(answer)) => self.send(&answer).await?,
                    Ok(Step::Wait) => {}
                    Ok(Step::Done) => authenticated = true,
                    Err(AuthError::NoPassword) => {
                        return Err(ClientError::PasswordNeeded { server: self.server.clone() });
                    }
                    Err(AuthError::Other(problem)) => {
                        return Err(ClientError::Authentication { server: self.server.clone(), problem });
                    }
                },
                BackendMessage::NegotiateProtocolVersion { newest, .. } if !authenticated && !negotiated => {
                    // We ask for 3.0 without extensions, so that whatever major 3 server is newer or older than that is fine.
                    if newest >> 16 != 3 {
                        return Err(
                            self.unexpected("protocol version 3", format!("{}.{}", newest >> 16, newest & 0xFFFF))
                        );
                    }
                    negotiated = true;
                }
                BackendMessage::BackendKeyData { pid, key } if authenticated => {
                    self.key = SessionKey { pid, secret: key };
                }
                BackendMessage::ReadyForQuery(_) if authenticated => return Ok(()),
                other => return Err(self.unexpected("the start-up of a session", other.name())),
            }
        }
    }

    fn announced_version(&self) -> Result<ServerVersion, ClientError> {
        let announced = self.parameters.get("server_version").map_or("(unknown)", String::as_str);
        ServerVersion::from_announced(announced)
            .ok_or_else(|| ClientError::Refused(format!("incompatible server version {}", shown(announced.as_bytes()))))
    }

    /// The release that the server announced.
    pub(crate) fn version(&self) -> ServerVersion {
        self.version
    }

    /// What the server says it is built from.
    pub(crate) fn flavour(&self) -> Flavour {
        self.parameters
            .get("server_version")
            .map_or_else(Flavour::default, |announced| Flavour::from_announced(announced))
    }

    /// A setting that the server reported.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether this client is wrong in this way.
    pub(crate) fn weak(&self, mutation: Mutation) -> bool {
        self.weakness.is(mutation)
    }

    /// The process id of the session's backend, 0 if the server told none.
    pub(crate) fn pid(&self) -> i32 {
        self.key.pid
    }

    /// What cancels what the session's server is doing.
    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Sets what errors begin with from now on.
    pub(crate) fn set_doing(&mut self, doing: impl Into<String>) {
        self.doing = doing.into();
    }

    /// Sets how long the next byte may take from now on.
    pub(crate) fn set_patience(&mut self, limit: Option<Duration>, phase: Phase) {
        self.patience = (limit.filter(|_| !self.weak(Mutation::NeverTimesOut)), phase);
    }

    /// An error about a message that cannot stand here.
    pub(crate) fn unexpected(&self, expected: impl Into<String>, got: impl Into<String>) -> ClientError {
        ClientError::Protocol { doing: self.doing.clone(), expected: expected.into(), got: got.into() }
    }

    /// The error for what the server reported.
    fn reported(&self, diagnostic: Diagnostic) -> ClientError {
        ClientError::Server { doing: self.doing.clone(), diagnostic: Box::new(diagnostic) }
    }

    /// The next message that is neither a notice nor a setting. An ErrorResponse is returned as an error. Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Result<BackendMessage, ClientError> {
        loop {
            match self.next().await? {
                BackendMessage::ParameterStatus { name, value } => {
                    self.parameters.insert(name, value);
                    if self.parameters.len() > MAX_PARAMETERS {
                        return Err(self.unexpected("fewer settings", "ParameterStatus without end"));
                    }
                }
                BackendMessage::NoticeResponse(notice) => {
                    self.notices += 1;
                    if self.notices > MAX_NOTICES {
                        return Err(self.unexpected("fewer notices", "NoticeResponse without end"));
                    }
                    self.observer.notice(&notice);
                    if self.weak(Mutation::LosesMessageAfterNotice) {
                        self.next().await?;
                    }
                }
                BackendMessage::ErrorResponse(diagnostic) => return Err(self.reported(diagnostic)),
                message => return Ok(message),
            }
        }
    }

    /// The next message of any kind.
    async fn next(&mut self) -> Result<BackendMessage, ClientError> {
        loop {
            let limit = if self.weak(Mutation::BelievesAnyLength) { usize::MAX } else { MAX_FRAME };
            let frame = read_frame(&mut self.input, limit);
            if let Some(frame) = frame.map_err(|source| ClientError::Frame { doing: self.doing.clone(), source })? {
                let message = BackendMessage::decode(frame);
                if message.is_err() && self.weak(Mutation::SkipsUnknownMessages) {
                    continue;
                }
                return message.map_err(|source| ClientError::Message { doing: self.doing.clone(), source });
            }
            if self.input.capacity() - self.input.len() < self.read_ahead / 4 {
                self.input.reserve(self.read_ahead);
            }
            let room = self.input.capacity() - self.input.len();
            let reading = self.stream.read_buf(&mut self.input);
            let read = within(self.patience.0, &self.patience.1, reading).await?;
            match read {
                Ok(0) => {
                    self.open = false;
                    return Err(ClientError::Closed { doing: self.doing.clone() });
                }
                Ok(read) if read == room => self.read_ahead = (2 * self.read_ahead).min(MOST_READ_AHEAD),
                Ok(_) => {}
                Err(source) => {
                    self.open = false;
                    return Err(ClientError::Connection { doing: self.doing.clone(), source });
                }
            }
        }
    }

    /// Sends encoded messages.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let stream = &mut self.stream;
        let sending = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        within(self.patience.0, &self.patience.1, sending).await?.map_err(|source| {
            self.open = false;
            ClientError::Connection { doing: self.doing.clone(), source }
        })
    }

    /// Sends a command.
    pub(crate) async fn query(&mut self, command: &str) -> Result<(), ClientError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)
            .map_err(|_| ClientError::Refused("a command cannot contain a zero byte".to_owned()))?;
        self.send(&out).await
    }

    /// Sends a command that answers with at most one result set, and reads it up to ReadyForQuery.
    pub(crate) async fn command(&mut self, command: &str) -> Result<ResultSet, ClientError> {
        self.set_doing(format!("could not send replication command \"{command}\""));
        self.query(command).await?;
        let mut result = ResultSet { columns: 0, rows: Vec::new() };
        let mut described = false;
        let mut complete = 0;
        loop {
            match self.receive().await? {
                BackendMessage::RowDescription(columns) if !described && complete == 0 => {
                    described = true;
                    result.columns = columns.len();
                }
                BackendMessage::DataRow(row) if described && complete == 0 => {
                    self.check_row(&row, result.columns)?;
                    if !result.rows.is_empty() {
                        return Err(self.unexpected("one row", "more than one"));
                    }
                    result.rows.push(row);
                }
                // Before 13, DROP_REPLICATION_SLOT completes twice.
                BackendMessage::CommandComplete(_) if complete < 2 => complete += 1,
                BackendMessage::ReadyForQuery(_) if complete > 0 => return Ok(result),
                other => return Err(self.unexpected("the result of a command", other.name())),
            }
        }
    }

    /// Requires as many values as were described.
    pub(crate) fn check_row(&self, row: &[Option<Bytes>], columns: usize) -> Result<(), ClientError> {
        if row.len() == columns || self.weak(Mutation::IgnoresRowDescription) {
            Ok(())
        } else {
            Err(self.unexpected(format!("{columns} fields"), format!("{} fields", row.len())))
        }
    }

    /// Says goodbye. That the server is gone already is no error: everything was read.
    pub(crate) async fn terminate(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        if self.send(&out).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
        self.open = false;
    }
}

impl Drop for Connection {
    /// Says goodbye as `PQfinish` does, if that is possible without waiting: a server in the middle of a backup then need not
    /// find out by itself.
    fn drop(&mut self) {
        if self.open && self.weak(Mutation::LeaksConnections) {
            std::mem::forget(std::mem::replace(&mut self.stream, Box::new(tokio::io::empty())));
        } else if self.open {
            let mut out = BytesMut::new();
            frontend::terminate(&mut out);
            let _ = Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(Waker::noop()), &out);
        }
    }
}

/// Waits for `work` no longer than `limit`.
async fn within<T>(limit: Option<Duration>, phase: &Phase, work: impl Future<Output = T>) -> Result<T, ClientError> {
    match limit {
        None => Ok(work.await),
        Some(limit) => {
            tokio::time::timeout(limit, work).await.map_err(|_| ClientError::Timeout { phase: phase.clone() })
        }
    }
}
