//! Replication commands as they are given: what `psql "replication=1" -c …` does, without looking at the answers' contents.

use std::sync::Arc;

use backstop_protocol::backend::{BackendMessage, Diagnostic, Severity};
use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::login::Login;
use crate::mutation::Weakness;
use crate::observer::Observer;

/// How the server answered one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With these command tags, and so many rows and bytes of CopyData.
    Completed {
        /// `IDENTIFY_SYSTEM`, `SELECT`.
        tags: Vec<String>,
        /// Rows of all its results.
        rows: u64,
        /// Bytes in CopyData messages.
        copied: u64,
    },
    /// With an error, after which the session went on.
    Refused(Box<Diagnostic>),
}

/// Sends `commands` one after another on one connection and returns how each was answered. A refused one does not keep the next from
/// being sent. Streams are ended as soon as the server begins them.
///
/// # Errors
/// Without a session, or when it ends before its time.
pub async fn run_commands(
    connector: &dyn Connector,
    login: &Login,
    commands: &[String],
    observer: Arc<dyn Observer>,
) -> Result<Vec<Answer>, ClientError> {
    let mut connection = Connection::open(connector, Purpose::Backup, login, None, Weakness::NONE, observer).await?;
    let mut answers = Vec::with_capacity(commands.len());
    for command in commands {
        connection.set_doing(format!("could not send replication command \"{command}\""));
        connection.query(command).await?;
        answers.push(answer(&mut connection).await?);
    }
    connection.terminate().await;
    Ok(answers)
}

/// Everything up to ReadyForQuery.
async fn answer(connection: &mut Connection) -> Result<Answer, ClientError> {
    let (mut tags, mut rows, mut copied) = (Vec::new(), 0, 0);
    let mut refused = None;
    loop {
        let message = match connection.receive().await {
            Ok(message) => message,
            Err(ClientError::Server { diagnostic, .. }) if refused.is_none() && goes_on(&diagnostic) => {
                refused = Some(diagnostic);
                continue;
            }
            Err(error) => return Err(error),
        };
        match message {
            BackendMessage::CommandComplete(tag) => tags.push(tag),
            BackendMessage::DataRow(_) => rows += 1,
            BackendMessage::CopyData(data) => copied += data.len() as u64,
            BackendMessage::CopyInResponse | BackendMessage::CopyBothResponse => {
                let mut out = BytesMut::new();
                frontend::copy_done(&mut out);
                connection.send(&out).await?;
            }
            BackendMessage::RowDescription(_)
            | BackendMessage::EmptyQueryResponse
            | BackendMessage::CopyOutResponse
            | BackendMessage::CopyDone => {}
            BackendMessage::ReadyForQuery(_) => {
                return Ok(match refused {
                    Some(diagnostic) => Answer::Refused(diagnostic),
                    None => Answer::Completed { tags, rows, copied },
                });
            }
            other => return Err(connection.unexpected("the answer to a command", other.name())),
        }
    }
}

/// Whether the session outlives this error.
pub(crate) fn goes_on(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == Severity::Error
}
