//! The connections that fetch files.

use std::sync::{Arc, Mutex};

use backstop_protocol::base_backup::profile::{PageLsns, has_page_lsns};
use backstop_protocol::base_backup::relation::RelationFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{self, BLOCK_SIZE, BLOCKS_PER_FILE, PageCheck, PageHeader};
use bytes::Bytes;
use futures_util::future::try_join_all;

use super::fetched::{Fetched, Outcome};
use super::files::CHUNK;
use super::place::{Place, lock};
use super::session::{Opener, Server, Session};
use super::work::{Piece, Work};
use crate::connector::Purpose;
use crate::error::{ClientError, shown};
use crate::mutation::Mutation;
use crate::observer::Progress;

/// How often one connection is replaced before it counts as failed.
const REPLACEMENTS: u32 = 3;

/// Damaged pages of one file that are told.
const DAMAGE_TOLD: usize = 5;

/// Files that no server is without: they do not vanish.
const ESSENTIAL: [&[u8]; 2] = [b"PG_VERSION", b"global/pg_filenode.map"];

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) gone: u64,
    pub(super) damaged_pages: u64,
    /// Files that an incremental backup leaves out, and their bytes.
    pub(super) left_out: u64,
    pub(super) left_out_bytes: u64,
}

/// Everybody who fetches, and what they share.
pub(super) struct Crew<'a, P> {
    pub(super) opener: Opener<'a>,
    pub(super) server: &'a Server,
    pub(super) work: Work,
    pub(super) place: &'a P,
    /// Where the backup starts, if the checksums of pages are to be verified.
    pub(super) verify_from: Option<Lsn>,
    pub(super) totals: Mutex<Totals>,
    /// What became of each file, for the profile of an incremental backup.
    pub(super) profile: Mutex<Vec<(Arc<Fetched>, Outcome)>>,
    pub(super) progress: Mutex<Progress>,
    /// Connections that have not failed.
    pub(super) members: Mutex<usize>,
}

impl<'a, P: Place> Crew<'a, P> {
    /// A crew of so many connections as the options say.
    pub(super) fn new(
        opener: Opener<'a>,
        server: &'a Server,
        place: &'a P,
        files: Vec<Arc<Fetched>>,
        verify_from: Option<Lsn>,
        tablespaces: usize,
    ) -> Self {
        let total = files.iter().map(|file| file.entry.size).sum();
        let progress = Progress {
            done: 0,
            total: Some(total),
            tablespaces_done: 0,
            tablespaces: tablespaces + 1,
            archive: String::new(),
            member: None,
            finished: false,
        };
        Self {
            opener,
            server,
            work: Work::new(files),
            place,
            verify_from,
            totals: Mutex::default(),
            profile: Mutex::default(),
            progress: Mutex::new(progress),
            members: Mutex::new(opener.options.jobs.into()),
        }
    }

    /// Fetches everything, over as many connections as there are members.
    pub(super) async fn run(&self) -> Result<(), ClientError> {
        let count = *lock(&self.members);
        let members = (1..=count).map(|number| self.member(format!("job {number}")));
        try_join_all(members).await?;
        let mut progress = lock(&self.progress);
        progress.finished = true;
        progress.member = None;
        self.opener.observer.progress(&progress);
        match lock(&self.totals).damaged_pages {
            0 => Ok(()),
            _ => Err(ClientError::Incomplete("checksum error occurred".to_owned())),
        }
    }

    async fn open(&self, name: &str) -> Result<Session, ClientError> {
        let mut session = self.opener.another(Purpose::Files, name, self.server).await?;
        if self.opener.options.compress && !self.server.in_recovery {
            session.compress().await?;
        }
        Ok(session)
    }

    /// One connection. If it is lost, another takes its place; if none is to be had, the others do its work.
    async fn member(&self, name: String) -> Result<(), ClientError> {
        let mut session = match self.open(&name).await {
            Ok(session) => session,
            Err(error) => return self.leave(&name, error),
        };
        let mut replacements = 0;
        while let Some(piece) = self.work.next().await {
            let error = match self.fetch(&mut session, &piece).await {
                Ok(()) => {
                    self.work.done();
                    continue;
                }
                Err(error) => error,
            };
            self.work.give_back(piece);
            if !error.loses_connection() || replacements == REPLACEMENTS {
                return self.leave(&name, error);
            }
            replacements += 1;
            self.opener.observer.warning(&format!("{name}: {error}; connecting again"));
            session = match self.open(&name).await {
                Ok(session) => session,
                Err(error) => return self.leave(&name, error),
            };
        }
        session.terminate().await;
        Ok(())
    }

    /// What was given back is for the others, if there are any; what is no matter of the connection ends all.
    fn leave(&self, name: &str, error: ClientError) -> Result<(), ClientError> {
        let mut members = lock(&self.members);
        *members -= 1;
        if !error.loses_connection() || *members == 0 {
            return Err(error);
        }
        let text = format!("{name}: {error}; the other {members} connections go on without it");
        self.opener.observer.warning(&text);
        Ok(())
    }

    async fn fetch(&self, session: &mut Session, piece: &Piece) -> Result<(), ClientError> {
        let entry = &piece.file.entry;
        let relation = entry.relation();
        let content = match relation {
            // What it holds now came after the start, and is in WAL.
            Some(_) if piece.length == 0 => Ok(Some(Bytes::new())),
            Some(relation) => self.read_relation(session, piece, relation).await,
            None => session.read_all(&entry.path, piece.offset, piece.length).await,
        };
        let content = match content {
            Err(error)
                if self.opener.options.weakness.is(Mutation::SkipsUnreadableFiles) && error.session_goes_on() =>
            {
                None
            }
            content => content?,
        };
        if content.is_none() && ESSENTIAL.contains(&&*entry.path) {
            return Err(ClientError::Incomplete(format!("the server has no file \"{}\"", shown(&entry.path))));
        }
        let since = self.opener.options.incremental_from;
        if since.is_some() {
            piece.file.note_lsn(content.as_ref().and_then(|content| highest_lsn(piece, content)));
        }
        let outcome = self.place.with(entry.tablespace, |tree| {
            piece.file.write(tree, piece.offset, content.as_deref())?;
            piece.file.piece_done(tree, since)
        })?;
        let mut totals = lock(&self.totals);
        match outcome {
            None | Some(Outcome::LeftOut(..)) => {}
            Some(Outcome::Gone) => {
                totals.gone += 1;
                self.opener.observer.detail(&format!("file \"{}\" is gone meanwhile", shown(&entry.path)));
            }
            Some(Outcome::Kept(size)) => {
                totals.files += 1;
                totals.bytes += size;
            }
        }
        if let Some(Outcome::LeftOut(size, _)) = outcome {
            totals.left_out += 1;
            totals.left_out_bytes += size;
        }
        drop(totals);
        if let Some(outcome) = outcome.filter(|outcome| since.is_some() && *outcome != Outcome::Gone) {
            lock(&self.profile).push((Arc::clone(&piece.file), outcome));
        }
        let mut progress = lock(&self.progress);
        progress.done += piece.length;
        progress.member = Some(shown(&entry.path));
        self.opener.observer.progress(&progress);
        Ok(())
    }

    /// A piece of a relation's file: no more of it than there was when it was listed.
    async fn read_relation(
        &self,
        session: &mut Session,
        piece: &Piece,
        relation: RelationFile,
    ) -> Result<Option<Bytes>, ClientError> {
        let entry = &piece.file.entry;
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
        let cut = |mut content: Bytes| {
            content.truncate(length);
            content
        };
        let read = session.read_all(&entry.path, piece.offset, piece.length).await?;
        let Some(content) = read.map(cut) else { return Ok(None) };
        let Some(start) = self.verify_from else { return Ok(Some(content)) };
        let first = relation.segment.saturating_mul(BLOCKS_PER_FILE);
        let first = first.saturating_add(u32::try_from(piece.offset / BLOCK_SIZE as u64).unwrap_or(u32::MAX));
        if damage(&content, first, start).is_empty() {
            return Ok(Some(content));
        }
        // It may have been written while it was read. Twice is once too often.
        let read = session.read_all(&entry.path, piece.offset, piece.length).await?;
        let Some(content) = read.map(cut) else { return Ok(None) };
        let damage = damage(&content, first, start);
        for (block, calculated, expected) in damage.iter().take(DAMAGE_TOLD) {
            self.opener.observer.warning(&format!(
                "checksum verification failed in file \"{}\", block {block}: calculated {calculated:X} but expected {expected:X}",
                shown(&entry.path)
            ));
        }
        lock(&self.totals).damaged_pages += damage.len() as u64;
        Ok(Some(content))
    }
}

/// The highest LSN of the pages of a piece. None if it proves nothing: the rule is [`has_page_lsns`]'s; a relation with an init fork
/// is not logged; and a piece that came shorter than it was listed was cut off meanwhile.
fn highest_lsn(piece: &Piece, content: &[u8]) -> Option<Lsn> {
    let entry = &piece.file.entry;
    if !has_page_lsns(&entry.path) || entry.unlogged || content.len() as u64 != piece.length {
        return None;
    }
    let mut lsns = PageLsns::default();
    lsns.update(content);
    lsns.highest()
}

/// The pages whose checksum is wrong, with what it is and what it should be. Not those that changed since the start, which WAL
/// repairs.
fn damage(content: &[u8], first: u32, start: Lsn) -> Vec<(u32, u16, u16)> {
    let pages = content.as_chunks::<BLOCK_SIZE>().0;
    let blocks = (first..).zip(pages);
    blocks
        .filter(|(_, page)| PageHeader::parse(page).lsn < start)
        .filter_map(|(block, page)| match page::verify(page, block) {
            PageCheck::Mismatch { calculated, expected } => Some((block, calculated, expected)),
            PageCheck::New | PageCheck::Ok => None,
        })
        .collect()
}

/// Where pieces begin is where pages begin.
const _: () = assert!(CHUNK.is_multiple_of(BLOCK_SIZE as u64));

#[cfg(test)]
mod tests {
    use super::super::listing::Entry;
    use super::*;

    #[test]
    fn what_proves_nothing_has_no_highest_lsn() {
        let mut page = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(100)).write(&mut page);
        let highest = |path: &str, unlogged, content: &[u8], length| {
            let name = path.as_bytes().to_vec();
            let entry = Entry { tablespace: None, path: name.clone(), name, size: length, changed: 0, unlogged };
            let piece = Piece { file: Arc::new(Fetched::new(entry)), offset: 0, length };
            highest_lsn(&piece, content)
        };
        let size = BLOCK_SIZE as u64;
        for path in ["base/5/16384", "base/5/16384.1", "pg_tblspc/16400/PG_15_202209061/5/16384"] {
            assert_eq!(highest(path, false, &page, size), Some(Lsn(100)), "{path}");
        }
        for path in ["base/5/16384_fsm", "base/5/16384_vm", "base/5/16384_init", "base/5/PG_VERSION", "pg_xact/0000"] {
            assert_eq!(highest(path, false, &page, size), None, "{path}");
        }
        assert_eq!(highest("base/5/16384", true, &page, size), None, "not logged");
        assert_eq!(highest("base/5/16384", false, &page, size * 2), None, "cut off");
        assert_eq!(highest("base/5/16384", false, &[0; BLOCK_SIZE], size), None, "never initialised");
        assert_eq!(highest("base/5/16384", false, &[], 0), None, "empty");
    }

    #[test]
    fn pages_that_wal_repairs_are_not_damaged() {
        let mut old = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(100)).write(&mut old);
        page::set_checksum(&mut old, 7);
        let mut torn = old;
        torn[4000] ^= 1;
        let start = Lsn(200);
        assert!(damage(&old, 7, start).is_empty());
        assert_eq!(damage(&[old, torn].concat(), 7, start).iter().map(|(block, _, _)| *block).collect::<Vec<_>>(), [8]);
        assert!(damage(&torn, 7, Lsn(100)).is_empty(), "changed since the start");
        assert!(damage(&[0; BLOCK_SIZE], 7, start).is_empty(), "never initialised");
        assert!(damage(&torn[..100], 7, start).is_empty(), "no whole page");
    }
}
