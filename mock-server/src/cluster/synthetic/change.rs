//! How the blocks of a synthetic cluster change while its WAL goes on.
//!
//! Nothing is remembered. Time is counted in WAL segments: in *generation* n the cluster holds every change whose WAL lies before
//! segment n, and a backup that starts in segment n copies generation n. A living relation changes each of its blocks every so
//! many generations, at a phase of the block's own, so that the last change of any block before any position is a
//! division away. The WAL itself holds no such records: it is filler.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalSegmentSize;

use super::contents::mix;

/// The rhythm of a cluster.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rhythm {
    /// A block of a living relation changes every so many generations; 0: never.
    every: u64,
    segment_size: WalSegmentSize,
    /// Where WAL stood when the first generation was there; all later changes come after it.
    beginning: Lsn,
}

impl Rhythm {
    /// A cluster of which about `percent` of the blocks change from one generation to the next.
    pub(super) fn new(percent: u64, segment_size: WalSegmentSize, beginning: Lsn) -> Self {
        Self { every: 100_u64.checked_div(percent).unwrap_or(0), segment_size, beginning }
    }

    /// Whether anything ever changes.
    pub(super) fn is_alive(&self) -> bool {
        self.every > 0
    }

    /// How many generations have passed since the beginning.
    pub(super) fn age(&self, generation: u64) -> u64 {
        generation.saturating_sub(self.segment_size.segment_of(self.beginning))
    }

    /// The generation in which the cluster was so old.
    pub(super) fn at_age(&self, age: u64) -> u64 {
        self.segment_size.segment_of(self.beginning).saturating_add(age)
    }

    /// The generation of a backup that starts at `position`.
    pub(super) fn generation(&self, position: Lsn) -> u64 {
        self.segment_size.segment_of(position.max(self.beginning))
    }

    /// Every how many generations the relation of `key` changes each of its blocks. A third of the relations never change,
    /// and one in sixteen is written anew each time.
    pub(super) fn of_relation(&self, key: u64) -> u64 {
        match mix(key ^ 0x6368_616E_6765) % 16 {
            0..5 => 0,
            5 => self.every.min(1),
            _ => self.every,
        }
    }

    /// The generation in which a block last changed, if it ever did, seen from `generation`. `chance` is the block's own.
    pub(super) fn last_change(&self, every: u64, chance: u64, generation: u64) -> Option<u64> {
        let since = generation.checked_add(chance.checked_rem(every)?)? % every;
        let first = self.segment_size.segment_of(self.beginning);
        generation.checked_sub(since).filter(|last| *last > first)
    }

    /// A position in the WAL of the changes that made `generation`: in the segment before.
    pub(super) fn lsn(&self, generation: u64, chance: u64) -> Lsn {
        /// `SizeOfXLogLongPHD`.
        const HEADER: u64 = 40;
        let end = self.segment_size.start_of(generation);
        let start = self.segment_size.start_of(generation.saturating_sub(1)).saturating_add(HEADER).max(self.beginning);
        let room = end.0.saturating_sub(start.0).saturating_sub(8).max(8);
        start.saturating_add(8 + chance % room).align_down(8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    #[test]
    fn nothing_changes_unless_it_is_asked_for() {
        let still = Rhythm::new(0, SIZE, Lsn(0x200_0028));
        for key in 0..100 {
            assert_eq!(still.of_relation(key), 0);
        }
        assert_eq!(still.last_change(0, 7, 50), None);
    }

    proptest! {
        /// What changed between two backups is what differs between them, and its page was written between them.
        #[test]
        fn changes_add_up(percent in 1..=100_u64, chance: u64, from in 2..40_u64, gap in 0..40_u64) {
            let rhythm = Rhythm::new(percent, SIZE, Lsn(0x200_0028));
            let every = 100 / percent;
            let [earlier, later] = [from, from + gap].map(|generation| rhythm.last_change(every, chance, generation));
            if later > Some(from) {
                let lsn = rhythm.lsn(later.unwrap(), chance);
                prop_assert!(lsn >= SIZE.start_of(from) && lsn < SIZE.start_of(from + gap));
            } else {
                prop_assert_eq!(earlier, later);
            }
            // Every block has its turn.
            prop_assert!(gap < every || later > Some(from));
        }
    }
}
