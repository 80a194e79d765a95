//! The result sets around the archives: start position, tablespaces, end position.

use std::collections::BTreeSet;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;

use crate::connection::Connection;
use crate::error::{ClientError, shown};
use crate::mutation::Mutation;

/// More tablespaces than a server can have any use for.
const MAX_TABLESPACES: usize = 100_000;
/// `MAXPGPATH`.
const MAX_LOCATION: usize = 1024;

/// Where a backup starts or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// In the WAL.
    pub(crate) lsn: Lsn,
    /// On this timeline.
    pub(crate) timeline: TimelineId,
}

/// One row of the tablespace list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// None for the base directory.
    pub oid: Option<u32>,
    /// Where it is on the server: absolute, `pg_tblspc/<oid>` for one inside the data directory, empty for the base directory.
    /// Untrusted.
    pub location: Vec<u8>,
    /// The server's estimate in kB.
    pub size: Option<u64>,
}

impl Tablespace {
    /// `base.tar`, `16391.tar`.
    pub fn archive_name(&self) -> String {
        self.oid.map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar"))
    }

    /// Whether it is a directory inside the data directory (`allow_in_place_tablespaces`) instead of a link.
    pub fn in_place(&self) -> bool {
        self.oid.is_some() && !self.location.starts_with(b"/")
    }
}

/// Reads a result set up to its CommandComplete. `None` if something else than a RowDescription comes first, which is returned.
async fn read_rows(
    connection: &mut Connection,
    columns: std::ops::RangeInclusive<usize>,
    limit: usize,
) -> Result<Vec<Vec<Option<Bytes>>>, ClientError> {
    let described = match connection.receive().await? {
        BackendMessage::RowDescription(described) => described.len(),
        other => return Err(connection.unexpected("RowDescription", other.name())),
    };
    if !columns.contains(&described) && !connection.weak(Mutation::IgnoresRowDescription) {
        return Err(connection.unexpected(format!("{} fields", columns.end()), format!("{described} fields")));
    }
    let mut rows = Vec::new();
    loop {
        match connection.receive().await? {
            BackendMessage::DataRow(row) => {
                connection.check_row(&row, described)?;
                if rows.len() == limit {
                    return Err(connection.unexpected(format!("at most {limit} rows"), "more"));
                }
                rows.push(row);
            }
            BackendMessage::CommandComplete(_) => return Ok(rows),
            other => return Err(connection.unexpected("DataRow or CommandComplete", other.name())),
        }
    }
}

fn text(value: Option<&Option<Bytes>>) -> Option<&str> {
    value?.as_deref().and_then(|value| str::from_utf8(value).ok())
}

/// `recptr` and, since 9.3, `tli`.
async fn read_position(
    connection: &mut Connection,
    what: &'static str,
    version: ServerVersion,
    missing: &'static str,
) -> Result<Position, ClientError> {
    let columns = if version.has_timeline_history() { 2..=2 } else { 1..=2 };
    let rows = read_rows(connection, columns, 1).await?;
    let row = rows.first().ok_or_else(|| ClientError::Incomplete(missing.to_owned()))?;
    let invalid = |connection: &Connection| {
        let values: Vec<String> = row.iter().map(|value| shown(value.as_deref().unwrap_or(b"NULL"))).collect();
        connection.unexpected(what, values.join(", "))
    };
    let lsn = text(row.first()).and_then(|lsn| lsn.parse::<Lsn>().ok());
    let timeline = if row.len() == 1 { Some(1) } else { text(row.get(1)).and_then(|tli| tli.parse::<u32>().ok()) };
    match (lsn, timeline) {
        (Some(lsn), Some(timeline)) if !lsn.is_invalid() && timeline > 0 => {
            Ok(Position { lsn, timeline: TimelineId(timeline) })
        }
        _ => Err(invalid(connection)),
    }
}

/// Reads the start position.
pub(crate) async fn read_start(connection: &mut Connection, version: ServerVersion) -> Result<Position, ClientError> {
    read_position(connection, "a start position", version, "no start point returned from server").await
}

/// Reads the list of tablespaces.
pub(crate) async fn read_tablespaces(connection: &mut Connection) -> Result<Vec<Tablespace>, ClientError> {
    let rows = read_rows(connection, 3..=3, MAX_TABLESPACES).await?;
    if rows.is_empty() {
        return Err(ClientError::Incomplete("no data returned from server".to_owned()));
    }
    if connection.weak(Mutation::IgnoresRowDescription) {
        // As C does it: the third column of every row, there or not.
        assert!(rows.iter().all(|row| row.len() > 2), "column number 2 is out of range");
    }
    let tablespaces = rows.iter().map(|row| tablespace(row));
    let tablespaces: Option<Vec<Tablespace>> = tablespaces.collect();
    let tablespaces = tablespaces.ok_or_else(|| connection.unexpected("a list of tablespaces", "an invalid row"))?;
    let oids: BTreeSet<Option<u32>> = tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if oids.len() != tablespaces.len() {
        return Err(connection.unexpected("each tablespace once", "one of them twice"));
    }
    if tablespaces.last().is_none_or(|last| last.oid.is_some()) {
        return Err(
            connection.unexpected("the base directory at the end of the list of tablespaces", "a list without it")
        );
    }
    Ok(tablespaces)
}

fn tablespace(row: &[Option<Bytes>]) -> Option<Tablespace> {
    let [oid, location, size] = row else { return None };
    let size = match size {
        None => None,
        // An estimate below zero is no estimate.
        size => u64::try_from(text(Some(size))?.parse::<i64>().ok()?).ok(),
    };
    match (oid, location) {
        (None, None) => Some(Tablespace { oid: None, location: Vec::new(), size }),
        (oid @ Some(_), Some(location)) => {
            let oid: u32 = text(Some(oid))?.parse().ok().filter(|oid| *oid > 0)?;
            let in_place = location.as_ref() == format!("pg_tblspc/{oid}").as_bytes();
            let absolute = location.starts_with(b"/") && !location.contains(&0);
            let valid = (in_place || absolute) && location.len() < MAX_LOCATION;
            valid.then(|| Tablespace { oid: Some(oid), location: location.to_vec(), size })
        }
        _ => None,
    }
}

/// Reads what follows the archives: the end position, CommandComplete and ReadyForQuery.
pub(crate) async fn read_end(
    connection: &mut Connection,
    version: ServerVersion,
    start: Position,
    announce: impl FnOnce(Position),
) -> Result<Position, ClientError> {
    if connection.weak(Mutation::StopsAfterArchives) {
        announce(start);
        return Ok(start);
    }
    connection.set_doing("backup failed");
    let missing = "no write-ahead log end position returned from server";
    let end = read_position(connection, "an end position", version, missing).await?;
    let before = end.lsn < start.lsn || end.timeline < start.timeline;
    if before && !connection.weak(Mutation::TakesAnyEndPosition) {
        let got = format!("{} on timeline {}", end.lsn, end.timeline);
        let expected = format!("an end position behind {} on timeline {}", start.lsn, start.timeline);
        return Err(connection.unexpected(expected, got));
    }
    announce(end);
    if connection.weak(Mutation::StopsAtEndPosition) {
        return Ok(end);
    }
    connection.set_doing("final receive failed");
    match connection.receive().await {
        Ok(BackendMessage::CommandComplete(_)) => {}
        Err(ClientError::Closed { .. }) if connection.weak(Mutation::TakesEofForTheEnd) => return Ok(end),
        other => return Err(connection.unexpected("CommandComplete", other?.name())),
    }
    match connection.receive().await {
        Ok(BackendMessage::ReadyForQuery(_)) => Ok(end),
        Err(ClientError::Closed { .. }) if connection.weak(Mutation::TakesEofForTheEnd) => Ok(end),
        other => Err(connection.unexpected("ReadyForQuery", other?.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        oid: Option<&'static str>,
        location: Option<&'static str>,
        size: Option<&'static str>,
    ) -> Vec<Option<Bytes>> {
        [oid, location, size].map(|value| value.map(Bytes::from_static_str)).to_vec()
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Self;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn oids_are_unsigned_and_sizes_large() {
        let read = tablespace(&row(Some("4294967295"), Some("/x"), Some("1099511627776"))).expect("a tablespace");
        assert_eq!((read.oid, read.size), (Some(u32::MAX), Some(1 << 40)));
        assert_eq!(tablespace(&row(None, None, Some("-5"))).and_then(|base| base.size), None);
    }

    #[test]
    fn strange_rows_are_refused() {
        for (oid, location) in
            [("0", "/x"), ("-1", "/x"), ("x", "/x"), ("5", "x"), ("5", "pg_tblspc/6"), ("5", "../x"), ("5", "")]
        {
            assert_eq!(tablespace(&row(Some(oid), Some(location), None)), None, "{oid} {location}");
        }
        assert_eq!(tablespace(&row(Some("5"), None, None)), None);
        assert_eq!(tablespace(&row(None, Some("/x"), None)), None);
        assert!(tablespace(&row(Some("5"), Some("pg_tblspc/5"), None)).expect("in place").in_place());
    }
}
