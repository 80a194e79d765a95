//! What a client asks of every server before it begins.

use backstop_protocol::command::Command;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::WalSegmentSize;

use crate::connection::Connection;
use crate::error::{ClientError, shown};

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) identifier: u64,
    pub(crate) timeline: TimelineId,
    /// How far its WAL is.
    pub(crate) position: Lsn,
    /// The database that the connection belongs to, which one for physical replication does not.
    pub(crate) database: Option<String>,
}

/// IDENTIFY_SYSTEM.
pub(crate) async fn identify(connection: &mut Connection) -> Result<System, ClientError> {
    let version = connection.version();
    let result = connection.command(&Command::IdentifySystem.to_sql(version)).await?;
    let columns = if version.identifies_database() { 4 } else { 3 };
    if result.rows.len() != 1 || result.columns < columns {
        return Err(ClientError::Incomplete(format!(
            "could not identify system: got {} rows and {} fields, expected 1 rows and {columns} or more fields",
            result.rows.len(),
            result.columns
        )));
    }
    let identifier = result.text(0).and_then(|text| text.parse().ok());
    let timeline = result.text(1).and_then(|text| text.parse().ok()).filter(|timeline| *timeline > 0).map(TimelineId);
    let Some(position) = result.text(2).and_then(|text| text.parse().ok()) else {
        let text = shown(result.text(2).unwrap_or_default().as_bytes());
        return Err(ClientError::Incomplete(format!("could not parse write-ahead log location \"{text}\"")));
    };
    let database = result.text(3).map(str::to_owned);
    match (identifier, timeline) {
        (Some(identifier), Some(timeline)) => Ok(System { identifier, timeline, position, database }),
        _ => Err(connection.unexpected("a system identifier and a timeline", "something else")),
    }
}

/// `data_directory_mode`: whether the group may read the data directory.
pub(crate) async fn group_access(connection: &mut Connection) -> Result<bool, ClientError> {
    if !connection.version().has_group_access() {
        return Ok(false);
    }
    let mode = show(connection, "data_directory_mode").await?;
    parse_mode(&mode)
}

/// Whether `data_directory_mode` lets the group read.
pub(crate) fn parse_mode(mode: &str) -> Result<bool, ClientError> {
    let octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(mode, 8) {
        Ok(bits) if octal => Ok(bits & 0o050 == 0o050),
        _ => {
            let text = format!("group access flag could not be parsed: {}", shown(mode.as_bytes()));
            Err(ClientError::Incomplete(text))
        }
    }
}

/// `wal_segment_size`.
pub(crate) async fn segment_size(connection: &mut Connection) -> Result<WalSegmentSize, ClientError> {
    if !connection.version().has_show() {
        return Ok(WalSegmentSize::DEFAULT);
    }
    let text = show(connection, "wal_segment_size").await?;
    parse_segment_size(&text)
}

/// A size as `wal_segment_size` shows it.
pub(crate) fn parse_segment_size(text: &str) -> Result<WalSegmentSize, ClientError> {
    let units = [("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30)];
    let size = units.into_iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?;
        let plain = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| number.parse::<u64>().ok()?.checked_mul(bytes)).flatten()
    });
    size.and_then(WalSegmentSize::new).ok_or_else(|| {
        ClientError::Incomplete(format!("WAL segment size could not be parsed: {}", shown(text.as_bytes())))
    })
}

async fn show(connection: &mut Connection, setting: &str) -> Result<String, ClientError> {
    let version = connection.version();
    let result = connection.command(&Command::Show(setting.to_owned()).to_sql(version)).await?;
    let value = result.text(0).map(str::to_owned);
    value.ok_or_else(|| connection.unexpected("the value of a setting", "none"))
}
