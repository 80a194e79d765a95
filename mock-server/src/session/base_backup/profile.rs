//! File-level incremental backups by LSN, the proof of concept of 2014: which files are left out, and `backup_profile`, which
//! lists those and all others and is sent behind the archives.

use std::collections::BTreeSet;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::profile::{self, PageLsns, ProfileFile, has_page_lsns};
use backstop_protocol::base_backup::relation::{Fork, RelationFile};
use backstop_protocol::lsn::Lsn;
use bytes::Bytes;

use super::data::Flow;
use super::member::{PIECE, unreadable};
use super::{Backup, Session, Stop};
use crate::cluster::{Entry, EntryKind, RunningBackup};
use crate::fault::wire::Truncate;
use crate::fault::{Action, Moment};

/// The relations of one archive that are not logged, by the path of their main fork: those that have an init fork.
pub(super) type Unlogged = BTreeSet<Vec<u8>>;

/// Which relation's init fork the file at `path` is, if it is one.
pub(super) fn unlogged(path: &[u8]) -> Option<Vec<u8>> {
    let init = RelationFile::parse(path).is_some_and(|file| file.fork == Fork::Init);
    Some(path.strip_suffix(b"_init").filter(|_| init)?.to_vec())
}

/// The profile so far. It lists a file in some 60 bytes, and is kept for whoever compares what arrived.
#[derive(Debug)]
pub(super) struct ProfileInProgress {
    text: Vec<u8>,
}

impl ProfileInProgress {
    pub(super) fn new(label_text: &str) -> Self {
        Self { text: profile::header(label_text) }
    }

    /// Adds a file by its path in the manifest, with the LSN for which it was left out.
    pub(super) fn add(&mut self, path: &[u8], size: u64, mtime: u64, left_out: Option<Lsn>) {
        let (tablespace, path) = ProfileFile::place(path);
        let modified = i64::try_from(mtime).unwrap_or(i64::MAX);
        let file = ProfileFile { tablespace, lsn: left_out, sent: left_out.is_none(), modified, size, path };
        file.write(&mut self.text);
    }
}

impl Session {
    /// Makes a backup that has begun one that builds on a backup that started at `since`.
    pub(super) fn build_on_location(since: Lsn, running: &mut RunningBackup) -> Result<(), Stop> {
        if since > running.start {
            let start = running.start;
            let message = format!("start position {since} of the incremental backup is in the future");
            let error = Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message);
            return Err(error.with_detail(format!("This backup starts at {start}.")).into());
        }
        running.build_on_location(since);
        Ok(())
    }

    /// The highest LSN of the file at `path`, if it is left out: all of its pages are older than the start of the backup before.
    pub(super) fn left_out(
        &self,
        backup: &Backup,
        path: &[u8],
        entry: &Entry,
        unlogged: &Unlogged,
    ) -> Result<Option<Lsn>, Stop> {
        let (Some(since), EntryKind::File { size }) = (backup.options.incremental_from, &entry.kind) else {
            return Ok(None);
        };
        let relation = path.split(|byte| *byte == b'.').next().unwrap_or(path);
        // What changes at this moment is not older.
        let changes = self.shared.cluster.change_of(path).is_some();
        if !has_page_lsns(path) || unlogged.contains(relation) || changes {
            return Ok(None);
        }
        let mut lsns = PageLsns::default();
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        while offset < *size {
            let wanted = usize::try_from(*size - offset).unwrap_or(PIECE).min(PIECE);
            let wanted = piece.get_mut(..wanted).unwrap_or_default();
            let read = self.shared.cluster.read(entry, offset, wanted);
            let read = read.map_err(|error| unreadable(&String::from_utf8_lossy(path), &error))?;
            if read == 0 {
                return Ok(None);
            }
            lsns.update(wanted.get(..read).unwrap_or_default());
            offset += read as u64;
        }
        Ok(lsns.highest().filter(|highest| *highest < since))
    }

    /// Sends the profile: until 14 in a COPY of its own, since 15 as an archive of its own. It is compressed nowhere.
    pub(super) async fn send_profile(&mut self, backup: &mut Backup) -> Result<(), Stop> {
        let Some(ProfileInProgress { text }) = backup.profile.take() else { return Ok(()) };
        let name = profile::FILE_NAME;
        let mtime = self.now();
        if let Some(manifest) = &mut backup.manifest {
            let mut hasher = manifest.hasher();
            hasher.update(&text);
            manifest.add(name.as_bytes(), text.len() as u64, mtime, hasher)?;
        }
        self.edit_record(|record| record.profile = Some(text.clone()));
        let who = self.seat.identity();
        let stops = self.shared.plan(|plan| plan.stops_in_archive(name, text.len() as u64, &who));
        backup.flow = Flow { stops, name: name.to_owned(), ..Flow::default() };
        let edits = self.at(Moment::ArchiveBegin(name)).await?;
        for action in &edits.archive {
            match action {
                Action::OmitArchive(_) => return Ok(()),
                Action::Truncate(Truncate { to: Some(to) }) => backup.flow.cut = Some(to.0),
                _ => {}
            }
        }
        let one_copy = self.version.has_archive_stream();
        if let Some(store) = &mut backup.store {
            store.begin_archive(name)?;
        }
        for _ in 0..edits.copies() {
            if one_copy {
                let begin =
                    ArchiveMessage::NewArchive { name: Bytes::from_static(name.as_bytes()), location: Bytes::new() };
                self.archive_message(&begin, &format!("n {name}")).await?;
            } else {
                self.emit(Moment::CopyBegin, vec![BackendMessage::CopyOutResponse]).await?;
            }
        }
        for piece in text.chunks(PIECE) {
            self.data(backup, piece, name).await?;
        }
        self.data(backup, &[], name).await?;
        self.seat.count(|carried| carried.ended(name, backup.flow.offset));
        let edits = self.at(Moment::ArchiveEnd(name)).await?;
        if let Some(store) = &mut backup.store {
            store.end_archive();
        }
        if one_copy {
            return self.progress(backup).await;
        }
        for _ in 0..edits.copies() {
            self.emit(Moment::CopyDone, vec![BackendMessage::CopyDone]).await?;
        }
        Ok(())
    }
}
