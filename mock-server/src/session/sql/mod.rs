//! SQL, as far as backups are run with it.
//!
//! A server without tables, planner and executor, for the sessions that backup tools hold beside their walsenders, and for
//! walsenders that are connected to a database. It runs a listed set of statements exactly, and refuses every other:
//!
//! * `SELECT` of literals, parameters, casts and calls of the functions in [`backstop_protocol::catalog`], with one of these
//!   functions or `pg_replication_slots` behind `FROM`, and one comparison behind `WHERE`;
//! * the statements of [`whole`], in which a tool lists the files and tablespaces of a server;
//! * `SHOW`, `SET`, `RESET`, `CHECKPOINT`, `BEGIN`, `COMMIT`, `ROLLBACK` and their other names;
//! * several of them in one Query, and each of them with Parse, Bind, Describe, Execute, Close and Flush.
//!
//! `lexer` and `statement` read, `plan` finds out what is meant, `functions`, `files` and `slots` do it, `record` keeps
//! the server's book of backups, `settings` is about SHOW and
//! SET, `extended` speaks the extended protocol. A new function needs a row in the catalog and an arm in `functions`.

mod extended;
#[cfg(test)]
mod file_tests;
mod files;
mod functions;
mod lexer;
mod plan;
mod record;
mod settings;
mod slots;
mod statement;
#[cfg(test)]
mod tests;
mod value;
mod values;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstop_protocol::backend::{BackendMessage, Column, Diagnostic, SqlState, TransactionStatus};
use backstop_protocol::catalog::SqlType;
use backstop_protocol::command::Command;

use self::extended::{Portal, Prepared};
use self::plan::{Plan, plan};
use self::statement::{Statement, parse};
use self::value::{Format, Value};
use self::whole::Whole;
use super::{Session, Stop};
use crate::cluster::RunningBackup;

/// A text that is none of the statements of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsupported;

/// What such a text hears.
fn unsupported() -> Diagnostic {
    let message = "this server runs a listed set of SQL statements, and this is none of them";
    Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message)
}

fn failed_transaction() -> Diagnostic {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Diagnostic::error(SqlState::IN_FAILED_SQL_TRANSACTION, message)
}

/// What a session keeps from one statement to the next.
#[derive(Debug)]
pub(super) struct Sql {
    /// The byte of ReadyForQuery.
    status: TransactionStatus,
    /// The settings at BEGIN, to which ROLLBACK returns.
    undo: Option<BTreeMap<String, String>>,
    /// The non-exclusive backup of the session.
    backup: Option<RunningBackup>,
    statements: BTreeMap<String, Arc<Prepared>>,
    portals: BTreeMap<String, Portal>,
    /// An error in the extended protocol: everything up to Sync is ignored.
    skips: bool,
    /// Reported settings that have changed and were not reported yet.
    changed: Vec<String>,
    /// Where the session's backup stands in the server's book.
    record: Option<usize>,
    /// The same of one that has ended and whose end was not told yet.
    ended_record: Option<usize>,
    /// What functions have said.
    notices: Vec<Diagnostic>,
    /// The end of a backup waits for archiving; whether the server is in recovery.
    waits_for_archiving: Option<bool>,
}

impl Sql {
    pub(super) fn new() -> Self {
        Self {
            status: TransactionStatus::Idle,
            undo: None,
            backup: None,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            skips: false,
            changed: Vec::new(),
            record: None,
            ended_record: None,
            notices: Vec::new(),
            waits_for_archiving: None,
        }
    }

    /// Where the session stands, for ReadyForQuery.
    pub(super) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether a backup of the session's own runs: BASE_BACKUP is refused then.
    pub(super) fn backup_runs(&self) -> bool {
        self.backup.is_some()
    }

    /// The session ends: its backup is aborted. Says whether one ran.
    pub(super) fn abort_backup(&mut self) -> bool {
        self.backup.take().is_some()
    }

    /// Whether messages of the extended protocol, and queries, are ignored.
    pub(super) fn skips(&self) -> bool {
        self.skips
    }

    /// Sync: the end of a sequence of messages, and of a transaction that was not begun by name.
    pub(super) fn sync(&mut self) {
        self.skips = false;
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
    }
}

/// A statement whose meaning is known.
#[derive(Clone, Debug)]
struct Analyzed {
    what: What,
    /// The types of its parameters.
    parameters: Vec<SqlType>,
    /// None: it returns no rows.
    columns: Option<Vec<(String, SqlType)>>,
}

#[derive(Clone, Debug)]
enum What {
    Nothing,
    Select(Plan),
    Whole(Whole),
    /// SHOW, with the setting's canonical name.
    Show(String),
    Other(Statement),
}

/// What a statement returns.
#[derive(Debug, Default)]
struct Output {
    rows: Vec<Vec<Value>>,
    /// None: that of SELECT, which counts rows.
    tag: Option<&'static str>,
}

/// A RowDescription's columns. `formats` holds none, one for all, or one for each.
fn described(columns: &[(String, SqlType)], formats: &[Format]) -> Vec<Column> {
    let column = |(number, (name, ty)): (usize, &(String, SqlType))| Column {
        name: name.clone(),
        type_oid: ty.oid(),
        type_len: ty.length(),
        type_modifier: -1,
        format: i16::from(format_of(formats, number) == Format::Binary),
    };
    columns.iter().enumerate().map(column).collect()
}

fn format_of(formats: &[Format], number: usize) -> Format {
    match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(number).copied().unwrap_or(Format::Text),
    }
}

impl Session {
    /// Runs the statements of a Query.
    pub(super) async fn sql(&mut self, text: &str) -> Result<(), Stop> {
        self.sql.statements.remove("");
        self.sql.portals.remove("");
        let failed = self.sql.status == TransactionStatus::Failed;
        let statements =
            parse(text).map_err(|Unsupported| if failed { failed_transaction() } else { unsupported() })?;
        if statements.is_empty() {
            return self.send(BackendMessage::EmptyQueryResponse).await;
        }
        for statement in statements {
            self.refuse_in_failed_transaction(&statement)?;
            let analyzed = self.analyze(statement, text, Vec::new(), false)?;
            if let Some(columns) = &analyzed.columns {
                self.send(BackendMessage::RowDescription(described(columns, &[]))).await?;
            }
            let output = self.run_statement(&analyzed, &[]);
            self.say_notices().await?;
            let output = output?;
            let columns = analyzed.columns.unwrap_or_default();
            for row in &output.rows {
                self.data_row(row, &columns, &[]).await?;
            }
            self.finish_statement(output.tag, output.rows.len()).await?;
        }
        Ok(())
    }

    /// An ERROR: a transaction fails, and what it has set is undone at once.
    pub(super) fn fail_transaction(&mut self) {
        if self.sql.status == TransactionStatus::InTransaction {
            self.sql.status = TransactionStatus::Failed;
            if let Some(before) = self.sql.undo.take() {
                self.restore_settings(before);
            }
        }
    }

    fn refuse_in_failed_transaction(&self, statement: &Statement) -> Result<(), Diagnostic> {
        let ends = matches!(statement, Statement::Commit | Statement::Rollback);
        if self.sql.status == TransactionStatus::Failed && !ends { Err(failed_transaction()) } else { Ok(()) }
    }

    /// Finds out what a statement means. `given` are the types that Parse gave to parameters; without `prepares` there are
    /// no parameters.
    fn analyze(
        &self,
        statement: Statement,
        text: &str,
        given: Vec<Option<SqlType>>,
        prepares: bool,
    ) -> Result<Analyzed, Diagnostic> {
        let mut parameters = given;
        let (what, columns) = match statement {
            Statement::Select(select) => {
                let plan = plan(&select, text, self.version, &mut parameters, prepares)?;
                let columns = plan.columns.clone();
                (What::Select(plan), Some(columns))
            }
            Statement::Show(name) => {
                let (name, _) = self.setting(&name).ok_or_else(|| settings::unknown(&name))?;
                (What::Show(name.clone()), Some(vec![(name, SqlType::Text)]))
            }
            Statement::Whole(whole) => {
                let columns = whole.columns(self.version)?;
                parameters = whole.parameters().iter().copied().map(Some).collect();
                (What::Whole(whole), Some(columns))
            }
            other => (What::Other(other), None),
        };
        let parameters = parameters.into_iter().map(|ty| ty.unwrap_or(SqlType::Text)).collect();
        Ok(Analyzed { what, parameters, columns })
    }

    /// Runs a statement. What it has to say beside its rows waits to be [said](Self::say_notices).
    fn run_statement(&mut self, statement: &Analyzed, parameters: &[Value]) -> Result<Output, Diagnostic> {
        match &statement.what {
            What::Nothing => Ok(Output::default()),
            What::Select(plan) => Ok(Output { rows: self.select(plan, parameters)?, tag: None }),
            What::Whole(whole) => Ok(Output { rows: self.run_whole(*whole, parameters)?, tag: None }),
            What::Show(name) => {
                let (_, value) = self.setting(name).ok_or_else(|| settings::unknown(name))?;
                Ok(Output { rows: vec![vec![Value::Text(value)]], tag: Some("SHOW") })
            }
            What::Other(statement) => {
                self.command_of_sql(statement).map(|tag| Output { rows: Vec::new(), tag: Some(tag) })
            }
        }
    }

    fn command_of_sql(&mut self, statement: &Statement) -> Result<&'static str, Diagnostic> {
        let warn = |sql: &mut Sql, code, message: &str| sql.notices.push(Diagnostic::warning(code, message));
        match statement {
            Statement::Set(name, value) => {
                self.set(name, value.as_deref())?;
                Ok("SET")
            }
            Statement::Reset(name) => {
                self.set(name, None)?;
                Ok("RESET")
            }
            Statement::Checkpoint => {
                self.shared.cluster.checkpoint();
                Ok("CHECKPOINT")
            }
            Statement::Begin(tag) => {
                if self.sql.status == TransactionStatus::Idle {
                    self.sql.status = TransactionStatus::InTransaction;
                    self.sql.undo = Some(self.settings.clone());
                } else {
                    let message = "there is already a transaction in progress";
                    warn(&mut self.sql, SqlState::ACTIVE_SQL_TRANSACTION, message);
                }
                Ok(tag)
            }
            Statement::Commit | Statement::Rollback => {
                let commits = *statement == Statement::Commit && self.sql.status != TransactionStatus::Failed;
                if self.sql.status == TransactionStatus::Idle {
                    let message = "there is no transaction in progress";
                    warn(&mut self.sql, SqlState::NO_ACTIVE_SQL_TRANSACTION, message);
                }
                self.sql.status = TransactionStatus::Idle;
                self.sql.portals.clear();
                if let Some(before) = self.sql.undo.take().filter(|_| !commits) {
                    self.restore_settings(before);
                }
                Ok(if commits { "COMMIT" } else { "ROLLBACK" })
            }
            // They are queries.
            Statement::Select(_) | Statement::Whole(_) | Statement::Show(_) => Err(unsupported()),
        }
    }

    /// Says what functions had to say, and waits for what they wait for.
    async fn say_notices(&mut self) -> Result<(), Stop> {
        for notice in std::mem::take(&mut self.sql.notices) {
            self.send(BackendMessage::NoticeResponse(notice)).await?;
        }
        match self.sql.waits_for_archiving.take() {
            Some(in_recovery) => self.wait_for_archiving(in_recovery).await,
            None => Ok(()),
        }
    }

    async fn data_row(&mut self, row: &[Value], columns: &[(String, SqlType)], formats: &[Format]) -> Result<(), Stop> {
        let values = row.iter().zip(columns).enumerate();
        let values = values.map(|(number, (value, (_, ty)))| value.encode(*ty, format_of(formats, number)));
        self.send(BackendMessage::DataRow(values.collect())).await
    }

    /// CommandComplete, and what older releases report right there.
    async fn finish_statement(&mut self, tag: Option<&'static str>, rows: usize) -> Result<(), Stop> {
        if !self.version.reports_settings_when_ready() {
            self.report_settings().await?;
        }
        match tag {
            Some(tag) => self.complete(tag).await,
            None => self.complete(&format!("SELECT {rows}")).await,
        }?;
        self.confirm_sql_record();
        Ok(())
    }
}

impl Session {
    /// What a transaction keeps a walsender from (since 10, with SQL): nothing runs in a failed one, and some commands not
    /// inside a block (`PreventInTransactionBlock`).
    pub(super) fn refuse_in_transaction(&self, command: &Command) -> Result<(), Diagnostic> {
        let alone = matches!(
            command,
            Command::BaseBackup(_)
                | Command::StartReplication(_)
                | Command::TimelineHistory(_)
                | Command::UploadManifest
        );
        match self.sql.status {
            TransactionStatus::Failed => Err(failed_transaction()),
            TransactionStatus::InTransaction if alone => {
                let message = format!("{} cannot run inside a transaction block", command.name());
                Err(Diagnostic::error(SqlState::ACTIVE_SQL_TRANSACTION, message))
            }
            _ => Ok(()),
        }
    }
}
