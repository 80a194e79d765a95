//! A slot that a failed backup leaves on the server, where it would keep WAL until the disk is full.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backstop_protocol::command::Command;
use tokio::sync::watch;

use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::observer::{Observer, Phase};
use crate::options::BackupOptions;

/// A server that has just failed may not be asked for longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of the permanent slot that a backup creates.
#[derive(Debug)]
pub(crate) struct Creation {
    created: OnceLock<String>,
    /// Whether the server was asked for it and has not answered yet.
    asking: watch::Sender<bool>,
}

impl Creation {
    pub(crate) fn new() -> Self {
        Self { created: OnceLock::new(), asking: watch::Sender::new(false) }
    }

    /// The server is asked for it now.
    pub(crate) fn ask(&self) {
        self.asking.send_replace(true);
    }

    /// The server has created a slot of this name, or refused to.
    pub(crate) fn answer(&self, created: Option<String>) {
        if let Some(name) = created {
            // It is the only one: whoever asks again gets the first answer.
            let _ = self.created.set(name);
        }
        self.asking.send_replace(false);
    }

    /// The slot that is there because of this backup.
    pub(crate) fn created(&self) -> Option<&str> {
        self.created.get().map(String::as_str)
    }

    /// Waits for the answer to a question that is on its way: whoever leaves before it does not know of the slot.
    pub(crate) async fn settled(&self) {
        let mut asking = self.asking.subscribe();
        let _ = tokio::time::timeout(PATIENCE, asking.wait_for(|asking| !asking)).await;
    }
}

/// Drops the permanent slot `name`, which this backup created, or says that it remains.
pub(crate) async fn drop_created(
    connector: &dyn Connector,
    options: &BackupOptions,
    observer: &Arc<dyn Observer>,
    name: &str,
) {
    let patience = options.deadlines.connect.map_or(PATIENCE, |limit| limit.min(PATIENCE));
    let dropped = tokio::time::timeout(patience, drop_slot(connector, options, observer, name)).await;
    let problem = match dropped {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the server does not answer".to_owned()),
    };
    let name = name.to_owned();
    observer.phase(&match problem {
        None => Phase::DroppedSlot { name },
        Some(problem) => Phase::SlotRemains { name, problem },
    });
}

async fn drop_slot(
    connector: &dyn Connector,
    options: &BackupOptions,
    observer: &Arc<dyn Observer>,
    name: &str,
) -> Result<(), ClientError> {
    let (login, limit) = (&options.login, options.deadlines.connect);
    let opening = Connection::open(connector, Purpose::Wal, login, limit, options.weakness, Arc::clone(observer));
    let mut connection = opening.await?;
    // The walsender that used it may not have noticed yet that its client has gone.
    let drop = Command::DropReplicationSlot { slot: name.to_owned(), wait: true };
    connection.command(&drop.to_sql(connection.version())).await?;
    connection.terminate().await;
    Ok(())
}
