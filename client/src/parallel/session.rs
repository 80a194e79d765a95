//! A session that speaks SQL: how it is opened and asked, and the questions that begin and end a backup. Those about files are
//! [`super::files`]'.

use std::sync::Arc;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use bytes::{Bytes, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::ParallelOptions;
use super::statement::{self, Parameter};
use super::values;
use crate::commands::goes_on;
use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::{ClientError, shown};
use crate::mutation::Weakness;
use crate::observer::{Observer, Phase};
use crate::session;

/// The longest label or map, in bytes.
const MAX_TEXT: usize = 64 << 20;

pub(super) type Row = Vec<Option<Bytes>>;

/// What is known of a server from the first answers of a session.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: ServerVersion,
    pub(super) system_identifier: u64,
    /// When the postmaster started, as the server writes it: no other server on earth has both this and the identifier.
    started: Bytes,
    pub(super) in_recovery: bool,
    pub(super) segment_size: WalSegmentSize,
    pub(super) group_access: bool,
    /// `pg_control`, as far as its layout is known (since 12).
    pub(super) control: Option<ControlFile>,
}

/// What the server said at the end of the backup.
pub(super) struct Stopped {
    pub(super) end: Lsn,
    /// `backup_label` and `tablespace_map`, unless they lie in the data directory.
    pub(super) files: Option<(Vec<u8>, Vec<u8>)>,
}

/// Opens sessions.
#[derive(Clone, Copy)]
pub(super) struct Opener<'a> {
    pub(super) connector: &'a dyn Connector,
    pub(super) options: &'a ParallelOptions,
    pub(super) observer: &'a Arc<dyn Observer>,
}

impl Opener<'_> {
    /// A session, and what server it leads to.
    pub(super) async fn open(&self, purpose: Purpose, name: &str) -> Result<(Session, Server), ClientError> {
        let (options, observer) = (self.options, Arc::clone(self.observer));
        let (login, limit) = (&options.login, options.deadlines.connect);
        let opening = Connection::open(self.connector, purpose, login, limit, options.weakness, Arc::clone(&observer));
        let mut connection = opening.await?;
        connection.set_patience(limit, Phase::Connecting);
        let version = connection.version();
        let (name, weakness) = (name.to_owned(), options.weakness);
        let mut session = Session { connection, version, name, observer, compressed: false, weakness };
        let settings = statement::settings(version);
        session.observer.statement(&session.name, settings);
        session.connection.set_doing("could not prepare the session");
        session.connection.query(settings).await?;
        let done = session.done(settings.split(';').count()).await;
        session.settled(done).await?;
        let server = session.server().await?;
        session.connection.set_patience(options.deadlines.data, Phase::Receiving);
        Ok((session, server))
    }

    /// One more session, which must lead to the same server.
    pub(super) async fn another(&self, purpose: Purpose, name: &str, first: &Server) -> Result<Session, ClientError> {
        let (session, server) = self.open(purpose, name).await?;
        let text = if server.system_identifier != first.system_identifier {
            let (ours, theirs) = (first.system_identifier, server.system_identifier);
            format!("system identifier is {theirs} on another connection, but {ours} on the first")
        } else if server.started != first.started {
            "another connection leads to another server, or the server was restarted".to_owned()
        } else if server.in_recovery && !first.in_recovery {
            "another connection leads to a standby, but the first to its primary".to_owned()
        } else if server.in_recovery != first.in_recovery {
            "the standby was promoted during the backup".to_owned()
        } else {
            return Ok(session);
        };
        Err(ClientError::Refused(text))
    }
}

/// A session that can be asked.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) version: ServerVersion,
    name: String,
    observer: Arc<dyn Observer>,
    /// Whether the server compresses what is read.
    pub(super) compressed: bool,
    pub(super) weakness: Weakness,
}

impl Session {
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Waits until something comes, which is never good: nothing was asked.
    pub(super) async fn broken(&mut self) -> ClientError {
        self.connection.set_patience(None, Phase::Receiving);
        self.connection.set_doing("the session that holds the backup was lost");
        match self.connection.receive().await {
            Ok(message) => self.connection.unexpected("nothing", message.name()),
            Err(error) => error,
        }
    }

    pub(super) async fn terminate(self) {
        self.connection.terminate().await;
    }

    /// Sends a statement and returns its rows, of so many columns and at most `limit` of them. `doing` begins errors: `could not …`.
    pub(super) async fn rows(
        &mut self,
        doing: impl Into<String>,
        sql: &str,
        parameters: &[Parameter<'_>],
        (columns, limit): (usize, usize),
    ) -> Result<Vec<Row>, ClientError> {
        self.connection.set_doing(doing);
        self.observer.statement(&self.name, &with_parameters(sql, parameters));
        let mut out = BytesMut::new();
        let impossible = |_| ClientError::Refused("a statement that cannot be sent".to_owned());
        let types = parameters.iter().map(Parameter::type_oid);
        frontend::parse("", sql, types, &mut out).map_err(impossible)?;
        let put = |parameter: &Parameter<'_>, out: &mut BytesMut| {
            parameter.put(out);
            Ok(IsNull::No)
        };
        frontend::bind("", "", Some(1), parameters, put, Some(1), &mut out)
            .map_err(|_| ClientError::Refused("a parameter that cannot be sent".to_owned()))?;
        frontend::describe(b'P', "", &mut out).map_err(impossible)?;
        frontend::execute("", 0, &mut out).map_err(impossible)?;
        frontend::sync(&mut out);
        self.connection.send(&out).await?;
        let answer = self.answer(columns, limit).await;
        self.settled(answer).await
    }

    /// Everything up to ReadyForQuery, in the order in which a server says it. CommandComplete counts the rows, so that one which is lost
    /// on the way is missed.
    async fn answer(&mut self, columns: usize, limit: usize) -> Result<Vec<Row>, ClientError> {
        let mut expected = Expected::ParseComplete;
        let mut rows = Vec::new();
        loop {
            let message = self.connection.receive().await?;
            expected = match (expected, message) {
                (Expected::ParseComplete, BackendMessage::ParseComplete) => Expected::BindComplete,
                (Expected::BindComplete, BackendMessage::BindComplete) => Expected::Description,
                (Expected::Description, BackendMessage::NoData) if columns == 0 => Expected::Rows,
                (Expected::Description, BackendMessage::RowDescription(described)) if described.len() == columns => {
                    Expected::Rows
                }
                (Expected::Rows, BackendMessage::DataRow(row)) if columns > 0 => {
                    self.connection.check_row(&row, columns)?;
                    if rows.len() >= limit {
                        return Err(self.connection.unexpected(format!("at most {limit} rows"), "more"));
                    }
                    rows.push(row);
                    Expected::Rows
                }
                (Expected::Rows, BackendMessage::CommandComplete(tag)) => {
                    let expected = format!("SELECT {}", rows.len());
                    if columns > 0 && tag != expected {
                        return Err(self.connection.unexpected(expected, tag));
                    }
                    Expected::Ready
                }
                (Expected::Ready, BackendMessage::ReadyForQuery(_)) => return Ok(rows),
                (expected, other) => return Err(self.connection.unexpected(expected.name(), other.name())),
            };
        }
    }

    /// The answer to so many statements without rows in one Query.
    async fn done(&mut self, statements: usize) -> Result<(), ClientError> {
        for _ in 0..statements {
            match self.connection.receive().await? {
                BackendMessage::CommandComplete(_) => {}
                other => return Err(self.connection.unexpected("CommandComplete", other.name())),
            }
        }
        match self.connection.receive().await? {
            BackendMessage::ReadyForQuery(_) => Ok(()),
            other => Err(self.connection.unexpected("ReadyForQuery", other.name())),
        }
    }

    /// After an error that the session outlives, reads up to where it goes on.
    async fn settled<T>(&mut self, answer: Result<T, ClientError>) -> Result<T, ClientError> {
        let Err(ClientError::Server { diagnostic, .. }) = &answer else { return answer };
        if goes_on(diagnostic) {
            while !matches!(self.connection.receive().await?, BackendMessage::ReadyForQuery(_)) {}
        }
        answer
    }

    /// The only row of an answer.
    async fn row(
        &mut self,
        doing: &str,
        sql: &str,
        parameters: &[Parameter<'_>],
        columns: usize,
    ) -> Result<Row, ClientError> {
        let mut rows = self.rows(doing, sql, parameters, (columns, 1)).await?;
        rows.pop().ok_or_else(|| self.connection.unexpected("one row", "none"))
    }

    pub(super) fn malformed(&self, what: &str) -> ClientError {
        self.connection.unexpected(what, "something else")
    }

    async fn server(&mut self) -> Result<Server, ClientError> {
        let version = self.version;
        let columns = if version.has_group_access() { 4 } else { 3 };
        let row = self.row("could not identify the server", statement::identity(version), &[], columns).await?;
        let value = |index: usize| row.get(index).cloned().flatten();
        let text = |index: usize| value(index).map(|value| String::from_utf8_lossy(&value).into_owned());
        let in_recovery = value(0).as_ref().and_then(values::boolean).ok_or_else(|| self.malformed("a boolean"))?;
        let started = value(1).ok_or_else(|| self.malformed("the time of the server's start"))?;
        let segment_size = session::parse_segment_size(&text(2).unwrap_or_default())?;
        let group_access = match text(3) {
            Some(mode) => session::parse_mode(&mode)?,
            None => false,
        };
        let (content, control) = self.control().await?;
        let system_identifier = content.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        Ok(Server { version, system_identifier, started, in_recovery, segment_size, group_access, control })
    }

    /// Starts the backup.
    pub(super) async fn start(&mut self, label: &str, fast: bool) -> Result<Lsn, ClientError> {
        let parameters = [Parameter::Text(label.as_bytes()), Parameter::Bool(fast)];
        let row = self.row("could not start the backup", statement::start(self.version), &parameters, 1).await?;
        self.position(&row)
    }

    /// Ends the backup.
    pub(super) async fn stop(&mut self, wait_for_archive: bool) -> Result<Stopped, ClientError> {
        let (sql, waits) = statement::stop(self.version);
        let parameters = [Parameter::Bool(wait_for_archive)];
        let parameters = if waits { &parameters[..] } else { &[] };
        let columns = if self.version.has_non_exclusive_backup() { 3 } else { 1 };
        let row = self.row("could not stop the backup", sql, parameters, columns).await?;
        let end = self.position(&row)?;
        let files = match &*row {
            [_] => None,
            [_, Some(label), map] => {
                let map = map.as_deref().unwrap_or_default();
                if label.len() > MAX_TEXT || map.len() > MAX_TEXT {
                    return Err(self.malformed("a label and a map"));
                }
                Some((label.to_vec(), map.to_vec()))
            }
            _ => return Err(self.malformed("a label")),
        };
        Ok(Stopped { end, files })
    }

    /// The first value of a row.
    fn position(&self, row: &[Option<Bytes>]) -> Result<Lsn, ClientError> {
        let lsn = row.first().and_then(Option::as_ref).and_then(|value| values::position(value, self.version));
        lsn.ok_or_else(|| self.malformed("a write-ahead log location"))
    }
}

/// What an answer goes on with.
#[derive(Clone, Copy, Debug)]
enum Expected {
    ParseComplete,
    BindComplete,
    Description,
    Rows,
    Ready,
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::ParseComplete => "ParseComplete",
            Self::BindComplete => "BindComplete",
            Self::Description => "RowDescription",
            Self::Rows => "DataRow or CommandComplete",
            Self::Ready => "ReadyForQuery",
        }
    }
}

/// A statement as a person wants to see it.
fn with_parameters(sql: &str, parameters: &[Parameter<'_>]) -> String {
    if parameters.is_empty() {
        return sql.to_owned();
    }
    let shown: Vec<String> = parameters
        .iter()
        .enumerate()
        .map(|(index, parameter)| match parameter {
            Parameter::Text(text) => format!("${} = '{}'", index + 1, shown(text)),
            Parameter::Bool(value) => format!("${} = {value}", index + 1),
            Parameter::Int8(value) => format!("${} = {value}", index + 1),
            Parameter::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| shown(text)).collect();
                format!("${} = '{{{}}}'", index + 1, texts.join(","))
            }
        })
        .collect();
    format!("{sql} [{}]", shown.join(", "))
}
