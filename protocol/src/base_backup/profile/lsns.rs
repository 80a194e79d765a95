//! Which files an incremental backup may leave out.

use crate::base_backup::relation::{Fork, RelationFile};
use crate::lsn::Lsn;
use crate::page::{BLOCK_SIZE, PageHeader};

/// Whether every change of the file at `path` below the data directory (`pg_tblspc/<oid>/…` in a tablespace) sets the LSN of
/// the page that is changed. Only such a file may be left out; when in doubt it is sent.
///
/// That is so for the main fork of a relation. It is not so for
/// * anything that is no relation: `pg_control`, `pg_filenode.map`, `PG_VERSION`, `pg_xact` and its like, configuration;
/// * free-space maps, which are not WAL-logged;
/// * visibility maps, whose bits are cleared without a new LSN;
/// * init forks, which are one page and say nothing of the main fork.
///
/// What a path cannot tell: the main fork of an unlogged relation has no LSNs to trust either. Whoever asks has to look for
/// an init fork beside it, and send it then.
pub fn has_page_lsns(path: &[u8]) -> bool {
    RelationFile::parse(path).is_some_and(|file| file.fork == Fork::Main)
}

/// Finds the highest LSN of a file's pages while the file passes by, in pieces of any size.
///
/// ```
/// use backstop_protocol::base_backup::profile::PageLsns;
/// use backstop_protocol::{lsn::Lsn, page::{BLOCK_SIZE, PageHeader}};
/// let mut page = [0; BLOCK_SIZE];
/// PageHeader::empty(Lsn(0x300_0028)).write(&mut page);
/// let mut lsns = PageLsns::default();
/// lsns.update(&page);
/// assert_eq!(lsns.highest(), Some(Lsn(0x300_0028)));
/// lsns.update(&[0; BLOCK_SIZE]);
/// assert_eq!(lsns.highest(), None, "a page without LSN proves nothing");
/// ```
#[derive(Clone, Debug, Default)]
pub struct PageLsns {
    highest: Lsn,
    /// A page without LSN was there.
    unknown: bool,
    /// How much of the current page has passed.
    within: usize,
    lsn: [u8; 8],
}

impl PageLsns {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = self.lsn.len().saturating_sub(self.within);
            let taken = if wanted > 0 { wanted } else { BLOCK_SIZE - self.within }.min(bytes.len());
            let (now, rest) = bytes.split_at(taken);
            if let Some(part) = self.lsn.get_mut(self.within..self.within + taken).filter(|_| wanted > 0) {
                part.copy_from_slice(now);
            }
            self.within += taken;
            bytes = rest;
            if self.within == BLOCK_SIZE {
                self.page();
            }
        }
    }

    fn page(&mut self) {
        let lsn = PageHeader::lsn(&mut self.lsn.as_slice());
        self.unknown |= lsn.is_invalid();
        self.highest = self.highest.max(lsn);
        self.within = 0;
    }

    /// The highest LSN. Nothing if it proves nothing: the file is empty, ends within a page, or holds a page without LSN (a
    /// page is zero after its relation was extended, and stays so if WAL is skipped); such a file is sent.
    pub fn highest(&self) -> Option<Lsn> {
        let known = !self.unknown && self.within == 0 && !self.highest.is_invalid();
        known.then_some(self.highest)
    }
}
