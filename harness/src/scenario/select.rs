//! Which cases are to run: by id, by path, by tag, by partition.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Case;
use super::load::{self, Found, LoadError};

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Paths of files or directories, and ids or beginnings of ids. None stands for everything.
    pub wanted: Vec<String>,
    /// Tags, one of which a scenario must have. None stands for any.
    pub tags: Vec<String>,
    /// The part of the cases that is to run.
    pub partition: Option<Partition>,
    /// The directory that ids are relative to.
    pub root: PathBuf,
}

impl Selection {
    /// Reads the files that it takes and returns the cases, each once, in the order of their ids.
    pub fn cases(&self) -> Result<Vec<Case>, LoadError> {
        let mut cases = Vec::new();
        if self.wanted.is_empty() {
            load_all(&load::find(&self.root)?, &mut cases)?;
        }
        for wanted in &self.wanted {
            let path = Path::new(wanted);
            if path.is_dir() {
                load_all(&self.directory(path)?, &mut cases)?;
            } else if path.is_file() {
                load_all(&[load::file(path, &self.root)?], &mut cases)?;
            } else {
                self.by_id(wanted, &mut cases)?;
            }
        }
        if !self.tags.is_empty() {
            cases.retain(|case| case.scenario.tags.iter().any(|tag| self.tags.contains(tag)));
        }
        cases.sort_by(|one, other| natural(&one.id, &other.id).then_with(|| one.path.cmp(&other.path)));
        cases.dedup_by(|one, other| one.id == other.id);
        Ok(match self.partition {
            Some(partition) => partition.of(cases),
            None => cases,
        })
    }

    /// The files below `path`, with ids as if each had been named by itself.
    fn directory(&self, path: &Path) -> Result<Vec<Found>, LoadError> {
        load::find(path)?.into_iter().map(|found| load::file(&found.path, &self.root)).collect()
    }

    /// Adds the case called `wanted`, or else every case whose id begins so.
    fn by_id(&self, wanted: &str, cases: &mut Vec<Case>) -> Result<(), LoadError> {
        let all = if self.root.is_dir() { load::find(&self.root)? } else { Vec::new() };
        let (scenario, rest) = wanted.split_at(wanted.find('[').unwrap_or(wanted.len()));
        let no_such = |nearest| LoadError::NoSuchCase { wanted: wanted.to_owned(), nearest };
        if rest.is_empty() {
            let exact: Vec<Found> = all.iter().filter(|found| found.id == scenario).cloned().collect();
            let begun: Vec<Found> = all.iter().filter(|found| found.id.starts_with(scenario)).cloned().collect();
            let chosen = if exact.is_empty() { begun } else { exact };
            if chosen.is_empty() {
                return Err(no_such(load::nearest_id(scenario, &all)));
            }
            return load_all(&chosen, cases);
        }
        let Some(found) = all.iter().find(|found| found.id == scenario) else {
            return Err(no_such(load::nearest_id(scenario, &all)));
        };
        let loaded = load::load(found)?;
        let (without_step, step) = split_step(wanted);
        if let Some(step) = step
            && let Some(case) = loaded.iter().find(|case| case.id == without_step)
        {
            let id = case.id.clone();
            cases.push(case.at_step(step).ok_or(LoadError::NoSweep { id, step })?);
            return Ok(());
        }
        let exact: Vec<Case> = loaded.iter().filter(|case| case.id == wanted).cloned().collect();
        let begun: Vec<Case> = loaded.iter().filter(|case| case.id.starts_with(wanted)).cloned().collect();
        let chosen = if exact.is_empty() { begun } else { exact };
        if chosen.is_empty() {
            return Err(no_such(loaded.first().map(|case| case.id.clone())));
        }
        cases.extend(chosen);
        Ok(())
    }
}

fn load_all(found: &[Found], cases: &mut Vec<Case>) -> Result<(), LoadError> {
    for found in found {
        cases.extend(load::load(found)?);
    }
    Ok(())
}

/// `crash/everywhere[137]` is step 137 of `crash/everywhere`.
pub(crate) fn split_step(id: &str) -> (&str, Option<u64>) {
    let inner = id.strip_suffix(']').and_then(|id| id.rsplit_once('['));
    match inner {
        Some((before, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(step) => (before, Some(step)),
            Err(_) => (id, None),
        },
        _ => (id, None),
    }
}

/// Orders ids with the numbers in them by value: `[server.version=9.6]` stands before `[server.version=15]`.
fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    fn pieces(text: &str) -> Vec<(u64, &str)> {
        let mut rest = text;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (word, tail) = tail.split_at(end);
            pieces.push((number.parse().unwrap_or(if number.is_empty() { 0 } else { u64::MAX }), word));
            rest = tail;
        }
        pieces
    }
    pieces(one).cmp(&pieces(other)).then_with(|| one.cmp(other))
}

/// One of several parts of the cases: `2/5`. Together the parts hold every case once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    part: usize,
    of: usize,
}

impl Partition {
    /// The cases of this part: every `of`th one, so that the cases of one scenario spread over the parts.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.part - 1).step_by(self.of).collect()
    }
}

/// A text that names no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid partition {0:?}: expected M/N with M from 1 to N, such as 2/5")]
pub struct InvalidPartition(String);

impl FromStr for Partition {
    type Err = InvalidPartition;

    fn from_str(text: &str) -> Result<Self, InvalidPartition> {
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        text.split_once('/')
            .and_then(|(part, of)| Some(Self { part: number(part)?, of: number(of)? }))
            .filter(|partition| (1..=partition.of).contains(&partition.part))
            .ok_or_else(|| InvalidPartition(text.to_owned()))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_parts_that_there_are_not() {
        for text in ["", "1", "0/1", "2/1", "1/0", "+1/2", "1/2/3", "a/b"] {
            assert!(text.parse::<Partition>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ids_stand_in_the_order_of_their_numbers() {
        let mut ids = ["a[v=15]", "a[v=9.6]", "a[2]", "a[10]", "a", "b/1"];
        ids.sort_by(|one, other| natural(one, other));
        assert_eq!(ids, ["a", "a[2]", "a[10]", "a[v=9.6]", "a[v=15]", "b/1"]);
    }

    #[test]
    fn a_step_is_a_number_in_brackets() {
        assert_eq!(split_step("a[137]"), ("a", Some(137)));
        assert_eq!(split_step("a[v=1][137]"), ("a[v=1]", Some(137)));
        assert_eq!(split_step("a[v=1]"), ("a[v=1]", None));
        assert_eq!(split_step("a[]"), ("a[]", None));
    }

    proptest! {
        #[test]
        fn partitions_hold_everything_once(count in 0..200_usize, of in 1..20_usize) {
            let mut together: Vec<usize> = (1..=of)
                .flat_map(|part| {
                    let partition: Partition = format!("{part}/{of}").parse().expect("a partition");
                    partition.of((0..count).collect())
                })
                .collect();
            together.sort_unstable();
            prop_assert_eq!(together, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn the_order_of_ids_is_total(one in "[a-c0-9./]{0,8}", other in "[a-c0-9./]{0,8}") {
            prop_assert_eq!(natural(&one, &other), natural(&other, &one).reverse());
            prop_assert_eq!(natural(&one, &other).is_eq(), one == other);
        }
    }
}
