//! Creating, dropping and asking the slot.

use std::sync::Arc;

use backstop_protocol::backend::SqlState;
use backstop_protocol::command::{Command, CreateSlot, SlotKind};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use super::receiver::connect;
use super::start::Start;
use super::{ReceiveOptions, WalObserver};
use crate::connection::Connection;
use crate::connector::Connector;
use crate::error::{ClientError, shown};
use crate::session;

/// Creates the slot that `options` name, which keeps nothing before it is used. One that exists is fine if `exists_ok`.
pub async fn create_slot(
    connector: &dyn Connector,
    options: &ReceiveOptions,
    exists_ok: bool,
    observer: Arc<dyn WalObserver>,
) -> Result<(), ClientError> {
    let (mut connection, slot) = open(connector, options, observer).await?;
    let create = CreateSlot { slot: slot.clone(), temporary: false, kind: SlotKind::Physical, options: Vec::new() };
    let command = Command::CreateReplicationSlot(create).to_sql(connection.version());
    match connection.command(&command).await {
        Ok(result) => {
            require(result.rows.len(), result.columns, 4, || format!("could not create replication slot \"{slot}\""))?;
        }
        Err(error) if exists_ok && error.sqlstate() == Some(SqlState::DUPLICATE_OBJECT) => return Ok(()),
        Err(error) => return Err(error),
    }
    connection.terminate().await;
    Ok(())
}

/// Drops the slot that `options` name.
pub async fn drop_slot(
    connector: &dyn Connector,
    options: &ReceiveOptions,
    observer: Arc<dyn WalObserver>,
) -> Result<(), ClientError> {
    let (mut connection, slot) = open(connector, options, observer).await?;
    let command = Command::DropReplicationSlot { slot, wait: false }.to_sql(connection.version());
    connection.command(&command).await?;
    connection.terminate().await;
    Ok(())
}

async fn open(
    connector: &dyn Connector,
    options: &ReceiveOptions,
    observer: Arc<dyn WalObserver>,
) -> Result<(Connection, String), ClientError> {
    let slot = options.slot.clone().ok_or_else(|| ClientError::Refused("no slot is named".to_owned()))?;
    let (mut connection, _) = connect(connector, options, observer).await?;
    let system = session::identify(&mut connection).await?;
    if system.database.is_some() {
        let text = format!("replication connection using slot \"{slot}\" is unexpectedly database specific");
        return Err(ClientError::Incomplete(text));
    }
    Ok((connection, slot))
}

/// Where the slot lets a stream begin: nothing if it has kept nothing yet, or if the server cannot be asked.
pub(super) async fn start_of(connection: &mut Connection, slot: Option<&str>) -> Result<Option<Start>, ClientError> {
    let Some(slot) = slot.filter(|_| connection.version().has_read_replication_slot()) else { return Ok(None) };
    let command = Command::ReadReplicationSlot(slot.to_owned()).to_sql(connection.version());
    let result = connection.command(&command).await?;
    require(result.rows.len(), result.columns, 3, || format!("could not read replication slot \"{slot}\""))?;
    match result.text(0) {
        None => return Err(ClientError::Incomplete(format!("replication slot \"{slot}\" does not exist"))),
        Some("physical") => {}
        Some(kind) => {
            let text = format!("expected a physical replication slot, got type \"{}\" instead", shown(kind.as_bytes()));
            return Err(ClientError::Incomplete(text));
        }
    }
    let Some(text) = result.text(1) else { return Ok(None) };
    let position: Lsn = text.parse().map_err(|_| {
        let text = shown(text.as_bytes());
        ClientError::Incomplete(format!("could not parse restart_lsn \"{text}\" for replication slot \"{slot}\""))
    })?;
    let timeline = result.text(2).and_then(|text| text.parse().ok()).filter(|timeline| *timeline > 0);
    let Some(timeline) = timeline.map(TimelineId) else {
        return Err(connection.unexpected("the timeline of restart_lsn", "something else"));
    };
    Ok(Some(Start { position, timeline }))
}

fn require(rows: usize, columns: usize, expected: usize, doing: impl Fn() -> String) -> Result<(), ClientError> {
    if rows == 1 && columns == expected {
        return Ok(());
    }
    let doing = doing();
    let text = format!("{doing}: got {rows} rows and {columns} fields, expected 1 rows and {expected} fields");
    Err(ClientError::Incomplete(text))
}
