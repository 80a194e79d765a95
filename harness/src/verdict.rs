//! What a case, and a run, amounts to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict on one case, in order of badness: the worst verdict of a run decides its exit status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every `must` holds, and so does the built-in law.
    #[default]
    Pass,
    /// A `should` failed, and nothing worse.
    Weak,
    /// A `must` failed, or a client that failed left something that passes for a backup.
    Fail,
    /// The client reported success for a backup that the oracles refuse.
    SilentCorruption,
    /// The client had not ended within its deadline.
    Hang,
    /// Something changed outside the target.
    Escape,
    /// The client died by a signal or a panic.
    Crash,
}

impl Verdict {
    /// Every verdict, the best first.
    pub const ALL: [Self; 7] =
        [Self::Pass, Self::Weak, Self::Fail, Self::SilentCorruption, Self::Hang, Self::Escape, Self::Crash];

    /// The exit status of `backstop run` when this is the worst verdict: 0 for a pass, 0 or (`strict`) 100 for a weak
    /// one, 100 for a failure, then 101 to 104.
    pub fn exit_code(self, strict: bool) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Weak if !strict => 0,
            Self::Weak | Self::Fail => 100,
            Self::SilentCorruption => 101,
            Self::Hang => 102,
            Self::Escape => 103,
            Self::Crash => 104,
        }
    }

    /// Whether a run with this verdict counts as failed.
    pub fn is_failure(self, strict: bool) -> bool {
        self.exit_code(strict) != 0
    }

    /// The name in machine-readable reports: `silent_corruption`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Weak => "weak",
            Self::Fail => "fail",
            Self::SilentCorruption => "silent_corruption",
            Self::Hang => "hang",
            Self::Escape => "escape",
            Self::Crash => "crash",
        }
    }
}

impl fmt::Display for Verdict {
    /// Writes the name for people: `silent corruption`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SilentCorruption => "silent corruption",
            other => other.name(),
        })
    }
}

/// Where a requirement comes from, and so how much its failure weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The built-in law, which holds for every scenario and is written in none.
    Law,
    /// `must.…` of the scenario.
    Must,
    /// `should.…` of the scenario.
    Should,
}

/// One requirement, what it asked for and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was required, in the words of the scenario file (`expect.backup.must.outcome`) or of the law (`complete: members`).
    pub check: String,
    /// What would have satisfied it.
    pub expected: String,
    /// What was seen.
    pub actual: String,
    /// Whether what was seen satisfies the requirement.
    pub ok: bool,
    /// Where the requirement comes from.
    pub level: Level,
}

/// How many cases came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Cases that ran or were skipped.
    pub total: usize,
    /// [`Verdict::Pass`]
    pub passed: usize,
    /// [`Verdict::Weak`]
    pub weak: usize,
    /// [`Verdict::Fail`]
    pub failed: usize,
    /// [`Verdict::SilentCorruption`]
    pub silent_corruption: usize,
    /// [`Verdict::Hang`]
    pub hung: usize,
    /// [`Verdict::Escape`]
    pub escaped: usize,
    /// [`Verdict::Crash`]
    pub crashed: usize,
    /// Cases that this client or this server cannot run.
    pub skipped: usize,
    /// Cases whose verdict is listed as known, among the others.
    pub known: usize,
    /// The worst verdict that is not.
    worst: Verdict,
}

impl Summary {
    /// Counts one case that ran.
    pub fn count(&mut self, verdict: Verdict) {
        self.total += 1;
        *self.counter(verdict) += 1;
        self.worst = self.worst.max(verdict);
    }

    /// Counts one case that ran, and whose verdict is known.
    pub fn count_known(&mut self, verdict: Verdict) {
        let worst = self.worst;
        self.count(verdict);
        self.worst = worst;
        self.known += 1;
    }

    /// Counts one case that was skipped.
    pub fn count_skipped(&mut self) {
        self.total += 1;
        self.skipped += 1;
    }

    /// The number of cases with `verdict`.
    pub fn of(mut self, verdict: Verdict) -> usize {
        *self.counter(verdict)
    }

    /// The worst verdict that is not known, a pass if no case ran.
    pub fn worst(self) -> Verdict {
        self.worst
    }

    fn counter(&mut self, verdict: Verdict) -> &mut usize {
        match verdict {
            Verdict::Pass => &mut self.passed,
            Verdict::Weak => &mut self.weak,
            Verdict::Fail => &mut self.failed,
            Verdict::SilentCorruption => &mut self.silent_corruption,
            Verdict::Hang => &mut self.hung,
            Verdict::Escape => &mut self.escaped,
            Verdict::Crash => &mut self.crashed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_verdicts_have_higher_exit_codes() {
        let codes = |strict| Verdict::ALL.map(|verdict| verdict.exit_code(strict));
        assert_eq!(codes(false), [0, 0, 100, 101, 102, 103, 104]);
        assert_eq!(codes(true), [0, 100, 100, 101, 102, 103, 104]);
        assert!(Verdict::ALL.is_sorted());
    }

    #[test]
    fn the_worst_verdict_decides() {
        let mut summary = Summary::default();
        assert_eq!(summary.worst(), Verdict::Pass);
        summary.count_skipped();
        assert_eq!(summary.worst(), Verdict::Pass);
        for verdict in Verdict::ALL {
            summary.count(verdict);
            summary.count(Verdict::Pass);
            assert_eq!(summary.worst(), verdict);
        }
        assert_eq!((summary.total, summary.passed, summary.skipped), (15, 8, 1));
    }

    #[test]
    fn what_is_known_does_not_decide() {
        let mut summary = Summary::default();
        summary.count_known(Verdict::Crash);
        assert_eq!((summary.worst(), summary.crashed, summary.known), (Verdict::Pass, 1, 1));
        summary.count(Verdict::Weak);
        assert_eq!(summary.worst(), Verdict::Weak);
    }
}
