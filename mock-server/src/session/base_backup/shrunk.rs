//! Files that are removed or shrink while they are backed up.

use super::super::Session;
use crate::cluster::{Entry, EntryKind, Left};
use crate::server::Found;

impl Session {
    /// The entry as it is when its turn comes; none if it was removed, which a server passes over in silence.
    pub(super) fn found(&self, path: &[u8], mut entry: Entry) -> Option<Entry> {
        let EntryKind::File { size } = &mut entry.kind else { return Some(entry) };
        match self.shared.cluster.left_of(path) {
            None => Some(entry),
            Some(Left::Nothing) => {
                self.note_found(path, Found::Nothing);
                None
            }
            Some(Left::Beginning(left)) => {
                *size = left.min(*size);
                self.note_found(path, Found::Beginning(left));
                Some(entry)
            }
        }
    }

    /// Makes zeros of what an open file has lost since its size was announced. A removed file can still be read.
    pub(super) fn pad(&self, path: &[u8], offset: u64, piece: &mut [u8]) {
        let Some(Left::Beginning(left)) = self.shared.cluster.left_of(path) else { return };
        let kept = usize::try_from(left.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(lost) = piece.get_mut(kept..).filter(|lost| !lost.is_empty()) else { return };
        lost.fill(0);
        let from = left.max(offset);
        self.note_found(path, Found::ZerosFrom(from));
    }

    /// What is found first stays true: zeros from the first lost byte on.
    fn note_found(&self, path: &[u8], found: Found) {
        self.edit_record(|record| {
            record.found.entry(path.to_vec()).or_insert(found);
        });
    }
}
