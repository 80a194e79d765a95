//! Archives and their members.

use std::pin::pin;
use std::task::{Context, Waker};

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::incremental;
use backstop_protocol::base_backup::tar::{BLOCK, MemberHeader, MemberKind, padded_size, padding};
use bytes::Bytes;

use super::super::canceled;
use super::super::start_replication::wal_error;
use super::checksums::Verifier;
use super::compress::Compressor;
use super::data::{Flow, not_compressed};
use super::manifest::ManifestInProgress;
use super::member::{Content, Member, PIECE, unreadable};
use super::profile::{self, Unlogged};
use super::{Backup, Session, Stop};
use crate::cluster::{BackupEnd, Entry, EntryKind, Tablespace};
use crate::fault::archive::{
    ChangeControl, ExtraMember, RelinkMember, RemodeMember, RenameMember, ResizeHeader, RetypeMember, RewriteMember,
    WriteHeader,
};
use crate::fault::wire::Truncate;
use crate::fault::{Action, Moment, header};

/// The uid and gid of the operating system's user that the server runs as.
const OWNER: u32 = 1001;

/// Two zero blocks.
const TRAILER: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

impl Session {
    /// The archive of a tablespace.
    pub(super) async fn tablespace_archive(
        &mut self,
        backup: &mut Backup,
        tablespace: &Tablespace,
    ) -> Result<(), Stop> {
        let name = format!("{}.tar", tablespace.oid);
        self.begin_archive(backup, &name, &tablespace.location, Some(tablespace.oid)).await?;
        self.entries(backup, Some(tablespace.oid)).await?;
        self.end_archive(backup, &name).await
    }

    /// The archive of the base directory, and the end of the backup, which comes before its WAL and before its manifest.
    pub(super) async fn base_archive(&mut self, backup: &mut Backup) -> Result<BackupEnd, Stop> {
        let name = "base.tar";
        self.begin_archive(backup, name, "", None).await?;
        let now = self.now();
        let label = Member::invented(*b"backup_label", backup.label_text.clone(), now);
        self.member(backup, label).await?;
        if let Some(map) = self.tablespace_map(backup) {
            self.member(backup, Member::invented(*b"tablespace_map", map, now)).await?;
        }
        self.entries(backup, None).await?;
        let control = self.shared.cluster.control_file().map_err(|error| unreadable("global/pg_control", &error))?;
        self.member(backup, Member::invented(*b"global/pg_control", control, self.now())).await?;
        let inside = backup.options.wal;
        if inside {
            let end = self.stop_backup(backup).await?;
            self.wal(backup, end).await?;
            self.end_archive(backup, name).await?;
            return Ok(end);
        }
        self.end_archive(backup, name).await?;
        self.stop_backup(backup).await
    }

    fn tablespace_map(&self, backup: &Backup) -> Option<Vec<u8>> {
        backup.options.tablespace_map.then(|| self.shared.cluster.tablespace_map())
    }

    /// The beginning of an archive: since 15 a message that names it, before a COPY of its own.
    async fn begin_archive(
        &mut self,
        backup: &mut Backup,
        name: &str,
        location: &str,
        oid: Option<u32>,
    ) -> Result<(), Stop> {
        let who = self.seat.identity();
        let sized = self.shared.plan(|plan| plan.needs_size_of(name, &who));
        let size = if sized { self.archive_size(backup, oid)? } else { u64::MAX };
        let stops = self.shared.plan(|plan| plan.stops_in_archive(name, size, &who));
        backup.flow = Flow { stops, ..Flow::default() };
        backup.without_trailer = false;
        let edits = self.at(Moment::ArchiveBegin(name)).await?;
        let mut omitted = false;
        for action in &edits.archive {
            match action {
                Action::Truncate(Truncate { to: Some(to) }) => backup.flow.cut = Some(to.0),
                Action::OmitTrailer(_) => backup.without_trailer = true,
                Action::OmitArchive(_) => omitted = true,
                _ => {}
            }
        }
        backup.omitted = omitted;
        if omitted {
            // Its files are still read, since the manifest names them.
            backup.flow.mute = true;
            return Ok(());
        }
        let compression = &backup.options.compression;
        backup.flow.compressor = Compressor::new(compression).map_err(|error| not_compressed(&error))?;
        backup.flow.name = format!("{name}{}", compression.algorithm.suffix());
        let name = backup.flow.name.clone();
        if let Some(store) = &mut backup.store {
            store.begin_archive(&name)?;
        }
        if self.version.has_archive_stream() {
            let message = ArchiveMessage::NewArchive {
                name: Bytes::copy_from_slice(name.as_bytes()),
                location: Bytes::copy_from_slice(location.as_bytes()),
            };
            for _ in 0..edits.copies() {
                self.holds = edits.swapped;
                let said = self.archive_message(&message, format!("n {name} {location}").trim_end()).await;
                self.holds = false;
                said?;
            }
        } else {
            for _ in 0..edits.copies() {
                self.holds = edits.swapped;
                let said = self.emit(Moment::CopyBegin, vec![BackendMessage::CopyOutResponse]).await;
                self.holds = false;
                said?;
            }
        }
        Ok(())
    }

    /// The end of an archive: since 15 two zero blocks and a progress message, before CopyDone.
    async fn end_archive(&mut self, backup: &mut Backup, name: &str) -> Result<(), Stop> {
        if backup.omitted {
            return Ok(());
        }
        let edits = self.at(Moment::ArchiveEnd(name)).await?;
        let copies = edits.copies();
        let mut trailer = !backup.without_trailer;
        for action in edits.archive {
            match action {
                Action::OmitTrailer(_) => trailer = false,
                extra @ Action::ExtraMember(_) => self.extra_member(backup, extra).await?,
                _ => {}
            }
        }
        if self.version.sends_tar_trailer() && trailer {
            for _ in 0..copies {
                self.data(backup, &TRAILER, "end of archive").await?;
            }
        }
        // Faults at the very end of the archive.
        self.data(backup, &[], "end of archive").await?;
        self.seat.count(|carried| carried.ended(name, backup.flow.offset));
        self.end_compression(backup).await?;
        if let Some(store) = &mut backup.store {
            store.end_archive();
        }
        if self.version.has_archive_stream() {
            self.progress(backup).await?;
        } else {
            for _ in 0..copies {
                self.emit(Moment::CopyDone, vec![BackendMessage::CopyDone]).await?;
            }
        }
        Ok(())
    }

    /// Bytes of an archive without appended WAL: what percentages are of.
    fn archive_size(&self, backup: &Backup, oid: Option<u32>) -> Result<u64, Stop> {
        let header = BLOCK as u64;
        let mut size = 0;
        let below = below(oid);
        let unlogged = self.unlogged(backup, oid)?;
        for entry in self.shared.cluster.entries_at(oid, backup.start).map_err(|error| unreadable(".", &error))? {
            let entry = entry.map_err(|error| unreadable(".", &error))?;
            let path = path(&below, &entry);
            if Self::is_sent(backup, &entry) && self.left_out(backup, &path, &entry, &unlogged)?.is_none() {
                let incremental = backup.incremental.as_ref();
                let changed = incremental.and_then(|incremental| self.incremental_header(incremental, &path, &entry));
                size += header + padded_size(changed.map_or(entry.size(), |changed| changed.file_size()));
            }
        }
        if oid.is_none() {
            size += header + padded_size(backup.label_text.len() as u64);
            size += self.tablespace_map(backup).map_or(0, |map| header + padded_size(map.len() as u64));
            size += header + 8192;
        }
        Ok(size + if self.version.sends_tar_trailer() { TRAILER.len() as u64 } else { 0 })
    }

    /// Links of tablespaces stand either in the archive or in `tablespace_map`; special files nowhere.
    fn is_sent(backup: &Backup, entry: &Entry) -> bool {
        match entry.kind {
            EntryKind::Symlink { .. } => !backup.options.tablespace_map,
            EntryKind::Special => false,
            EntryKind::File { .. } | EntryKind::Directory => true,
        }
    }

    /// The relations that are not logged, where it matters.
    fn unlogged(&self, backup: &Backup, oid: Option<u32>) -> Result<Unlogged, Stop> {
        if backup.options.incremental_from.is_none() {
            return Ok(Unlogged::new());
        }
        let below = below(oid);
        let entries = self.shared.cluster.entries_at(oid, backup.start).map_err(|error| unreadable(".", &error))?;
        let relations = entries.map(|entry| Ok(profile::unlogged(&path(&below, &entry?))));
        let relations: Result<Vec<_>, std::io::Error> = relations.collect();
        Ok(relations.map_err(|error| unreadable(".", &error))?.into_iter().flatten().collect())
    }

    /// Everything that the cluster has in a tablespace or in the base directory.
    async fn entries(&mut self, backup: &mut Backup, oid: Option<u32>) -> Result<(), Stop> {
        let below = below(oid);
        let entries = self.shared.cluster.entries_at(oid, backup.start).map_err(|error| unreadable(".", &error))?;
        let unlogged = self.unlogged(backup, oid)?;
        // A new file is the last of its directory, whenever it came.
        let (cluster, mut added) = (self.shared.cluster.clone(), None);
        let added = std::iter::from_fn(move || {
            added.get_or_insert_with(|| cluster.added_entries(oid).into_iter()).next().map(Ok)
        });
        for entry in entries.chain(added) {
            let entry = entry.map_err(|error| unreadable(".", &error))?;
            let path = path(&below, &entry);
            let Some(entry) = self.found(&path, entry) else { continue };
            if entry.kind == EntryKind::Special {
                let message = format!("skipping special file \"./{}\"", path.escape_ascii());
                let warning = Diagnostic::warning(SqlState::WARNING, message);
                self.send(BackendMessage::NoticeResponse(warning)).await?;
            }
            if !Self::is_sent(backup, &entry) {
                continue;
            }
            let (kind, listed) = match &entry.kind {
                EntryKind::Symlink { target } => (MemberKind::Symlink { target: target.clone() }, false),
                EntryKind::File { .. } => (MemberKind::File, true),
                EntryKind::Directory | EntryKind::Special => (MemberKind::Directory, false),
            };
            if let Some(lsn) = self.left_out(backup, &path, &entry, &unlogged)? {
                if let Some(profile) = &mut backup.profile {
                    profile.add(&path, entry.size(), entry.mtime, Some(lsn));
                }
                continue;
            }
            let incremental = backup.incremental.as_ref();
            if let Some(changed) =
                incremental.and_then(|incremental| self.incremental_header(incremental, &path, &entry))
            {
                self.member(backup, Member::blocks(&path, entry, &changed)).await?;
                continue;
            }
            let member = Member {
                name: entry.name.clone(),
                path,
                kind,
                mode: entry.mode,
                mtime: entry.mtime,
                size: entry.size(),
                content: Content::Entry(entry),
                listed,
            };
            self.member(backup, member).await?;
        }
        Ok(())
    }

    /// The WAL that the backup needs, each segment with its `.done` file, then all history files.
    async fn wal(&mut self, backup: &mut Backup, end: BackupEnd) -> Result<(), Stop> {
        let cluster = self.shared.cluster.clone();
        let directory = self.version.wal_directory();
        let files = cluster.wal_files(backup.start, end.end).map_err(|error| wal_error(&error))?;
        if files.is_empty() {
            let message = "could not find any WAL files";
            return Err(Diagnostic::error(SqlState::INTERNAL_ERROR, message).into());
        }
        for file in files {
            let name = format!("{directory}/{file}").into_bytes();
            let segment = Member {
                path: name.clone(),
                name,
                kind: MemberKind::File,
                mode: 0o600,
                mtime: self.now(),
                size: cluster.segment_size().bytes(),
                content: Content::Wal(file),
                listed: false,
            };
            self.member(backup, segment).await?;
            self.done_file(backup, &file.to_string()).await?;
        }
        for timeline in cluster.history_timelines() {
            let Some(history) = cluster.history(timeline) else { continue };
            let name = timeline.history_file_name();
            let path = format!("{directory}/{name}");
            self.member(backup, Member::invented(path, history.to_string(), self.now())).await?;
            self.done_file(backup, &name).await?;
        }
        Ok(())
    }

    /// Marks a file of WAL as archived, so that the restored server does not archive it again.
    async fn done_file(&mut self, backup: &mut Backup, name: &str) -> Result<(), Stop> {
        let path = format!("{}/archive_status/{name}.done", self.version.wal_directory());
        self.member(backup, Member::invented(path, "", self.now())).await
    }

    /// One member: header, content, padding.
    async fn member(&mut self, backup: &mut Backup, mut member: Member) -> Result<(), Stop> {
        // What PostgreSQL looks at between files.
        if pin!(self.seat.cancel.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return Err(canceled());
        }
        if let Some(running) = &backup.running {
            running.check()?;
        }
        self.seat.count(|carried| carried.members += 1);
        let moment = Moment::Member { name: trimmed(&member.name), path: trimmed(&member.path) };
        let actions = self.shared.ask(moment, &self.seat);
        let edits = self.perform(actions, true, &[]).await?;
        for action in &edits.archive {
            match action {
                Action::RewriteMember(RewriteMember { content }) => member.rewrite(content.clone())?,
                Action::ChangeControl(ChangeControl { system_identifier }) => {
                    member.change_control(*system_identifier)?;
                }
                _ => {}
            }
        }
        let (name, path) = (trimmed(&member.name), trimmed(&member.path));
        let mut header = self.header(&member)?;
        let what = String::from_utf8_lossy(&member.name).into_owned();
        if !edits.inserted.is_empty() {
            self.data_beside(backup, &edits.inserted, &what).await?;
        }
        let (muted, repeats) = (backup.flow.mute, edits.copies().saturating_sub(1));
        let mut omitted = false;
        for action in edits.archive {
            match action {
                Action::RenameMember(RenameMember { to }) => header::rename(&mut header, to.as_bytes()),
                Action::RetypeMember(RetypeMember { to }) => header::retype(&mut header, to),
                Action::RelinkMember(RelinkMember { to }) => header::relink(&mut header, to.as_bytes()),
                Action::ResizeHeader(ResizeHeader { to }) => header::resize(&mut header, to.0),
                Action::RemodeMember(RemodeMember { to }) => header::remode(&mut header, to),
                Action::WriteHeader(WriteHeader { field, hex }) => header::write(&mut header, field, &hex.0),
                Action::BreakHeader(_) => header::break_checksum(&mut header),
                Action::Truncate(_) => backup.flow.cut = Some(backup.flow.offset),
                Action::OmitMember(_) => omitted = true,
                extra @ Action::ExtraMember(_) => self.extra_member(backup, extra).await?,
                _ => {}
            }
        }
        let who = self.seat.identity();
        let start = backup.flow.offset + BLOCK as u64;
        let stops = self.shared.plan(|plan| plan.stops_in_member(name, path, start, member.size, &who));
        backup.flow.stops.extend(stops);
        backup.flow.stops.sort_unstable();
        if omitted {
            backup.flow.mute = true;
        }
        for _ in 0..repeats {
            self.data_beside(backup, &header, &what).await?;
        }
        self.data(backup, &header, &what).await?;
        let sent = self.content(backup, &member, &what).await;
        backup.flow.mute = muted;
        sent
    }

    fn header(&self, member: &Member) -> Result<header::Block, Diagnostic> {
        let header = MemberHeader {
            name: member.name.clone(),
            kind: member.kind.clone(),
            mode: member.mode,
            uid: OWNER,
            gid: OWNER,
            size: member.size,
            mtime: member.mtime,
        };
        let code = SqlState::new(self.version.name_too_long_for_tar_code()).unwrap_or(SqlState::INTERNAL_ERROR);
        header.encode().map_err(|error| Diagnostic::error(code, error.to_string()))
    }

    /// A member's bytes and their padding; its entry in the manifest.
    async fn content(&mut self, backup: &mut Backup, member: &Member, what: &str) -> Result<(), Stop> {
        let mut hasher = backup.manifest.as_ref().filter(|_| member.listed).map(ManifestInProgress::hasher);
        let verified = backup.verifies && member.listed;
        let file = incremental::plain_name(&member.path).unwrap_or_else(|| member.path.clone());
        let doubts = self.shared.cluster.may_have_damaged_pages();
        let mut verifier = verified.then(|| Verifier::new(&file, backup.start, doubts)).flatten();
        let mut buffer = vec![0; PIECE.min(usize::try_from(member.size).unwrap_or(PIECE))];
        // `pg_control` is made for each backup here, and read from disk there.
        let from_disk = !matches!(member.content, Content::Bytes(_)) || member.path == b"global/pg_control";
        let mut offset = 0;
        while offset < member.size {
            let length = usize::try_from(member.size - offset).unwrap_or(PIECE).min(member.content.piece_at(offset));
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.read(&member.content, offset, piece, what)?;
            if let Content::Entry(entry) = &member.content {
                self.read_changed(&member.path, entry, offset, piece);
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(piece);
            }
            let block = member.content.block_at(offset);
            let reports = verifier.as_mut().zip(block).map(|(verifier, block)| verifier.check(block, piece));
            for report in reports.unwrap_or_default() {
                self.send(BackendMessage::NoticeResponse(report)).await?;
            }
            offset += length as u64;
            self.data(backup, piece, what).await?;
            if from_disk && !self.version.has_archive_stream() {
                self.throttle(backup, length).await?;
            }
        }
        if let Some(verifier) = verifier {
            backup.checksum_failures += verifier.failures;
            if let Some(summary) = verifier.finish() {
                self.send(BackendMessage::NoticeResponse(summary)).await?;
            }
        }
        if member.size == 0 && !from_disk && !self.version.has_archive_stream() && !backup.flow.mute {
            // `sendFileWithContent` sent a message whatever the length, until 15.
            self.send_data(self.data_head(), &[], what).await?;
        }
        let padding = padding(member.size);
        if padding > 0 {
            self.data(backup, TRAILER.get(..padding).unwrap_or_default(), what).await?;
        }
        if let Some(profile) = backup.profile.as_mut().filter(|_| member.listed && member.kind == MemberKind::File) {
            profile.add(&member.path, member.size, member.mtime, None);
        }
        if let (Some(manifest), Some(hasher)) = (&mut backup.manifest, hasher) {
            manifest.add(&member.path, member.size, member.mtime, hasher)?;
        }
        Ok(())
    }

    /// A member that a fault adds.
    async fn extra_member(&mut self, backup: &mut Backup, extra: Action) -> Result<(), Stop> {
        let Action::ExtraMember(ExtraMember { name, kind, target, content, size }) = extra else { return Ok(()) };
        let target = target.unwrap_or_default();
        let length = content.len() as u64;
        let announced = size.map_or(length, |size| size.0);
        let mut member = header::invent(name.as_bytes(), kind, target.as_bytes(), announced, self.now()).to_vec();
        member.extend_from_slice(content.as_bytes());
        member.extend_from_slice(TRAILER.get(..padding(length)).unwrap_or_default());
        self.data_beside(backup, &member, &name).await
    }

    /// Bytes of the archive that do not count for the positions of faults.
    async fn data_beside(&mut self, backup: &mut Backup, bytes: &[u8], what: &str) -> Result<(), Stop> {
        for piece in bytes.chunks(self.piece.unwrap_or(PIECE).min(PIECE)) {
            self.piece_of_flow(backup, piece, what).await?;
        }
        Ok(())
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.shared.clock.unix_seconds()).unwrap_or_default()
    }
}

/// What stands before the names of a tablespace's members in the manifest.
fn below(oid: Option<u32>) -> String {
    oid.map(|oid| format!("pg_tblspc/{oid}/")).unwrap_or_default()
}

/// An entry's path in the manifest.
fn path(below: &str, entry: &Entry) -> Vec<u8> {
    let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
    [below.as_bytes(), name].concat()
}

/// A name without the slash of directories and links.
fn trimmed(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"/").unwrap_or(name)
}
