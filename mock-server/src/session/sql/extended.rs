//! The extended query protocol, which ordinary sessions speak and walsenders refuse.

use std::collections::VecDeque;
use std::sync::Arc;

use backstop_protocol::backend::{BackendMessage, Diagnostic, MessageError, SqlState, TransactionStatus};
use backstop_protocol::catalog::SqlType;
use backstop_protocol::extended::{Bind, Execute, Named, Parse};
use backstop_protocol::frontend::FrontendMessage;
use bytes::Bytes;

use super::statement::parse;
use super::value::{Format, Value};
use super::{Analyzed, Session, Stop, Unsupported, What, described, failed_transaction, unsupported};
use crate::fault::Moment;

/// How many statements, and how many portals, a session may keep.
const LIMIT: usize = 1000;

/// How many bytes of statements and of parameters it may keep.
const BYTES: usize = 4 << 20;

/// A prepared statement.
#[derive(Debug)]
pub(super) struct Prepared {
    text: String,
    statement: Analyzed,
    /// Whether it may run in a failed transaction.
    ends_transaction: bool,
}

/// A statement with its parameters.
#[derive(Debug)]
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    parameters: Vec<Value>,
    /// Bytes of the parameters as they came.
    size: usize,
    formats: Vec<Format>,
    /// Rows that were computed and not sent yet, once it runs; and what CommandComplete will say.
    rows: Option<(VecDeque<Vec<Value>>, Option<&'static str>)>,
}

/// What a message hears that has not its shape (`pqformat.c`).
fn malformed(problem: &MessageError) -> Diagnostic {
    let message = match problem.problem {
        "the message ends too early" => "insufficient data left in message",
        "a string has no terminating zero byte" => "invalid string in message",
        _ => "invalid message format",
    };
    Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message)
}

fn too_many(what: &str) -> Diagnostic {
    let message = format!("this server keeps no more than {LIMIT} {what} of a session, and {BYTES} bytes of them");
    Diagnostic::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
}

impl Session {
    /// One message between two Syncs. After an error the rest is ignored.
    pub(in super::super) async fn extended(&mut self, message: FrontendMessage) -> Result<(), Stop> {
        if self.sql.skips {
            return Ok(());
        }
        let outcome = match message {
            FrontendMessage::Parse(body) => match Parse::decode(body) {
                Ok(parse) => self.parse_statement(parse).await,
                Err(problem) => Err(malformed(&problem).into()),
            },
            FrontendMessage::Bind(body) => match Bind::decode(body) {
                Ok(bind) => self.bind(bind).await,
                Err(problem) => Err(malformed(&problem).into()),
            },
            FrontendMessage::Describe(body) => match Named::decode("Describe", body) {
                Ok(named) => self.describe(named).await,
                Err(problem) => Err(malformed(&problem).into()),
            },
            FrontendMessage::Execute(body) => match Execute::decode(body) {
                Ok(execute) => self.execute(execute).await,
                Err(problem) => Err(malformed(&problem).into()),
            },
            FrontendMessage::Close(body) => match Named::decode("Close", body) {
                Ok(named) => self.close(named).await,
                Err(problem) => Err(malformed(&problem).into()),
            },
            _ => Ok(()),
        };
        self.sql.skips = matches!(outcome, Err(Stop::Error(_)));
        outcome
    }

    async fn parse_statement(&mut self, message: Parse) -> Result<(), Stop> {
        let Parse { statement: name, query: text, types } = message;
        let failed = self.sql.status == TransactionStatus::Failed;
        let mut statements =
            parse(&text).map_err(|Unsupported| if failed { failed_transaction() } else { unsupported() })?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Diagnostic::error(SqlState::SYNTAX_ERROR, message).into());
        }
        // The unnamed statement is replaced; it is gone even if the new one is wrong.
        if name.is_empty() {
            self.sql.statements.remove("");
        }
        let given = |oid| if oid == 0 { Ok(None) } else { SqlType::from_oid(oid).map(Some).ok_or_else(unsupported) };
        let given = types.into_iter().map(given).collect::<Result<Vec<_>, _>>()?;
        let mut ends_transaction = false;
        let statement = match statements.pop() {
            None => Analyzed { what: What::Nothing, parameters: Vec::new(), columns: None },
            Some(statement) => {
                self.refuse_in_failed_transaction(&statement)?;
                ends_transaction = matches!(statement, super::Statement::Commit | super::Statement::Rollback);
                self.analyze(statement, &text, given, true)?
            }
        };
        if self.sql.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Diagnostic::error(SqlState::DUPLICATE_PREPARED_STATEMENT, message).into());
        }
        if self.sql.statements.len() >= LIMIT || self.held_bytes() + text.len() > BYTES {
            return Err(too_many("prepared statements").into());
        }
        self.sql.statements.insert(name, Arc::new(Prepared { text, statement, ends_transaction }));
        self.send(BackendMessage::ParseComplete).await
    }

    fn held_bytes(&self) -> usize {
        let statements = self.sql.statements.values().map(|prepared| prepared.text.len());
        // A portal may be all that is left of its statement.
        let portals = self.sql.portals.values().map(|portal| portal.size + portal.prepared.text.len());
        statements.chain(portals).sum()
    }

    fn prepared(&self, name: &str) -> Result<&Arc<Prepared>, Diagnostic> {
        self.sql.statements.get(name).ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            Diagnostic::error(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    async fn bind(&mut self, message: Bind) -> Result<(), Stop> {
        let violation = |message: String| Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message);
        let prepared = Arc::clone(self.prepared(&message.statement)?);
        let types = &prepared.statement.parameters;
        let (supplied, formats) = (message.parameters.len(), message.parameter_formats.len());
        if formats > 1 && formats != supplied {
            let text = format!("bind message has {formats} parameter formats but {supplied} parameters");
            return Err(violation(text).into());
        }
        if supplied != types.len() {
            let (name, required) = (&message.statement, types.len());
            let text = format!(
                "bind message supplies {supplied} parameters, but prepared statement \"{name}\" requires {required}"
            );
            return Err(violation(text).into());
        }
        if self.sql.status == TransactionStatus::Failed && !prepared.ends_transaction {
            return Err(failed_transaction().into());
        }
        if !message.portal.is_empty() && self.sql.portals.contains_key(&message.portal) {
            let text = format!("cursor \"{}\" already exists", message.portal);
            return Err(Diagnostic::error(SqlState::DUPLICATE_CURSOR, text).into());
        }
        let mut parameters = Vec::new();
        for (number, (value, ty)) in message.parameters.iter().zip(types).enumerate() {
            let format = match message.parameter_formats.as_slice() {
                [] => 0,
                [all] => *all,
                each => each.get(number).copied().unwrap_or(0),
            };
            parameters.push(match (value, Format::new(format)?) {
                (None, _) => Value::Null,
                (Some(bytes), Format::Binary) => Value::receive(*ty, bytes)?,
                (Some(bytes), Format::Text) => Value::parse(*ty, &String::from_utf8_lossy(bytes))?,
            });
        }
        let columns = prepared.statement.columns.as_ref().map(Vec::len);
        let results = message.result_formats.len();
        if let Some(columns) = columns
            && results > 1
            && results != columns
        {
            let text = format!("bind message has {results} result formats but query has {columns} columns");
            return Err(violation(text).into());
        }
        let formats = message.result_formats.iter().map(|code| Format::new(*code)).collect::<Result<_, _>>()?;
        let size = message.parameters.iter().flatten().map(Bytes::len).sum();
        if self.sql.portals.len() >= LIMIT || self.held_bytes() + size + prepared.text.len() > BYTES {
            return Err(too_many("portals").into());
        }
        self.sql.portals.insert(message.portal, Portal { prepared, parameters, size, formats, rows: None });
        self.send(BackendMessage::BindComplete).await
    }

    async fn describe(&mut self, named: Named) -> Result<(), Stop> {
        let (columns, formats) = match named {
            Named::Statement(name) => {
                let statement = self.prepared(&name)?.statement.clone();
                let types = statement.parameters.iter().map(|ty| ty.oid()).collect();
                self.send(BackendMessage::ParameterDescription(types)).await?;
                (statement.columns, Vec::new())
            }
            Named::Portal(name) => {
                let portal = self.sql.portals.get(&name).ok_or_else(|| no_portal(&name))?;
                (portal.prepared.statement.columns.clone(), portal.formats.clone())
            }
            Named::Unknown(kind) => {
                let message = format!("invalid DESCRIBE message subtype {kind}");
                return Err(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).into());
            }
        };
        match columns {
            Some(columns) => self.send(BackendMessage::RowDescription(described(&columns, &formats))).await,
            None => self.send(BackendMessage::NoData).await,
        }
    }

    async fn execute(&mut self, message: Execute) -> Result<(), Stop> {
        // Taken out while it runs; an error ends it.
        let mut portal = self.sql.portals.remove(&message.portal).ok_or_else(|| no_portal(&message.portal))?;
        if let What::Nothing = portal.prepared.statement.what {
            self.sql.portals.insert(message.portal, portal);
            return self.send(BackendMessage::EmptyQueryResponse).await;
        }
        if self.sql.status == TransactionStatus::Failed && !portal.prepared.ends_transaction {
            return Err(failed_transaction().into());
        }
        let (mut rows, tag) = if let Some(rest) = portal.rows.take() {
            rest
        } else {
            let text = portal.prepared.text.clone();
            self.shared.book().commands.push(text.clone());
            self.at(Moment::Command(&text)).await?;
            let output = self.run_statement(&portal.prepared.statement, &portal.parameters);
            self.say_notices().await?;
            let output = output?;
            (output.rows.into(), output.tag)
        };
        let most = usize::try_from(message.max_rows).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let columns = portal.prepared.statement.columns.clone().unwrap_or_default();
        let mut sent = 0;
        while sent < most
            && let Some(row) = rows.pop_front()
        {
            self.data_row(&row, &columns, &portal.formats).await?;
            sent += 1;
        }
        // A server stops counting before it looks whether there is another row.
        let suspended = sent == most;
        let ended = self.sql.status == TransactionStatus::Idle && portal.prepared.ends_transaction;
        portal.rows = Some((rows, tag));
        if !ended {
            self.sql.portals.insert(message.portal, portal);
        }
        if suspended {
            self.send(BackendMessage::PortalSuspended).await
        } else {
            self.finish_statement(tag, sent).await
        }
    }

    async fn close(&mut self, named: Named) -> Result<(), Stop> {
        match named {
            Named::Statement(name) => drop(self.sql.statements.remove(&name)),
            Named::Portal(name) => drop(self.sql.portals.remove(&name)),
            Named::Unknown(kind) => {
                let message = format!("invalid CLOSE message subtype {kind}");
                return Err(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).into());
            }
        }
        self.send(BackendMessage::CloseComplete).await
    }
}

fn no_portal(name: &str) -> Diagnostic {
    Diagnostic::error(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
