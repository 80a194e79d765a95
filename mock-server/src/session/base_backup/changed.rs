//! Files that change while they are backed up.

use super::super::Session;
use crate::cluster::{Change, Entry, EntryKind};
use crate::server::Found;

impl Session {
    /// The entry as it is when its turn comes; none if it was removed, which a server passes over in silence.
    pub(super) fn found(&self, path: &[u8], mut entry: Entry) -> Option<Entry> {
        let EntryKind::File { size } = &mut entry.kind else { return Some(entry) };
        let found = match self.shared.cluster.change_of(path) {
            None | Some(Change::Rewritten(_)) => return Some(entry),
            Some(Change::Removed) => Found::Nothing,
            Some(Change::Added(_)) => Found::Added,
            Some(Change::Size(now)) if now > *size => Found::Grown(now),
            Some(Change::Size(now)) => Found::Beginning(now),
        };
        if let Found::Grown(now) | Found::Beginning(now) = found {
            *size = now;
        }
        self.note_found(path, found);
        (found != Found::Nothing).then_some(entry)
    }

    /// What is read of an open file after its size was announced: what it has lost since are zeros, what was written anew is
    /// new, and what it has gained is not read. A removed file can still be read.
    pub(super) fn read_changed(&self, path: &[u8], entry: &Entry, offset: u64, piece: &mut [u8]) {
        let found = match self.shared.cluster.change_of(path) {
            Some(Change::Size(left)) if left < offset + piece.len() as u64 => Found::ZerosFrom(left.max(offset)),
            Some(Change::Rewritten(lsn)) => Found::RewrittenFrom { offset, lsn },
            _ => return,
        };
        found.apply(entry, offset, piece);
        self.note_found(path, found);
    }

    /// What is found first stays true: from there on everything is as it was found.
    fn note_found(&self, path: &[u8], found: Found) {
        self.edit_record(|record| {
            record.found.entry(path.to_vec()).or_insert(found);
        });
    }
}
