//! SQL on a session of its own, with the rows that it gives: what whoever runs a server has to ask it.

use std::sync::Arc;

use backstop_protocol::backend::BackendMessage;
use bytes::Bytes;

use crate::commands::goes_on;
use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::login::Login;
use crate::mutation::Weakness;
use crate::observer::Silent;

/// A session that runs SQL and gives the rows.
pub struct SqlSession {
    connection: Connection,
}

/// The rows of a result: texts, none for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// No answer that is read here has more rows.
const MOST_ROWS: usize = 100_000;

impl SqlSession {
    /// Logs in.
    ///
    /// # Errors
    /// Without a session.
    pub async fn open(connector: &dyn Connector, login: &Login) -> Result<Self, ClientError> {
        let observer = Arc::new(Silent);
        let opened = Connection::open(connector, Purpose::Backup, login, None, Weakness::NONE, observer).await;
        Ok(Self { connection: opened? })
    }

    /// What a setting was when the session began, if the server reports it: `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.parameter(name)
    }

    /// Runs `sql` and returns the rows of all its results.
    ///
    /// # Errors
    /// What the server says against it; the session goes on after an ERROR.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, ClientError> {
        self.connection.set_doing(format!("could not run \"{sql}\""));
        self.connection.query(sql).await?;
        let (mut rows, mut refused) = (Rows::new(), None);
        loop {
            match self.connection.receive().await {
                Err(ClientError::Server { diagnostic, doing }) if refused.is_none() && goes_on(&diagnostic) => {
                    refused = Some(ClientError::Server { diagnostic, doing });
                }
                Err(error) => return Err(error),
                Ok(BackendMessage::DataRow(values)) if rows.len() < MOST_ROWS => {
                    let text = |value: Option<Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
                    rows.push(values.into_iter().map(text).collect());
                }
                Ok(
                    BackendMessage::RowDescription(_)
                    | BackendMessage::CommandComplete(_)
                    | BackendMessage::EmptyQueryResponse,
                ) => {}
                Ok(BackendMessage::ReadyForQuery(_)) => return refused.map_or(Ok(rows), Err),
                Ok(other) => return Err(self.connection.unexpected("the answer to a query", other.name())),
            }
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.terminate().await;
    }
}

impl std::fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlSession").finish_non_exhaustive()
    }
}
