//! What every receiver of WAL says and hears, whatever becomes of the WAL.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::command::{Command, StartKind, StartReplication};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::{TimelineHistory, TimelineId};
use backstop_protocol::wal::stream::{PgTimestamp, StandbyMessage, WalMessage};
use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;

use crate::connection::Connection;
use crate::error::{ClientError, shown};

/// Where a timeline went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextTimeline {
    pub(crate) timeline: TimelineId,
    /// Its first own position.
    pub(crate) start: Lsn,
}

/// START_REPLICATION. Nothing is returned once WAL is on its way; the next timeline where this one ends at `position` itself.
pub(crate) async fn start(
    connection: &mut Connection,
    slot: Option<&str>,
    timeline: TimelineId,
    position: Lsn,
) -> Result<Option<NextTimeline>, ClientError> {
    let version = connection.version();
    let command = Command::StartReplication(StartReplication {
        slot: slot.map(str::to_owned),
        kind: StartKind::Physical { timeline: version.has_timeline_history().then_some(timeline) },
        start: position,
    });
    connection.set_doing("could not send replication command \"START_REPLICATION\"");
    connection.query(&command.to_sql(version)).await?;
    match connection.receive().await? {
        BackendMessage::CopyBothResponse => {
            connection.set_doing("could not receive data from WAL stream");
            Ok(None)
        }
        // The timeline ends where we wanted to begin.
        BackendMessage::RowDescription(columns) => {
            next_timeline(connection, timeline, position, columns.len()).await.map(Some)
        }
        other => Err(connection.unexpected("CopyBothResponse", other.name())),
    }
}

/// What a CopyData of the stream says.
pub(crate) fn decode(connection: &Connection, payload: Bytes) -> Result<WalMessage, ClientError> {
    let length = payload.len();
    let kind = payload.first().copied();
    WalMessage::decode(payload).map_err(|_| {
        let got = match kind {
            Some(b'w' | b'k') => format!("streaming header too small: {length}"),
            Some(kind) => format!("unrecognized streaming header: \"{}\"", kind.escape_ascii()),
            None => "an empty message".to_owned(),
        };
        connection.unexpected("a streaming message", got)
    })
}

/// How far a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Received and written up to here.
    pub(crate) write: Lsn,
    /// Safe on disk up to here; [`Lsn::INVALID`] if that is nobody's business.
    pub(crate) flush: Lsn,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) unix_micros: i64,
    /// Whether the server shall answer.
    pub(crate) reply_requested: bool,
}

/// Tells the server how far we are.
pub(crate) async fn send_status(connection: &mut Connection, status: Status) -> Result<(), ClientError> {
    let mut payload = BytesMut::new();
    let message = StandbyMessage::StatusUpdate {
        write: status.write,
        flush: status.flush,
        apply: Lsn::INVALID,
        sent_at: PgTimestamp::from_unix_micros(status.unix_micros),
        reply_requested: status.reply_requested,
    };
    message.encode(&mut payload);
    let mut out = BytesMut::new();
    FrontendMessage::CopyData(payload.freeze()).encode(&mut out);
    connection.send(&out).await
}

/// Ends our side of the stream.
pub(crate) async fn send_copy_done(connection: &mut Connection) -> Result<(), ClientError> {
    let mut out = BytesMut::new();
    frontend::copy_done(&mut out);
    connection.send(&out).await
}

/// The history file of `timeline`: its content.
pub(crate) async fn history(connection: &mut Connection, timeline: TimelineId) -> Result<Bytes, ClientError> {
    let version = connection.version();
    let result = connection.command(&Command::TimelineHistory(timeline.0).to_sql(version)).await?;
    let expected = timeline.history_file_name();
    let (Some(name), Some(Some(content))) = (result.text(0), result.rows.first().and_then(|row| row.get(1))) else {
        return Err(connection.unexpected("a history file", format!("{} fields", result.columns)));
    };
    if name != expected {
        let name = shown(name.as_bytes());
        let text = format!("server reported unexpected history file name for timeline {timeline}: {name}");
        return Err(ClientError::Incomplete(text));
    }
    if let Err(error) = TimelineHistory::parse(&String::from_utf8_lossy(content)) {
        return Err(ClientError::Incomplete(format!("history file \"{expected}\": {error}")));
    }
    Ok(content.clone())
}

/// Reads where the timeline after `timeline` begins, from behind the RowDescription to the end of the command. `position` is what
/// was received.
pub(crate) async fn next_timeline(
    connection: &mut Connection,
    timeline: TimelineId,
    position: Lsn,
    columns: usize,
) -> Result<NextTimeline, ClientError> {
    let row = match connection.receive().await? {
        BackendMessage::DataRow(row) => row,
        other => return Err(connection.unexpected("DataRow", other.name())),
    };
    connection.check_row(&row, columns)?;
    let text = |index: usize| row.get(index)?.as_deref().and_then(|value| str::from_utf8(value).ok());
    let next = text(0).and_then(|timeline| timeline.parse().ok()).map(TimelineId);
    let start = text(1).and_then(|lsn| lsn.parse::<Lsn>().ok());
    let (Some(next), Some(start)) = (next, start) else {
        return Err(connection.unexpected("the next timeline and its start", "something else"));
    };
    if next <= timeline {
        let text = format!("server reported unexpected next timeline {next}, following timeline {timeline}");
        return Err(ClientError::Incomplete(text));
    }
    if start > position {
        return Err(ClientError::Incomplete(format!(
            "server stopped streaming timeline {timeline} at {position}, but reported next timeline {next} to begin at {start}"
        )));
    }
    finish_command(connection).await?;
    Ok(NextTimeline { timeline: next, start })
}

/// The stream ended before it should.
pub(crate) fn terminated() -> ClientError {
    ClientError::Incomplete("replication stream was terminated before stop point".to_owned())
}

/// The first message behind the server's CopyDone that says how it goes on. A status update that was on its way when the server
/// ended its side is answered all the same.
pub(crate) async fn after_copy_done(connection: &mut Connection) -> Result<BackendMessage, ClientError> {
    loop {
        match connection.receive().await? {
            BackendMessage::CopyData(_) => {}
            message => return Ok(message),
        }
    }
}

/// Reads the one or two CommandCompletes and the ReadyForQuery after a stream, behind what was still on its way.
pub(crate) async fn finish_command(connection: &mut Connection) -> Result<(), ClientError> {
    let mut complete = 0;
    loop {
        match connection.receive().await? {
            BackendMessage::CopyData(_) if complete == 0 => {}
            BackendMessage::CommandComplete(_) if complete < 2 => complete += 1,
            BackendMessage::ReadyForQuery(_) if complete > 0 => return Ok(()),
            other => return Err(connection.unexpected("the end of the stream", other.name())),
        }
    }
}
