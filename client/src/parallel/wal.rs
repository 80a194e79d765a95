//! WAL, fetched again and again while the backup runs (`-x`).
//!
//! Nothing on the server waits for this loop: it has to come round before a segment is recycled. A segment is fetched as a whole,
//! and again if its change time has moved, until the records in it and behind it say that it is complete. Change times are whole
//! seconds, so that a file which is among the latest changed may change once more in the same second; it is then fetched again
//! at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::time::Duration;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::WalFileName;
use tokio::sync::watch;

use super::files::{CHUNK, Found};
use super::place::Place;
use super::session::{Opener, Server, Session};
use crate::archive_check::{is_history, wal_segment};
use crate::connector::Purpose;
use crate::disk::File;
use crate::error::{ClientError, shown};
use crate::mutation::Mutation;
use crate::wal_check::WalCheck;

/// How often the connection is replaced.
const REPLACEMENTS: u32 = 3;

/// The longest a timeline history is, in bytes.
const MAX_HISTORY: u64 = CHUNK;

/// A segment that was fetched.
struct Segment {
    file: File,
    size: u64,
    changed: i64,
    /// Whether something else had changed later when it was fetched, so that it cannot have changed since without its change time
    /// moving.
    settled: bool,
}

/// The loop.
pub(super) struct WalLoop<'a, P> {
    opener: Opener<'a>,
    server: &'a Server,
    place: &'a P,
    /// Where it begins, and the timeline.
    start: Lsn,
    timeline: TimelineId,
    /// WAL up to the beginning of the first segment that is not complete.
    check: WalCheck,
    /// The number of that segment.
    first: u64,
    /// Segments that were fetched, by number.
    fetched: BTreeMap<u64, Segment>,
    histories: Vec<Vec<u8>>,
    /// How many bytes crossed the wire.
    bytes: u64,
}

/// What the loop left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalTotals {
    pub(super) segments: usize,
    pub(super) bytes: u64,
    /// The end of the last valid record, where that is known.
    pub(super) valid_to: Option<Lsn>,
}

impl<'a, P: Place> WalLoop<'a, P> {
    /// For WAL from `start` on.
    pub(super) fn new(opener: Opener<'a>, server: &'a Server, place: &'a P, start: Lsn, timeline: TimelineId) -> Self {
        let size = server.segment_size;
        let check = WalCheck::streamed(server.version, server.system_identifier, size, timeline, start).in_files();
        Self {
            opener,
            server,
            place,
            start,
            timeline,
            check,
            first: size.segment_of(start),
            fetched: BTreeMap::new(),
            histories: Vec::new(),
            bytes: 0,
        }
    }

    /// Runs until the WAL is there up to the position that `end` will tell. None there: nobody knows where it ends, and everything
    /// is fetched that can be.
    pub(super) async fn run(
        mut self,
        delay: Duration,
        mut end: watch::Receiver<Option<End>>,
    ) -> Result<WalTotals, ClientError> {
        let mut session = self.opener.another(Purpose::Wal, "wal", self.server).await?;
        let mut replacements = 0;
        loop {
            let known = *end.borrow_and_update();
            match self.round(&mut session, known).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.loses_connection() && replacements < REPLACEMENTS => {
                    replacements += 1;
                    self.opener.observer.warning(&format!("wal: {error}; connecting again"));
                    session = self.opener.another(Purpose::Wal, "wal", self.server).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if known.is_none() {
                // An error is the end of whoever would tell, which ends this, too.
                let _ = tokio::time::timeout(delay, end.changed()).await;
            }
        }
        let known = *end.borrow();
        session.terminate().await;
        let to = known.and_then(|end| match end {
            End::At(lsn) => Some(lsn),
            End::Now => self.check.valid_to(),
        });
        self.keep_what_is_needed(to)
    }

    fn name(&self, segment: u64) -> WalFileName {
        WalFileName::new(self.timeline, segment, self.server.segment_size)
    }

    fn path(&self, name: &str) -> Vec<u8> {
        format!("{}/{name}", self.server.version.wal_directory()).into_bytes()
    }

    /// Looks once and fetches what is new. Whether everything is there.
    async fn round(&mut self, session: &mut Session, end: Option<End>) -> Result<bool, ClientError> {
        let wal = self.server.version.wal_directory();
        let closed = [self.path("archive_status"), self.path("summaries")];
        let found = session.tree(wal.as_bytes(), &closed).await?;
        let latest = found.iter().map(|file| file.changed).max().unwrap_or(0);
        let listed: BTreeMap<&[u8], &Found> = found
            .iter()
            .filter(|file| !file.directory)
            .filter_map(|file| Some((file.path.get(wal.len() + 1..)?, file)))
            .collect();
        self.histories(session, &listed).await?;
        let size = self.server.segment_size;
        let last = |segment: u64| match end {
            Some(End::At(lsn)) => segment > size.segment_before(lsn),
            Some(End::Now) | None => false,
        };
        let once = self.opener.options.weakness.is(Mutation::TakesWalOnce);
        let mut check = self.check.clone();
        for segment in self.first.. {
            if last(segment) {
                break;
            }
            let name = self.name(segment).to_string();
            let Some(file) = listed.get(name.as_bytes()) else {
                // WAL is contiguous: what is not there though later WAL is, was removed.
                let later = listed.keys().filter_map(|name| wal_segment(str::from_utf8(name).ok()?));
                let mut later = later.filter(|name| name.timeline == self.timeline);
                if later.any(|name| name.segment(size).is_some_and(|later| later > segment)) {
                    return Err(removed(&name));
                }
                if self.moved_on(&listed, segment) {
                    return Err(ClientError::Incomplete(format!(
                        "the server has left timeline {} during the backup",
                        self.timeline
                    )));
                }
                break;
            };
            let stale = self.fetched.get(&segment).is_none_or(|fetched| {
                let moved = (fetched.size, fetched.changed) != (file.size, file.changed);
                let unsettled = !fetched.settled && (end.is_some() || latest > fetched.changed);
                !once && (moved || unsettled)
            });
            if stale {
                self.fetch(session, segment, &name, file, latest).await?;
            }
            if once {
                continue;
            }
            self.verify(segment, &name, &mut check)?;
            if !check.goes_on() {
                break;
            }
        }
        if once {
            return Ok(end.is_some());
        }
        self.seal()?;
        match end {
            None => Ok(false),
            Some(End::Now) => Ok(true),
            // The server had flushed all of it before it told where it ends.
            Some(End::At(lsn)) => check.covers(lsn).map(|()| true),
        }
    }

    /// Whether there is WAL of a later timeline where this one ends.
    fn moved_on(&self, listed: &BTreeMap<&[u8], &Found>, segment: u64) -> bool {
        let names = listed.keys().filter_map(|name| wal_segment(str::from_utf8(name).ok()?));
        let mut later = names.filter(|name| name.timeline > self.timeline);
        later.any(|name| name.segment(self.server.segment_size).is_some_and(|later| later >= segment))
    }

    /// Fetches a segment as a whole.
    async fn fetch(
        &mut self,
        session: &mut Session,
        segment: u64,
        name: &str,
        found: &Found,
        latest: i64,
    ) -> Result<(), ClientError> {
        let size = self.server.segment_size.bytes();
        if found.size != size {
            let problem = format!("unexpected WAL file size: {} bytes, not {size}", found.size);
            return Err(ClientError::Incomplete(format!("file \"{name}\": {problem}")));
        }
        let path = self.path(name);
        self.opener.observer.detail(&format!("fetching write-ahead log segment {name}"));
        if !self.fetched.contains_key(&segment) {
            let file = self.place.with(None, |tree| tree.create_file(&path))?;
            self.fetched.insert(segment, Segment { file, size: 0, changed: i64::MIN, settled: false });
        }
        let mut offset = 0;
        while offset < size {
            let content = session.read(&path, offset).await?.ok_or_else(|| removed(name))?;
            let wanted = (size - offset).min(CHUNK);
            if content.len() as u64 != wanted {
                return Err(ClientError::Incomplete(format!("file \"{name}\" ends at {offset} bytes and some")));
            }
            let full = self.place.with(None, |tree| tree.full(&path));
            if let Some(segment) = self.fetched.get(&segment) {
                segment.file.write_all_at(&content, offset).map_err(ClientError::local("write to file", full))?;
            }
            offset += wanted;
            self.bytes += wanted;
        }
        if let Some(segment) = self.fetched.get_mut(&segment) {
            (segment.size, segment.changed, segment.settled) = (found.size, found.changed, latest > found.changed);
        }
        Ok(())
    }

    /// Reads a segment as it was kept.
    fn verify(&self, segment: u64, name: &str, check: &mut WalCheck) -> Result<(), ClientError> {
        let full = self.place.with(None, |tree| tree.full(&self.path(name)));
        let mut file = fs::File::open(&full).map_err(ClientError::local("open file", &full))?;
        let mut at = self.server.segment_size.start_of(segment);
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut piece).map_err(ClientError::local("read file", &full))?;
            if read == 0 {
                return Ok(());
            }
            check.push(self.timeline, at, piece.get(..read).unwrap_or_default())?;
            at = at.saturating_add(read as u64);
        }
    }

    /// Segments that end before valid WAL does are complete for good.
    fn seal(&mut self) -> Result<(), ClientError> {
        let size = self.server.segment_size;
        loop {
            let segment = self.first;
            if !self.fetched.contains_key(&segment) {
                return Ok(());
            }
            let mut check = self.check.clone();
            let name = self.name(segment).to_string();
            self.verify(segment, &name, &mut check)?;
            // A record that goes on in the next segment is known to be whole when its end is there.
            let complete = check.goes_on() && check.valid_to().is_some_and(|to| to >= size.start_of(segment + 1));
            let next = complete || (check.goes_on() && self.next_continues(&check, segment)?);
            if !next {
                return Ok(());
            }
            self.check = check;
            self.first += 1;
        }
    }

    /// Whether the segment behind `segment` was fetched and holds the end of the record that `check` is in.
    fn next_continues(&self, check: &WalCheck, segment: u64) -> Result<bool, ClientError> {
        let Some(border) = check.valid_to().filter(|_| self.fetched.contains_key(&(segment + 1))) else {
            return Ok(false);
        };
        let mut check = check.clone();
        self.verify(segment + 1, &self.name(segment + 1).to_string(), &mut check)?;
        Ok(check.valid_to().is_some_and(|to| to > border))
    }

    /// Fetches timeline histories, which are written once.
    async fn histories(&mut self, session: &mut Session, listed: &BTreeMap<&[u8], &Found>) -> Result<(), ClientError> {
        for (name, file) in listed {
            let Some(text) = str::from_utf8(name).ok().filter(|name| is_history(name)) else { continue };
            if file.size > MAX_HISTORY || self.histories.iter().any(|known| **known == **name) {
                continue;
            }
            let path = self.path(text);
            let Some(content) = session.read(&path, 0).await? else { continue };
            let (file, full) = self.place.with(None, |tree| (tree.create_file(&path), tree.full(&path)));
            file?.write_all_at(&content, 0).map_err(ClientError::local("write to file", full))?;
            self.histories.push(name.to_vec());
        }
        Ok(())
    }

    /// Removes segments that lie behind the end, and marks the others as archived: a server that starts on them need not archive
    /// them again.
    fn keep_what_is_needed(self, end: Option<Lsn>) -> Result<WalTotals, ClientError> {
        let size = self.server.segment_size;
        let needed = |segment: &u64| {
            *segment >= size.segment_of(self.start) && end.is_none_or(|end| *segment <= size.segment_before(end))
        };
        for segment in self.fetched.keys().filter(|segment| !needed(segment)) {
            let path = self.path(&self.name(*segment).to_string());
            self.place.with(None, |tree| tree.remove_file(&path))?;
        }
        let kept: Vec<u64> = self.fetched.keys().copied().filter(|segment| needed(segment)).collect();
        let names = kept.iter().map(|segment| self.name(*segment).to_string());
        let histories = self.histories.iter().map(|name| shown(name));
        for name in names.chain(histories) {
            let mark = self.path(&format!("archive_status/{name}.done"));
            self.place.with(None, |tree| tree.create_file(&mark))?;
        }
        Ok(WalTotals { segments: kept.len(), bytes: self.bytes, valid_to: end })
    }
}

/// Where WAL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the end of a backup.
    At(Lsn),
    /// Wherever it ends now.
    Now,
}

fn removed(name: &str) -> ClientError {
    ClientError::Incomplete(format!("requested WAL segment {name} has already been removed"))
}
