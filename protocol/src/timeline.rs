//! Timelines and their history files.

use std::fmt;

use crate::lsn::Lsn;

/// The number of a timeline, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The timeline that `initdb` begins.
    pub const FIRST: Self = Self(1);

    /// The name of the history file: `00000002.history`.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One ancestor in a history file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that ended.
    pub parent: TimelineId,
    /// Where it ended and its child began.
    pub at: Lsn,
    /// Why, in words: `no recovery target specified`.
    pub reason: String,
}

/// The ancestors of a timeline, oldest first: the content of a `.history` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineHistory {
    /// Oldest first.
    pub switches: Vec<TimelineSwitch>,
}

/// A history file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid timeline history, line {line}: {problem}")]
pub struct InvalidHistory {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl TimelineHistory {
    /// Reads a history file as `readTimeLineHistory` does: blank lines and lines that begin with `#` are skipped, the
    /// reason is whatever follows the switch position, and timelines must increase.
    pub fn parse(text: &str) -> Result<Self, InvalidHistory> {
        let mut switches: Vec<TimelineSwitch> = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let fail = |problem| InvalidHistory { line: index + 1, problem };
            let line = raw.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, '\t');
            let parent = fields.next().unwrap_or_default().trim().parse();
            let parent = TimelineId(parent.map_err(|_| fail("expected a numeric timeline ID"))?);
            let at = fields.next().ok_or_else(|| fail("expected a write-ahead log switchpoint location"))?;
            let at = at.trim().parse().map_err(|_| fail("expected a write-ahead log switchpoint location"))?;
            if switches.last().is_some_and(|last| last.parent >= parent) {
                return Err(fail("timeline IDs must be in increasing sequence"));
            }
            let reason = fields.next().unwrap_or_default().to_owned();
            switches.push(TimelineSwitch { parent, at, reason });
        }
        Ok(Self { switches })
    }

    /// Where `timeline` ended, if it is an ancestor.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.parent == timeline).map(|switch| switch.at)
    }

    /// The timeline that follows `timeline` when `current` is the one whose history this is.
    pub fn child_of(&self, timeline: TimelineId, current: TimelineId) -> Option<TimelineId> {
        let position = self.switches.iter().position(|switch| switch.parent == timeline)?;
        Some(self.switches.get(position + 1).map_or(current, |next| next.parent))
    }
}

impl fmt::Display for TimelineHistory {
    /// Writes the file as `writeTimeLineHistory` does, with the blank line that stands between the inherited text and
    /// each new line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, switch) in self.switches.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(f, "{gap}{}\t{}\t{}", switch.parent, switch.at, switch.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDED: &str = "1\t0/60017C8\tno recovery target specified\n\n2\t0/C0078A8\tno recovery target specified\n";

    #[test]
    fn reads_and_writes_a_recorded_file() {
        let history = TimelineHistory::parse(RECORDED).expect("a recorded history");
        assert_eq!(history.to_string(), RECORDED);
        assert_eq!(history.end_of(TimelineId(2)), Some(Lsn(0xC0_078A8)));
        assert_eq!(history.child_of(TimelineId(1), TimelineId(3)), Some(TimelineId(2)));
        assert_eq!(history.child_of(TimelineId(2), TimelineId(3)), Some(TimelineId(3)));
        assert_eq!(history.child_of(TimelineId(3), TimelineId(3)), None);
    }

    #[test]
    fn skips_comments() {
        let history = TimelineHistory::parse("# moved by hand\n\n1\t0/3001CF0\tbefore 2026\n").expect("a history");
        assert_eq!(history.switches.len(), 1);
    }

    #[test]
    fn names_the_bad_line() {
        let refusal = |text| TimelineHistory::parse(text).expect_err("must be refused").to_string();
        assert_eq!(refusal("one\t0/1\t"), "invalid timeline history, line 1: expected a numeric timeline ID");
        assert_eq!(refusal("\n1"), "invalid timeline history, line 2: expected a write-ahead log switchpoint location");
        assert_eq!(
            refusal("2\t0/1\tx\n1\t0/2\tx\n"),
            "invalid timeline history, line 2: timeline IDs must be in increasing sequence"
        );
    }

    proptest! {
        #[test]
        fn round_trips(parents in proptest::collection::btree_set(1_u32.., 0..5), at: u64, reason in "[a-z ]{0,20}") {
            let switches = parents.into_iter().map(|parent| TimelineSwitch {
                parent: TimelineId(parent), at: Lsn(at), reason: reason.clone(),
            });
            let history = TimelineHistory { switches: switches.collect() };
            prop_assert_eq!(TimelineHistory::parse(&history.to_string()), Ok(history));
        }

        #[test]
        fn any_text_is_safe(text in "(?s).{0,60}") {
            let _ = TimelineHistory::parse(&text);
        }
    }
}
