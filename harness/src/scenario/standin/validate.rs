//! Which actions make sense at which points.

use backstop_protocol::wal_file::WalFileName;

use super::{Action, Fault, MemberType, Point};
use backstop_mock::units::Position;

impl Fault {
    /// Refuses what cannot happen, with a text that says why.
    pub fn validate(&self) -> Result<(), String> {
        let (point, action) = (&self.when, &self.r#do);
        self.validate_point()?;
        self.validate_values()?;
        let needs = |what: &str| Err(format!("{} cannot strike at {}: it needs {what}", action.name(), point.name()));
        match action {
            // A session's pace and end, and the server's own affairs: anywhere in a session.
            Action::Close {} | Action::Reset {} => Ok(()),
            Action::Shutdown { .. }
            | Action::Crash { .. }
            | Action::Promote {}
            | Action::RecycleWal { .. }
            | Action::SwitchWal {}
            | Action::DropSlot { .. }
            | Action::StartBackup {}
            | Action::AbortBackup {} => Ok(()),
            Action::Terminate { client: Some(_) } => Ok(()),
            Action::Terminate { client: None } => match point {
                Point::Clock { .. } => needs("a session, or a client of its own"),
                _ => Ok(()),
            },
            Action::Delay { .. } | Action::Stall { .. } | Action::Throttle { .. } | Action::Chop { .. } => {
                match point {
                    Point::Clock { .. } => needs("a session"),
                    _ => Ok(()),
                }
            }
            Action::Error { .. } => match point {
                Point::Clock { .. } => needs("a session"),
                _ => Ok(()),
            },
            Action::Notice { .. } => match point {
                Point::Clock { .. } | Point::Connect { .. } | Point::Startup { .. } => {
                    needs("a session that has begun")
                }
                _ => Ok(()),
            },
            Action::Insert { .. } => match point {
                Point::Clock { .. } => needs("a session"),
                _ => Ok(()),
            },
            Action::Drop {} => match point {
                Point::StatusUpdate { .. } => Ok(()),
                Point::Startup { .. } => needs("a message: startup is followed by several"),
                _ if point.is_header() => needs("a message: use omit-member"),
                _ if point.has_message() => Ok(()),
                _ => needs("a message"),
            },
            Action::Repeat {} => match point {
                Point::Startup { .. } => needs("a message: startup is followed by several"),
                _ if point.has_message() => Ok(()),
                _ => needs("a message"),
            },
            Action::Garble { .. } => match point {
                Point::WalData { .. } => Ok(()),
                _ if point.is_archived_byte() => Ok(()),
                _ => needs("a byte: archive-data, member with at, manifest-data or wal-data"),
            },
            Action::Truncate { to } => match point {
                Point::ArchiveBegin { .. } | Point::ManifestBegin { .. } if to.is_some() => Ok(()),
                Point::ArchiveBegin { .. } | Point::ManifestBegin { .. } => needs("\"to\""),
                _ if (point.is_archived_byte() || point.is_header()) && to.is_none() => Ok(()),
                _ if point.is_archived_byte() || point.is_header() => {
                    needs("no \"to\": the point says where the archive ends")
                }
                _ => needs("an archive or the manifest"),
            },
            Action::RenameMember { .. }
            | Action::RetypeMember { .. }
            | Action::RelinkMember { .. }
            | Action::ResizeHeader { .. }
            | Action::BreakHeader {}
            | Action::OmitMember {} => match point {
                Point::Member { at: None, .. } => Ok(()),
                _ => needs("a member's header: member without at"),
            },
            Action::OmitArchive {} => match point {
                Point::ArchiveBegin { .. } => Ok(()),
                _ => needs("archive-begin"),
            },
            Action::OmitTrailer {} => match point {
                Point::ArchiveBegin { .. } | Point::ArchiveEnd { .. } => Ok(()),
                _ => needs("archive-begin or archive-end"),
            },
            Action::ExtraMember { .. } => match point {
                Point::ArchiveEnd { .. } => Ok(()),
                _ if point.is_header() => Ok(()),
                _ => needs("a place between members: member without at, or archive-end"),
            },
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
            Action::RecycleWal { through } => {
                through.parse::<WalFileName>().map(drop).map_err(|error| error.to_string())
            }
            Action::RenameMember { to } => short("to of rename-member", to, 100),
            Action::RelinkMember { to } => short("to of relink-member", to, 100),
            Action::ExtraMember { name, kind, target, content } => {
                short("name of extra-member", name, 100)?;
                short("target of extra-member", target.as_deref().unwrap_or_default(), 100)?;
                match kind {
                    MemberType::File if target.is_some() => Err("a file has no target".to_owned()),
                    MemberType::File => Ok(()),
                    _ if !content.is_empty() => Err("only a file has content".to_owned()),
                    MemberType::Symlink | MemberType::HardLink if target.is_none() => {
                        Err("a link needs a target".to_owned())
                    }
                    _ => Ok(()),
                }
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
