//! Two servers' sessions side by side.

use std::collections::BTreeMap;
use std::fmt;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalSegmentSize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::lines::{Line, lines};
use crate::witness::said::Said;

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The mock's alone.
    Mock,
    /// The real server's alone.
    Real,
    /// Something about both.
    Both,
}

/// A line that one of two servers has alone, or what does not fit about both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The client's name, and the number of its session.
    pub session: String,
    /// Whose line.
    pub side: Side,
    /// What was said, without what is a server's own.
    pub line: String,
}

impl fmt::Display for Difference {
    /// As in a `diff` from the mock to the real server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.side {
            Side::Mock => '-',
            Side::Real => '+',
            Side::Both => '!',
        };
        write!(f, "{sign} {}: {}", self.session, self.line)
    }
}

/// The sessions of a case by the names of their clients: the order in which two clients connect is chance.
type Named = BTreeMap<(String, usize), Vec<Line>>;

fn named(sessions: &BTreeMap<u32, Vec<Said>>) -> Named {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = Named::new();
    for said in sessions.values() {
        let name = said.iter().find_map(|said| said.fields.iter().find(|(name, _)| name == "application_name"));
        let name = name.map_or_else(String::new, |(_, name)| name.clone());
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        all.insert((name, *count), lines(said));
    }
    all
}

/// What differs between what was said on the mock and on a real server whose segments have this size.
pub(crate) fn differences(
    mock: &BTreeMap<u32, Vec<Said>>,
    real: &BTreeMap<u32, Vec<Said>>,
    segment_size: WalSegmentSize,
) -> Vec<Difference> {
    let (mock, real) = (named(mock), named(real));
    let mut all = Vec::new();
    let mut positions = Positions { size: segment_size, forth: BTreeMap::new(), back: BTreeMap::new() };
    let keys: std::collections::BTreeSet<_> = mock.keys().chain(real.keys()).collect();
    for key in keys {
        let session = format!("{} #{}", key.0, key.1);
        let none = Vec::new();
        let (ours, theirs) = (mock.get(key).unwrap_or(&none), real.get(key).unwrap_or(&none));
        let texts = |lines: &[Line]| lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
        let mut tell = |side, lines: &[Line]| {
            let told = lines.iter().map(|line| Difference { session: session.clone(), side, line: line.text.clone() });
            all.extend(told);
        };
        for op in capture_diff_slices(Algorithm::Myers, &texts(ours), &texts(theirs)) {
            match op {
                DiffOp::Equal { old_index, new_index, len } => {
                    for offset in 0..len {
                        let (Some(ours), Some(theirs)) = (ours.get(old_index + offset), theirs.get(new_index + offset))
                        else {
                            continue;
                        };
                        for (ours, theirs) in ours.positions.iter().zip(&theirs.positions) {
                            if let Err(problem) = positions.note(*ours, *theirs) {
                                let line = Line { text: problem, positions: Vec::new() };
                                tell(Side::Both, &[line]);
                            }
                        }
                    }
                }
                op => {
                    tell(Side::Mock, ours.get(op.old_range()).unwrap_or_default());
                    tell(Side::Real, theirs.get(op.new_range()).unwrap_or_default());
                }
            }
        }
    }
    all
}

/// Positions of two servers correspond: equal ones stay equal, and the beginning of a segment corresponds to one.
struct Positions {
    size: WalSegmentSize,
    forth: BTreeMap<Lsn, Lsn>,
    back: BTreeMap<Lsn, Lsn>,
}

impl Positions {
    fn note(&mut self, ours: Lsn, theirs: Lsn) -> Result<(), String> {
        if (ours.0 == 0) != (theirs.0 == 0) {
            return Err("a position is invalid on one side only".to_owned());
        }
        let (first, second) = (self.size.offset_of(ours), self.size.offset_of(theirs));
        if (first == 0) != (second == 0) {
            return Err("a position is the beginning of a segment on one side only".to_owned());
        }
        let known = *self.forth.entry(ours).or_insert(theirs);
        let other = *self.back.entry(theirs).or_insert(ours);
        if known == theirs && other == ours {
            return Ok(());
        }
        Err("two positions are equal on one side only".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use backstop_mock::transcript::Direction;

    use super::*;

    fn session(positions: &[&str], more: &[&str]) -> BTreeMap<u32, Vec<Said>> {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let begin = Said {
            direction: Direction::Received,
            message: "StartupMessage",
            fields: vec![field("application_name", "backup")],
        };
        let rows = positions.iter().map(|position| Said {
            direction: Direction::Sent,
            message: "DataRow",
            fields: vec![field("recptr", position)],
        });
        let more = more.iter().map(|tag| Said {
            direction: Direction::Sent,
            message: "CommandComplete",
            fields: vec![field("tag", tag)],
        });
        BTreeMap::from([(1, [begin].into_iter().chain(rows).chain(more).collect())])
    }

    fn told(mock: &BTreeMap<u32, Vec<Said>>, real: &BTreeMap<u32, Vec<Said>>) -> Vec<(Side, String)> {
        let all = differences(mock, real, WalSegmentSize::DEFAULT);
        all.into_iter().map(|difference| (difference.side, difference.line)).collect()
    }

    #[test]
    fn sessions_with_other_positions_are_equal() {
        let mock = session(&["0/2000028", "0/2000120", "0/2000028"], &["SELECT"]);
        let real = session(&["0/5000060", "0/5000158", "0/5000060"], &["SELECT"]);
        assert_eq!(told(&mock, &real), []);
    }

    #[test]
    fn lines_and_positions_of_one_side_are_told() {
        let mock = session(&["0/2000000"], &["SELECT", "BASE_BACKUP"]);
        let real = session(&["0/2000028"], &["SELECT"]);
        assert_eq!(
            told(&mock, &real),
            [
                (Side::Both, "a position is the beginning of a segment on one side only".to_owned()),
                (Side::Mock, "> CommandComplete tag=BASE_BACKUP".to_owned()),
            ]
        );
        let twice = session(&["0/2000028", "0/2000028"], &[]);
        let moved = session(&["0/2000028", "0/2000060"], &[]);
        assert_eq!(told(&twice, &moved), [(Side::Both, "two positions are equal on one side only".to_owned())]);
        assert_eq!(told(&session(&[], &[]), &BTreeMap::new()).len(), 1);
    }
}
