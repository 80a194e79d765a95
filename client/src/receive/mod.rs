//! What BASE_BACKUP answers, of either protocol generation, as one stream of [`Part`]s.
//!
//! Up to 14, there is one COPY for each tablespace and one for the manifest; since 15, one COPY carries tagged messages. Both
//! begin with the start position and the list of tablespaces, and end with the end position, CommandComplete and
//! ReadyForQuery. The order is strict: archives come in the order of the list, each exactly once, and the manifest is last.

mod archive_stream;
mod copies;
mod rows;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::profile;
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;

pub use self::rows::Tablespace;
pub(crate) use self::rows::{Position, read_end, read_start, read_tablespaces};

use self::archive_stream::ArchiveStream;
use self::copies::Copies;
use crate::mutation::Weakness;

/// A piece of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The archive of the tablespace with this index in the list begins.
    ArchiveBegin(usize),
    /// Bytes of that archive.
    Data(Bytes),
    /// It is complete.
    ArchiveEnd,
    /// The manifest begins.
    ManifestBegin,
    /// Bytes of the manifest.
    ManifestData(Bytes),
    /// The server's count of the bytes of all archives so far, if they go elsewhere.
    Progress(u64),
    /// Everything arrived that COPY carries.
    End,
}

/// A message that cannot stand where it stands, in words for [`ClientError::Protocol`](crate::ClientError::Protocol).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected {
    pub(crate) expected: String,
    pub(crate) got: String,
}

impl Unexpected {
    fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }
}

/// Turns messages into parts.
pub(crate) enum Receiver {
    Copies(Copies),
    ArchiveStream(ArchiveStream),
}

impl Receiver {
    /// For a server of `version` that announced `tablespaces`, calls their archives `names`, sends a `profile` behind them, was, or was not, asked for a
    /// manifest, and sends it all `here`, or elsewhere.
    pub(crate) fn new(
        version: ServerVersion,
        tablespaces: &[Tablespace],
        names: &[String],
        profile: bool,
        manifest: bool,
        here: bool,
        weakness: Weakness,
    ) -> Self {
        if version.has_archive_stream() {
            let announced = tablespaces.iter().zip(names);
            let announced = announced.map(|(tablespace, name)| (name.clone(), tablespace.location.clone()));
            let profile = profile.then(|| (profile::FILE_NAME.to_owned(), Vec::new()));
            let announced = announced.chain(profile);
            Self::ArchiveStream(ArchiveStream::new(announced.collect(), manifest, here, weakness))
        } else {
            Self::Copies(Copies::new(tablespaces.len() + usize::from(profile), manifest))
        }
    }

    /// Takes the next message and appends the parts that it completes. After [`Part::End`] no message belongs here.
    pub(crate) fn push(&mut self, message: BackendMessage, out: &mut Vec<Part>) -> Result<(), Unexpected> {
        match self {
            Self::Copies(copies) => copies.push(message, out),
            Self::ArchiveStream(stream) => stream.push(message, out),
        }
    }
}
