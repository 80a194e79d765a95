//! Relations of a changing cluster that do not keep their size: what `age` generations make of them.

/// What happens to a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Life {
    /// It gets three blocks in each generation, for two hundred of them.
    Grows,
    /// It gets four blocks in each generation but every fourth, when VACUUM truncates it to its first two.
    Breathes,
    /// Every third generation writes it anew into another file, as TRUNCATE or VACUUM FULL do, and the old one is gone.
    IsRewritten,
}

impl Life {
    /// How many blocks the relation has.
    pub(super) fn blocks(self, age: u64) -> u32 {
        let blocks = match self {
            Self::Grows => 8 + 3 * age.min(200),
            Self::Breathes => 2 + 4 * (age % 4),
            Self::IsRewritten => 5 + age / 3 % 7,
        };
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    /// How many files the relation had before the present one.
    pub(super) fn files_before(self, age: u64) -> u64 {
        if self == Self::IsRewritten { age / 3 } else { 0 }
    }

    /// The age at which a block was written; 0 is the beginning. The block must be there.
    pub(super) fn written(self, age: u64, block: u32) -> u64 {
        let block = u64::from(block);
        match self {
            Self::Grows if block < 8 => 0,
            Self::Grows => (block - 8) / 3 + 1,
            Self::Breathes if block < 2 => 0,
            Self::Breathes => age - age % 4 + (block - 2) / 4 + 1,
            Self::IsRewritten => age - age % 3,
        }
    }

    /// The age at which the relation was last truncated, and to how many blocks: what WAL summaries call the limit block. A
    /// file that is created is truncated to nothing.
    pub(super) fn truncated(self, age: u64) -> Option<(u64, u32)> {
        let (last, blocks) = match self {
            Self::Grows => (0, 0),
            Self::Breathes => (age - age % 4, 2),
            Self::IsRewritten => (age - age % 3, 0),
        };
        (last > 0).then_some((last, blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of one age follows from what is told of the one before.
    #[test]
    fn ages_follow_from_each_other() {
        for life in [Life::Grows, Life::Breathes, Life::IsRewritten] {
            for age in 1..300 {
                let (before, now) = (life.blocks(age - 1), life.blocks(age));
                let same_file = life.files_before(age) == life.files_before(age - 1);
                let truncated = life.truncated(age).filter(|(last, _)| *last == age).map(|(_, blocks)| blocks);
                assert_eq!(truncated == Some(0), !same_file, "{life:?} at {age}");
                assert!(now >= before || truncated.is_some(), "{life:?} at {age}");
                // What was kept was written before, and what is new is written now.
                let kept = truncated.unwrap_or(before).min(before);
                for block in 0..now {
                    let written = life.written(age, block);
                    if block < kept {
                        assert_eq!(written, life.written(age - 1, block), "{life:?} at {age}, block {block}");
                    } else {
                        assert_eq!(written, age, "{life:?} at {age}, block {block}");
                    }
                }
            }
        }
    }
}
