//! What CopyData means, from what came before it: the release, the command, the answers.
//!
//! Since 15 a backup is one COPY whose messages say what they are; before, each archive and the manifest is a COPY of its own, in the order
//! of the rows of tablespaces. Where the beginning is not known, the first payload shows which it is.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::tar::Trailer;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::{StandbyMessage, WalMessage};
use bytes::Bytes;

use super::content::Archive;

/// The COPY that goes on.
#[derive(Debug, Default)]
enum Copy {
    /// None.
    #[default]
    None,
    /// One from the server, of which nothing has come yet.
    Out,
    /// Archives and a manifest, as since 15.
    Stream(Part),
    /// One archive or manifest, as before 15.
    Single(Part),
    /// A manifest that the client uploads: bytes so far.
    In(u64),
    /// WAL.
    Both,
}

/// What data belongs to.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Nothing,
    Archive(Box<Archive>),
    /// Bytes so far, unless something was left out before them.
    Manifest(Option<u64>),
}

/// What is known of a session so far.
#[derive(Debug, Default)]
pub(super) struct Copying {
    version: Option<ServerVersion>,
    columns: Vec<String>,
    /// The archives that were announced.
    archives: Vec<String>,
    /// How many COPYs came since then.
    copies: usize,
    copy: Copy,
}

impl Copying {
    /// The client says a command: nothing of the one before goes on.
    pub(super) fn command(&mut self) {
        self.archives.clear();
        self.copies = 0;
        self.copy = Copy::None;
    }

    /// Messages that are no data. Remarks about what ends with them.
    pub(super) fn hear(&mut self, message: &BackendMessage) -> Vec<String> {
        match message {
            BackendMessage::ParameterStatus { name, value } if name == "server_version" => {
                self.version = ServerVersion::from_announced(value);
            }
            BackendMessage::RowDescription(columns) => {
                self.columns = columns.iter().map(|column| column.name.clone()).collect();
                if self.lists_tablespaces() {
                    self.archives.clear();
                    self.copies = 0;
                }
            }
            BackendMessage::CopyOutResponse => self.copy = Copy::Out,
            BackendMessage::CopyInResponse => self.copy = Copy::In(0),
            BackendMessage::CopyBothResponse => self.copy = Copy::Both,
            BackendMessage::CopyDone => {
                self.copies += usize::from(matches!(self.copy, Copy::Out | Copy::Single(_)));
                return self.end();
            }
            BackendMessage::ErrorResponse(_) | BackendMessage::ReadyForQuery(_) => self.copy = Copy::None,
            _ => {}
        }
        Vec::new()
    }

    /// A row, its values with the names of their columns.
    pub(super) fn row(&mut self, values: &[Option<Bytes>]) -> String {
        let text = |value: &Option<Bytes>| match value {
            None => "NULL".to_owned(),
            Some(value) => value.escape_ascii().to_string(),
        };
        if self.lists_tablespaces() {
            let oid = values.first().and_then(Option::as_ref);
            self.archives.push(oid.map_or_else(|| "base.tar".to_owned(), |oid| format!("{}.tar", oid.escape_ascii())));
        }
        let named = |(index, value): (usize, &Option<Bytes>)| match self.columns.get(index) {
            Some(name) => format!("{name}={}", text(value)),
            None => text(value),
        };
        values.iter().enumerate().map(named).collect::<Vec<_>>().join(", ")
    }

    /// A payload of the server: what it is, and what is inside.
    pub(super) fn server_data(&mut self, payload: Bytes) -> (String, Vec<String>) {
        if let Copy::Out | Copy::None = self.copy {
            self.copy = self.guess(&payload);
        }
        match &mut self.copy {
            Copy::Both => match WalMessage::decode(payload) {
                Ok(message) => (message.summary(), Vec::new()),
                Err(error) => (error.to_string(), Vec::new()),
            },
            Copy::Single(part) => part.push(&payload),
            Copy::Stream(part) => match ArchiveMessage::decode(payload) {
                Ok(ArchiveMessage::NewArchive { name, location }) => {
                    let mut inside = part.finish();
                    let name = name.escape_ascii().to_string();
                    *part = Part::Archive(Box::new(Archive::new(name.clone(), Trailer::Required)));
                    if !location.is_empty() {
                        inside.push(format!("tablespace at {}", location.escape_ascii()));
                    }
                    (format!("n {name}"), inside)
                }
                Ok(ArchiveMessage::Manifest) => {
                    let inside = part.finish();
                    *part = Part::Manifest(Some(0));
                    ("m backup_manifest".to_owned(), inside)
                }
                Ok(ArchiveMessage::Data(data)) => {
                    let (what, inside) = part.push(&data);
                    (format!("d {what}"), inside)
                }
                Ok(ArchiveMessage::Progress(done)) => (format!("p {done} bytes done"), Vec::new()),
                Err(error) => (error.to_string(), Vec::new()),
            },
            Copy::In(_) | Copy::None | Copy::Out => {
                (format!("{} bytes that nothing announced", payload.len()), Vec::new())
            }
        }
    }

    /// A payload of the client.
    pub(super) fn client_data(&mut self, payload: Bytes) -> String {
        let length = payload.len();
        if let Copy::In(come) = &mut self.copy {
            let begin = *come;
            *come += length as u64;
            return format!("backup_manifest {begin}..{come}");
        }
        StandbyMessage::decode(payload).map_or_else(|_| format!("{length} bytes"), |message| message.summary())
    }

    /// Messages were left out: offsets are unknown from here on.
    pub(super) fn forget(&mut self) {
        if matches!(self.copy, Copy::Out) && self.is_stream() == Some(false) {
            self.copy = Copy::Single(self.next_part());
        }
        if let Copy::Single(part) | Copy::Stream(part) = &mut self.copy {
            match part {
                Part::Archive(archive) => archive.forget(),
                Part::Manifest(come) => *come = None,
                Part::Nothing => {}
            }
        }
    }

    /// Whether the rows that come are the second result set of BASE_BACKUP.
    fn lists_tablespaces(&self) -> bool {
        self.columns.first().is_some_and(|column| column == "spcoid")
    }

    /// Whether a backup is one COPY, if the release is known.
    fn is_stream(&self) -> Option<bool> {
        self.version.map(ServerVersion::has_archive_stream)
    }

    /// What a COPY is whose first payload is this one.
    fn guess(&self, payload: &Bytes) -> Copy {
        let announces = matches!(ArchiveMessage::decode(payload.clone()), Ok(ArchiveMessage::NewArchive { .. }));
        match WalMessage::decode(payload.clone()) {
            // Only where CopyBothResponse was not captured.
            Ok(_) if matches!(self.copy, Copy::None) => Copy::Both,
            _ if self.is_stream().unwrap_or(announces) => Copy::Stream(Part::Nothing),
            _ => Copy::Single(self.next_part()),
        }
    }

    /// What the next COPY of a release before 15 carries.
    fn next_part(&self) -> Part {
        match self.archives.get(self.copies) {
            Some(name) => Part::Archive(Box::new(Archive::new(name.clone(), Trailer::Absent))),
            None if self.archives.is_empty() => {
                let name = format!("archive {}", self.copies + 1);
                Part::Archive(Box::new(Archive::new(name, Trailer::Absent)))
            }
            None => Part::Manifest(Some(0)),
        }
    }

    /// The COPY is over: what is wrong with how its last part ends.
    fn end(&mut self) -> Vec<String> {
        match std::mem::take(&mut self.copy) {
            Copy::Single(mut part) | Copy::Stream(mut part) => part.finish(),
            // WAL goes on in the other direction.
            Copy::Both => {
                self.copy = Copy::Both;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

impl Part {
    fn push(&mut self, data: &Bytes) -> (String, Vec<String>) {
        let length = data.len() as u64;
        match self {
            Self::Archive(archive) => {
                let extent = archive.push(data);
                (extent.what, extent.inside)
            }
            Self::Manifest(Some(come)) => {
                let begin = *come;
                *come += length;
                (format!("backup_manifest {begin}..{come}"), Vec::new())
            }
            Self::Manifest(None) => (format!("backup_manifest, {length} bytes at an unknown offset"), Vec::new()),
            Self::Nothing => (format!("{length} bytes before any archive"), Vec::new()),
        }
    }

    fn finish(&mut self) -> Vec<String> {
        match std::mem::take(self) {
            Self::Archive(archive) => archive.finish().into_iter().collect(),
            Self::Nothing | Self::Manifest(_) => Vec::new(),
        }
    }
}
