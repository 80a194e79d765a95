//! Archives and the manifest of a backup: where they begin and end, and their members.
//!
//! Since 15 there is one COPY, whose messages say which archive they belong to; before, one COPY for each archive, in the order of
//! the list of tablespaces, and one for the manifest.

use std::collections::VecDeque;

use backstop_protocol::base_backup::tar::{BLOCK, MemberHeader, padding};
use bytes::Bytes;

use super::perform::Edits;
use super::tar_cursor::{Found, TarCursor};
use super::{Downward, Fate, Run};
use crate::fault::archive::{
    ExtraMember, RelinkMember, RemodeMember, RenameMember, ResizeHeader, RetypeMember, WriteHeader,
};
use crate::fault::wire::Truncate;
use crate::fault::{Action, Moment, Stop as FaultStop, header};
use crate::proxy::session::{Asked, Stop};

/// A manifest that is larger than this is not kept back to learn its size.
const MAX_HOARD: usize = 64 << 20;

/// How far BASE_BACKUP's answer has come.
#[derive(Debug, Default)]
pub(super) struct Backup {
    pub(super) result_sets: u32,
    /// Archives of the list that have not begun, the base directory as none, and the size that was announced, in bytes.
    listed: VecDeque<(Option<String>, Option<u64>)>,
    pub(super) flow: Flow,
}

/// What is being sent: one archive, or the manifest.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) what: Carries,
    /// Bytes of it that came so far, sent on or not.
    pub(super) offset: u64,
    pub(super) cursor: Option<TarCursor>,
    /// Where faults may strike, ascending.
    pub(super) stops: Vec<FaultStop>,
    /// A fault ends it here.
    pub(super) cut: Option<u64>,
    /// A fault leaves out what comes before this.
    pub(super) muted: u64,
    /// A fault leaves out the whole, messages and all.
    pub(super) omitted: bool,
    without_trailer: bool,
    /// Its end was announced to the plan.
    ended: bool,
    /// Kept back until the size is known.
    pub(super) hoard: Option<Vec<Bytes>>,
    hoarded: usize,
    /// The member that comes, for the transcript.
    pub(super) member: String,
}

/// Which of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Carries {
    #[default]
    Nothing,
    /// Without a suffix of compression: `base.tar`.
    Archive(String),
    Manifest,
}

impl Backup {
    /// A row of one of BASE_BACKUP's result sets.
    pub(super) fn row(&mut self, values: &[Option<Bytes>]) {
        if self.result_sets != 2 || self.listed.len() >= 100_000 {
            return;
        }
        let text = |index: usize| -> Option<&str> { str::from_utf8(values.get(index)?.as_deref()?).ok() };
        let size = text(2).and_then(|size| size.parse::<u64>().ok()).map(|kib| kib.saturating_mul(1024));
        self.listed.push_back((text(0).map(str::to_owned), size));
    }

    /// The next archive of the list, before 15.
    fn next_archive(&mut self) -> Option<String> {
        let (oid, _) = self.listed.front()?;
        Some(oid.as_ref().map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar")))
    }

    /// Takes an archive off the list: its announced size.
    fn size_of(&mut self, name: &str) -> Option<u64> {
        let oid = name.strip_suffix(".tar").filter(|oid| *oid != "base");
        let index = self.listed.iter().position(|(listed, _)| listed.as_deref() == oid)?;
        self.listed.remove(index)?.1
    }
}

impl Flow {
    /// Whether bytes at the present offset go on.
    pub(super) fn is_open(&self) -> bool {
        !self.omitted && self.offset >= self.muted && self.cut.is_none_or(|cut| self.offset < cut)
    }
}

impl Downward {
    /// CopyOutResponse.
    pub(super) async fn copy_begins(&mut self, run: &mut Run<'_>) -> Result<Edits, Stop> {
        let edits = if self.version().has_archive_stream() {
            Edits::default()
        } else {
            match self.backup.next_archive() {
                Some(name) => self.archive_begins(&name, run).await?,
                None => self.manifest_begins(run).await?,
            }
        };
        Ok(edits.and(self.at_in(Moment::CopyBegin, run).await?))
    }

    /// CopyDone.
    pub(super) async fn copy_ends(&mut self, run: &mut Run<'_>) -> Result<Edits, Stop> {
        self.flow_ends(run).await?;
        let flow = &self.backup.flow;
        let mut edits = Edits::default();
        if let (Carries::Archive(name), false, false) = (&flow.what, flow.ended, self.version().has_archive_stream()) {
            let name = name.clone();
            edits = self.archive_ends(&name, run).await?;
        }
        if self.backup.flow.omitted && !self.version().has_archive_stream() {
            edits = edits.and(Edits::none());
        }
        self.backup.flow = Flow::default();
        Ok(edits.and(self.at_in(Moment::CopyDone, run).await?))
    }

    /// An archive begins: `base.tar`.
    pub(super) async fn archive_begins(&mut self, name: &str, run: &mut Run<'_>) -> Result<Edits, Stop> {
        let compressed = matches!(self.asked(), Asked::Backup { compressed: true });
        // What it takes in the archive is a little more, for headers.
        let size = self.backup.size_of(name);
        let who = self.seat.identity();
        if size.is_none() && self.shared.plan(|plan| plan.needs_size_of(name, &who)) {
            self.shared.note(
                self.seat.number,
                &format!("archive-data: the size of {name} is not known, BASE_BACKUP was sent without PROGRESS"),
            );
        }
        let size = size.unwrap_or(u64::MAX);
        let stops = self.shared.plan(|plan| plan.stops_in_archive(name, size, &who));
        let stops = if compressed { Vec::new() } else { stops };
        self.backup.flow = Flow {
            what: Carries::Archive(name.to_owned()),
            cursor: Some(if compressed { TarCursor::opaque() } else { TarCursor::new() }),
            stops,
            member: name.to_owned(),
            ..Flow::default()
        };
        if compressed && !self.shared.plan(|plan| plan.is_spent()) {
            self.shared.note_as(
                self.seat.number,
                "archive",
                &format!("{name} is compressed: its members cannot be seen"),
            );
        }
        let edits = self.at_in(Moment::ArchiveBegin(name), run).await?;
        Ok(self.begun(edits))
    }

    /// The manifest begins.
    pub(super) async fn manifest_begins(&mut self, run: &mut Run<'_>) -> Result<Edits, Stop> {
        let who = self.seat.identity();
        let (stops, hoards) =
            self.shared.plan(|plan| (plan.stops_in_manifest(u64::MAX, &who), plan.needs_size_of_manifest(&who)));
        self.backup.flow = Flow {
            what: Carries::Manifest,
            cursor: Some(TarCursor::opaque()),
            stops: if hoards { Vec::new() } else { stops },
            hoard: hoards.then(Vec::new),
            member: "manifest".to_owned(),
            ..Flow::default()
        };
        let edits = self.at_in(Moment::ManifestBegin, run).await?;
        Ok(self.begun(edits))
    }

    /// What faults at its beginning do to an archive or the manifest.
    fn begun(&mut self, mut edits: Edits) -> Edits {
        let flow = &mut self.backup.flow;
        for action in std::mem::take(&mut edits.archive) {
            match action {
                Action::Truncate(Truncate { to: Some(to) }) => flow.cut = Some(to.0),
                Action::OmitTrailer(_) => flow.without_trailer = true,
                Action::OmitArchive(_) => flow.omitted = true,
                _ => {}
            }
        }
        if flow.omitted { edits.and(Edits::none()) } else { edits }
    }

    /// The archive's bytes are over: before its two zero blocks, or its CopyDone before 15.
    pub(super) async fn archive_ends(&mut self, name: &str, run: &mut Run<'_>) -> Result<Edits, Stop> {
        self.backup.flow.ended = true;
        let mut edits = self.at_in(Moment::ArchiveEnd(name), run).await?;
        let mut without_trailer = self.backup.flow.without_trailer;
        for action in std::mem::take(&mut edits.archive) {
            match action {
                Action::OmitTrailer(_) => without_trailer = true,
                Action::ExtraMember(extra) => self.extra_member(extra, run),
                _ => {}
            }
        }
        self.backup.flow.without_trailer = without_trailer;
        Ok(edits)
    }

    /// The two zero blocks come, of which `self.backup.flow` has not taken a byte.
    pub(super) async fn trailer(&mut self, run: &mut Run<'_>) -> Result<(), Stop> {
        let Carries::Archive(name) = self.backup.flow.what.clone() else { return Ok(()) };
        "end of archive".clone_into(&mut self.backup.flow.member);
        let edits = self.archive_ends(&name, run).await?;
        for _ in 1..edits.copies() {
            self.put_beside(&[0; 2 * BLOCK], run);
        }
        if self.backup.flow.without_trailer || edits.copies() == 0 {
            self.backup.flow.muted = u64::MAX;
        }
        Ok(())
    }

    /// An archive or the manifest is over: faults at its very end, and what was kept back of it.
    pub(super) async fn flow_ends(&mut self, run: &mut Run<'_>) -> Result<(), Stop> {
        if let Some(hoard) = self.backup.flow.hoard.take() {
            let size = hoard.iter().map(|piece| piece.len() as u64).sum();
            let who = self.seat.identity();
            self.backup.flow.stops = self.shared.plan(|plan| plan.stops_in_manifest(size, &who));
            self.settle(run);
            for piece in hoard {
                self.data_again(&piece).await?;
            }
        }
        self.last_stops(run).await
    }

    /// Keeps data of the manifest back, if its size has to be known first.
    pub(super) fn hoards(&mut self, data: &[u8], run: &mut Run<'_>) -> bool {
        let flow = &mut self.backup.flow;
        let Some(hoard) = &mut flow.hoard else { return false };
        flow.hoarded += data.len();
        hoard.push(Bytes::copy_from_slice(data));
        self.settle(run);
        true
    }

    /// Whether more has been kept back than the size of a manifest is worth.
    pub(super) fn hoards_too_much(&self) -> bool {
        self.backup.flow.hoard.is_some() && self.backup.flow.hoarded > MAX_HOARD
    }

    /// A member's header comes, of which `self.backup.flow` has not taken a byte. What replaces it, if something does.
    pub(super) async fn member(
        &mut self,
        found: &MemberHeader,
        block: &[u8; BLOCK],
        run: &mut Run<'_>,
    ) -> Result<Option<Vec<u8>>, Stop> {
        let Carries::Archive(archive) = self.backup.flow.what.clone() else { return Ok(None) };
        self.backup.flow.member = String::from_utf8_lossy(&found.name).into_owned();
        if self.shared.plan(|plan| plan.is_spent()) {
            return Ok(None);
        }
        let name = found.name.strip_suffix(b"/").unwrap_or(&found.name);
        let path = match archive.strip_suffix(".tar").filter(|oid| *oid != "base") {
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), found.path()].concat(),
            None => found.path().to_vec(),
        };
        let actions = self.shared.ask(Moment::Member { name, path: &path }, &self.seat);
        let struck = !actions.is_empty();
        if struck {
            self.settle(run);
        }
        let edits = self.perform(actions, true).await?;
        let mut header = *block;
        self.put_beside(&edits.inserted, run);
        let repeats = edits.copies().saturating_sub(1);
        let start = self.backup.flow.offset + BLOCK as u64;
        let mut changed = false;
        for action in edits.archive {
            changed = true;
            match action {
                Action::RenameMember(RenameMember { to }) => header::rename(&mut header, to.as_bytes()),
                Action::RetypeMember(RetypeMember { to }) => header::retype(&mut header, to),
                Action::RelinkMember(RelinkMember { to }) => header::relink(&mut header, to.as_bytes()),
                Action::ResizeHeader(ResizeHeader { to }) => header::resize(&mut header, to.0),
                Action::RemodeMember(RemodeMember { to }) => header::remode(&mut header, to),
                Action::WriteHeader(WriteHeader { field, hex }) => header::write(&mut header, field, &hex.0),
                Action::BreakHeader(_) => header::break_checksum(&mut header),
                Action::Truncate(_) => self.backup.flow.cut = Some(self.backup.flow.offset),
                Action::OmitMember(_) => self.backup.flow.muted = start + found.stored_size(),
                Action::ExtraMember(extra) => self.extra_member(extra, run),
                _ => {}
            }
        }
        let who = self.seat.identity();
        let stops = self.shared.plan(|plan| plan.stops_in_member(name, &path, start, found.size, &who));
        self.backup.flow.stops.extend(stops);
        self.backup.flow.stops.sort_unstable();
        for _ in 0..repeats {
            self.put_beside(&header, run);
        }
        Ok(changed.then(|| header.to_vec()))
    }

    /// A member that a fault adds.
    fn extra_member(&mut self, extra: ExtraMember, run: &mut Run<'_>) {
        let ExtraMember { name, kind, target, content, size } = extra;
        let target = target.unwrap_or_default();
        let length = content.len() as u64;
        let announced = size.map_or(length, |size| size.0);
        let now = u64::try_from(self.shared.clock.unix_seconds()).unwrap_or_default();
        let mut member = header::invent(name.as_bytes(), kind, target.as_bytes(), announced, now).to_vec();
        member.extend_from_slice(content.as_bytes());
        member.resize(member.len() + padding(length), 0);
        self.put_beside(&member, run);
    }

    /// What the block ahead is, of which `self.backup.flow` has not taken a byte: faults at it are done.
    /// What replaces it, if something does.
    pub(super) async fn at_block(
        &mut self,
        found: Found,
        block: &[u8; BLOCK],
        run: &mut Run<'_>,
    ) -> Result<Option<Vec<u8>>, Stop> {
        match found {
            Found::Member(header) => self.member(&header, block, run).await,
            Found::End => self.trailer(run).await.map(|()| None),
            Found::Unknown => {
                let problem =
                    format!("no tar header at byte {}: what follows cannot be told apart", self.backup.flow.offset);
                self.shared.note_as(self.seat.number, "archive", &problem);
                Ok(None)
            }
        }
    }

    /// An archive message that carries no data, since 15: `n`, `m`, `p`.
    pub(super) async fn archive_message(
        &mut self,
        payload: &[u8],
        frame: &[u8],
        edits: Edits,
        run: &mut Run<'_>,
    ) -> Result<Fate, Stop> {
        let (detail, found) = match payload.first() {
            Some(b'n') => {
                self.flow_ends(run).await?;
                let mut names =
                    payload.get(1..).unwrap_or_default().split(|byte| *byte == 0).map(String::from_utf8_lossy);
                let (name, location) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
                let plain = name.find(".tar").and_then(|end| name.get(..end + 4)).unwrap_or(&name).to_owned();
                let found = self.archive_begins(&plain, run).await?;
                (format!("n {name} {location}").trim_end().to_owned(), found)
            }
            Some(b'm') => {
                self.flow_ends(run).await?;
                ("m".to_owned(), self.manifest_begins(run).await?)
            }
            _ => {
                let done = payload.get(1..).and_then(|rest| rest.first_chunk()).map(|bytes| i64::from_be_bytes(*bytes));
                let found = self.at_in(Moment::Progress, run).await?;
                let found = if self.backup.flow.omitted { found.and(Edits::none()) } else { found };
                (format!("p {}", done.unwrap_or_default()), found)
            }
        };
        let edits = edits.and(found);
        for _ in 0..edits.copies() {
            self.record("CopyData", &detail, 0, false);
        }
        self.emit(frame, &edits, run).await
    }
}
