//! How much each session was sent: what a sweep needs to know how many points there are.

use backstop_protocol::lsn::Lsn;

/// What a session was sent, counted in every unit in which points are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCounts {
    /// The connection's number, from 1: `#1` as a point's `client`.
    pub session: u32,
    /// From the start-up packet.
    pub application_name: Option<String>,
    /// `backup` or `wal`, by the session's commands.
    pub role: Option<&'static str>,
    /// Messages after the ReadyForQuery that ended the session's start-up.
    pub messages: u64,
    /// Commands that it was sent, statements of SQL among them: each a `command` point.
    pub commands: u64,
    /// What its messages carried.
    pub carried: Carried,
}

/// What the messages of a session carried: members of archives, bytes of archives, of the manifest and of WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Members of all archives, each a `member` point.
    pub members: u64,
    /// The archives that came to their end, by the names that points give them, and their bytes before compression. Of an
    /// archive that was sent in several backups the first stays.
    archives: Vec<(String, u64)>,
    /// Bytes of the first manifest that came to its end.
    pub manifest: Option<u64>,
    /// Where streamed WAL began and ended.
    pub wal: Option<(Lsn, Lsn)>,
    /// The first flush position in a status update that lay beyond what had been sent, and what had been.
    pub overconfirmed: Option<(Lsn, Lsn)>,
}

impl Carried {
    /// Bytes of an archive, if it was sent to its end: `base.tar`.
    pub fn archive(&self, name: &str) -> Option<u64> {
        self.archives.iter().find(|(archive, _)| archive == name).map(|(_, bytes)| *bytes)
    }

    /// An archive has come to its end.
    pub(crate) fn ended(&mut self, name: &str, bytes: u64) {
        if self.archive(name).is_none() {
            self.archives.push((name.to_owned(), bytes));
        }
    }

    /// The manifest has come to its end.
    pub(crate) fn manifest_ended(&mut self, bytes: u64) {
        self.manifest.get_or_insert(bytes);
    }

    /// The client says that it has flushed WAL up to `flush`, of which `sent` was sent.
    pub(crate) fn confirmed(&mut self, flush: Lsn, sent: Lsn) {
        if flush > sent {
            self.overconfirmed.get_or_insert((flush, sent));
        }
    }

    /// WAL was sent.
    pub(crate) fn streamed(&mut self, start: Lsn, end: Lsn) {
        let (first, last) = self.wal.unwrap_or((start, end));
        self.wal = Some((first.min(start), last.max(end)));
    }
}
