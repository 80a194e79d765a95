//! Which actions make sense at which points.

use backstop_protocol::wal_file::WalFileName;

use super::{Action, Fault, Point};
use crate::units::Position;

impl Fault {
    /// Refuses what cannot happen, with a text that says why.
    pub fn validate(&self) -> Result<(), String> {
        let (point, action) = (&self.when, &self.r#do);
        self.validate_point()?;
        self.validate_values()?;
        let needed = match action {
            // The server's own affairs, and the end of a connection: always.
            Action::Close {}
            | Action::Reset {}
            | Action::Terminate { client: Some(_) }
            | Action::Shutdown { .. }
            | Action::Crash { .. }
            | Action::Promote {}
            | Action::RecycleWal { .. }
            | Action::SwitchWal {}
            | Action::DropSlot { .. }
            | Action::StartBackup { .. }
            | Action::StopBackup { .. }
            | Action::AbortBackup {}
            | Action::StartClient { .. }
            | Action::AddFile { .. }
            | Action::ChangeFile { .. }
            | Action::GrowFile { .. }
            | Action::RemoveFile { .. }
            | Action::ShrinkFile { .. } => None,
            Action::KillClient { client, .. }
            | Action::FillDisk { client, .. }
            | Action::FailFsync { client }
            | Action::ProtectDisk { client } => {
                (client.is_none() && !point.has_session()).then_some("\"client\": no connection comes to this point")
            }
            Action::Delay { .. }
            | Action::Stall { .. }
            | Action::Throttle { .. }
            | Action::Chop { .. }
            | Action::Insert { .. }
            | Action::Error { .. }
            | Action::Terminate { client: None } => (!point.has_session()).then_some("a session of its own"),
            Action::Notice { .. } => {
                let early = matches!(point, Point::Connect { .. } | Point::Startup { .. });
                (early || !point.has_session()).then_some("a session that has begun")
            }
            Action::Drop {} if matches!(point, Point::StatusUpdate { .. }) => None,
            Action::Drop {} if point.is_header() => Some("a message: use omit-member"),
            Action::Drop {} | Action::Repeat {} => (!point.has_message()).then_some("a message of its own"),
            Action::Swap {} => {
                let followed = matches!(
                    point,
                    Point::StartPosition { .. }
                        | Point::TablespaceList { .. }
                        | Point::CopyBegin { .. }
                        | Point::ArchiveBegin { .. }
                        | Point::CopyDone { .. }
                        | Point::EndPosition { .. }
                        | Point::WalBegin { .. }
                        | Point::Message { .. }
                );
                (!followed).then_some("a message that another follows: use message for one with data")
            }
            Action::ChangeRow { .. } => {
                let answered = matches!(point, Point::Command { .. }) || point.columns().is_some();
                (!answered).then_some("a result set: command, start-position, tablespace-list or end-position")
            }
            Action::ChangeParameter { .. } => {
                let before = matches!(point, Point::Connect { .. } | Point::Startup { .. });
                (!before).then_some("connect or startup, before the settings are reported")
            }
            Action::ChangeControl { .. } => {
                let control = matches!(point, Point::Member { path, at: None, .. } if path == "global/pg_control");
                (!control).then_some("the member global/pg_control, without at")
            }
            Action::Garble { .. } => {
                let byte = point.is_archived_byte() || matches!(point, Point::WalData { .. });
                (!byte).then_some("a byte: archive-data, member with at, manifest-data or wal-data")
            }
            Action::Truncate { to } => match (point, to) {
                (Point::ArchiveBegin { .. } | Point::ManifestBegin { .. }, Some(_)) => None,
                (Point::ArchiveBegin { .. } | Point::ManifestBegin { .. }, None) => Some("\"to\""),
                _ if !point.is_archived_byte() && !point.is_header() => Some("an archive or the manifest"),
                (_, None) => None,
                (_, Some(_)) => Some("no \"to\": the point says where the archive ends"),
            },
            Action::RenameMember { .. }
            | Action::RetypeMember { .. }
            | Action::RelinkMember { .. }
            | Action::ResizeHeader { .. }
            | Action::RemodeMember { .. }
            | Action::WriteHeader { .. }
            | Action::RewriteMember { .. }
            | Action::BreakHeader {}
            | Action::OmitMember {} => (!point.is_header()).then_some("a member's header: member without at"),
            Action::OmitArchive {} => {
                let begin = matches!(point, Point::ArchiveBegin { .. } | Point::ManifestBegin { .. });
                (!begin).then_some("archive-begin or manifest-begin")
            }
            Action::OmitTrailer {} => {
                let edge = matches!(point, Point::ArchiveBegin { .. } | Point::ArchiveEnd { .. });
                (!edge).then_some("archive-begin or archive-end")
            }
            Action::ExtraMember { .. } => {
                let between = point.is_header() || matches!(point, Point::ArchiveEnd { .. });
                (!between).then_some("a place between members: member without at, or archive-end")
            }
        };
        match needed {
            None => Ok(()),
            Some(what) => Err(format!("{} cannot strike at {}: it needs {what}", action.name(), point.name())),
        }
    }

    fn validate_point(&self) -> Result<(), String> {
        let point = &self.when;
        if point.nth() == 0 {
            return Err(format!("nth of {} counts from 1", point.name()));
        }
        match point {
            Point::Message { n: 0, .. } => return Err("n of message counts from 1".to_owned()),
            Point::Member { path, .. } if path.is_empty() => return Err("path of member is empty".to_owned()),
            Point::ArchiveData { at: Position::Percent(percent), .. }
            | Point::ManifestData { at: Position::Percent(percent), .. }
            | Point::Member { at: Some(Position::Percent(percent)), .. }
                if *percent > 100 =>
            {
                return Err(format!("{percent}% of {} is beyond its end", point.name()));
            }
            _ => {}
        }
        match (point, point.client()) {
            (Point::ClientEnd { .. }, None) => Err("client-end needs \"client\": whose end".to_owned()),
            (Point::ClientEnd { .. }, Some(client)) if client.starts_with('#') => {
                Err(format!("client {client:?} of client-end is a connection: it needs a client's name"))
            }
            (Point::Connect { .. }, Some(client)) if !client.starts_with('#') => {
                Err(format!("client {client:?} cannot be known at connect: use a connection's number, such as \"#2\""))
            }
            (_, Some(client)) => valid_client(client),
            (_, None) => Ok(()),
        }
    }

    fn validate_values(&self) -> Result<(), String> {
        let short = |what: &str, text: &str, limit: usize| {
            if text.len() > limit {
                return Err(format!("{what} has more than {limit} bytes: it does not fit the tar header"));
            }
            if text.contains('\0') { Err(format!("{what} holds a zero byte")) } else { Ok(()) }
        };
        match &self.r#do {
            Action::Garble { bits } if !(1..=8).contains(bits) => Err("bits of garble must be 1 to 8".to_owned()),
            Action::Chop { into } if into.0 == 0 => Err("into of chop must be at least 1B".to_owned()),
            Action::Throttle { rate } if rate.0 == 0 => Err("rate of throttle must not be 0".to_owned()),
            Action::Insert { hex } if hex.0.is_empty() => Err("hex of insert is empty".to_owned()),
            Action::Terminate { client: Some(client) } => valid_client(client),
            Action::KillClient { client: Some(client), .. }
            | Action::FillDisk { client: Some(client), .. }
            | Action::FailFsync { client: Some(client) }
            | Action::ProtectDisk { client: Some(client) }
                if client.starts_with('#') =>
            {
                Err(format!("client {client:?} is a connection: {} needs a client's name", self.r#do.name()))
            }
            Action::RecycleWal { through } => {
                through.parse::<WalFileName>().map(drop).map_err(|error| error.to_string())
            }
            Action::RenameMember { to } => short("to of rename-member", to, 100),
            Action::RelinkMember { to } => short("to of relink-member", to, 100),
            Action::WriteHeader { field, hex } if hex.0.len() > field.range().len() => {
                Err(format!("hex of write-header has more than the {} bytes of the field", field.range().len()))
            }
            Action::ShrinkFile { to, .. } | Action::GrowFile { to, .. } if to.0 % 8192 != 0 => {
                Err(format!("to of {} must be whole blocks of 8KiB", self.r#do.name()))
            }
            Action::AddFile { path, .. } => {
                let inside = !path.is_empty() && path.split('/').all(|name| !matches!(name, "" | "." | ".."));
                if inside {
                    short("path of add-file", path, 100)
                } else {
                    Err(format!("{path:?} is no path in the data directory"))
                }
            }
            Action::ChangeRow { row: Some(0), .. } => Err("row of change-row counts from 1".to_owned()),
            Action::ChangeRow { column, .. } => match self.when.columns() {
                Some(columns) if !columns.contains(&column.as_str()) => {
                    let (point, columns) = (self.when.name(), columns.join(", "));
                    Err(format!("{point} has no column {column:?}: its columns are {columns}"))
                }
                _ => Ok(()),
            },
            Action::ChangeParameter { name, to } if name.contains('\0') || to.contains('\0') => {
                Err("change-parameter holds a zero byte".to_owned())
            }
            Action::ExtraMember { name, kind, target, content, .. } => {
                short("name of extra-member", name, 100)?;
                short("target of extra-member", target.as_deref().unwrap_or_default(), 100)?;
                let problem = match (kind.is_link(), target) {
                    (true, None) => Some("a link needs a target"),
                    (false, Some(_)) => Some("only a link has a target"),
                    _ => (!kind.has_content() && !content.is_empty()).then_some("only a file has content"),
                };
                problem.map_or(Ok(()), |problem| Err(problem.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// A client is a name, or `#` and a number from 1.
fn valid_client(client: &str) -> Result<(), String> {
    match client.strip_prefix('#') {
        Some(number) if !number.parse::<u32>().is_ok_and(|number| number > 0) => {
            Err(format!("client {client:?} is no connection's number: expected \"#1\" or higher"))
        }
        None if client.is_empty() => Err("client is empty".to_owned()),
        _ => Ok(()),
    }
}
