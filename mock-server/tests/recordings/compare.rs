//! What of two answers must be equal, and what may differ between two servers.
//!
//! Equal are types, order and fields of messages, texts, types of columns, error codes, the file, line and routine of an error.
//! Another server has another system identifier, other positions in its WAL, process ids, keys, salts, nonces, times and sizes.
//! Positions of both servers must correspond: equal ones stay equal, their order is kept, and the beginning of a segment and of
//! its first record correspond to the same.

use std::collections::BTreeMap;

use crate::message::{Message, name};

/// Every recorded server had segments of 16 MiB.
pub(crate) const SEGMENT: u64 = 16 << 20;

/// Columns of rows whose numbers are the cluster's own.
const SIZES: [&str; 1] = ["size"];

/// Lines of a backup label that tell a time.
const TIMES: [&str; 1] = ["START TIME: "];

/// What corresponds to what in the recorded server and in ours.
#[derive(Debug, Default)]
pub(crate) struct Correspondence {
    forth: BTreeMap<u64, u64>,
    back: BTreeMap<u64, u64>,
    identifiers: BTreeMap<String, String>,
}

impl Correspondence {
    /// Compares two messages.
    pub(crate) fn messages(&mut self, expected: &Message, got: &Message) -> Result<(), String> {
        let whole = |problem: &str| Err(format!("{problem}\n  expected {expected}\n  got      {got}"));
        if expected.tag != got.tag {
            return whole(&format!("another message: {} instead of {}", name(got.tag), name(expected.tag)));
        }
        let labels = |message: &Message| message.fields.iter().map(|(label, _)| label.clone()).collect::<Vec<_>>();
        if labels(expected) != labels(got) {
            return whole("other fields");
        }
        for ((label, expected_value), (_, value)) in expected.fields.iter().zip(&got.fields) {
            let same = match (expected_value, value) {
                // Two rules of the grammar say the same of a timeline.
                (Some(_), Some(_)) if label == "L" && expected.field("M") == Some("invalid timeline 0") => Ok(()),
                (None, None) => Ok(()),
                (Some(wanted), Some(value)) => self.field(expected.tag, label, wanted, value),
                _ => Err("one is NULL".to_owned()),
            };
            if let Err(problem) = same {
                return whole(&format!("{label}: {problem}"));
            }
        }
        Ok(())
    }

    fn field(&mut self, tag: u8, label: &str, expected: &str, got: &str) -> Result<(), String> {
        let need = |same: bool, what: &str| if same { Ok(()) } else { Err(what.to_owned()) };
        match (tag, label) {
            (b'K', "pid") | (b'R', "salt") => Ok(()),
            (b'R', "data") => scram(expected, got),
            (b'D', label) if SIZES.contains(&label) => need(got.parse::<u64>().is_ok(), "no number"),
            (b'D', "snapshot_name") => need(expected.len() == got.len(), "another form of name"),
            _ => self.text(expected, got),
        }
    }

    /// Compares texts in which positions, system identifiers, process ids, times and checksums of pages may stand.
    pub(crate) fn text(&mut self, expected: &str, got: &str) -> Result<(), String> {
        let (mut lines, mut others) = (expected.split('\n'), got.split('\n'));
        loop {
            match (lines.next(), others.next()) {
                (None, None) => return Ok(()),
                (Some(line), Some(other)) if TIMES.iter().any(|t| line.starts_with(t) && other.starts_with(t)) => {}
                (Some(line), Some(other)) => self.line(line, other)?,
                _ => return Err("another number of lines".to_owned()),
            }
        }
    }

    fn line(&mut self, expected: &str, got: &str) -> Result<(), String> {
        let (expected, got) = (words(expected), words(got));
        if expected.len() != got.len() {
            return Err("another text".to_owned());
        }
        let mut before = "";
        for (wanted, word) in expected.into_iter().zip(got) {
            self.word(before, wanted, word)?;
            if wanted.trim() != "" {
                before = wanted;
            }
        }
        Ok(())
    }

    fn word(&mut self, before: &str, expected: &str, got: &str) -> Result<(), String> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let page_checksum = |text: &str| text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let (Some(wanted), Some(lsn)) = (lsn(expected), lsn(got)) {
            return self.lsn(wanted, lsn);
        }
        if let (Some(wanted), Some(file)) = (wal_file(expected), wal_file(got)) {
            let same = wanted.0 == file.0;
            return if same { self.lsn(wanted.1, file.1) } else { Err("a WAL file of another timeline".to_owned()) };
        }
        if number(expected) && number(got) {
            if expected.len() >= 18 {
                return self.identifier(expected, got);
            }
            if before == "PID" {
                return Ok(());
            }
        }
        if ["calculated", "expected"].contains(&before) && page_checksum(expected) && page_checksum(got) {
            return Ok(());
        }
        if expected == got || (is_relation(expected) && is_relation(got)) {
            return Ok(());
        }
        Err(format!("{got:?} instead of {expected:?}"))
    }

    fn identifier(&mut self, expected: &str, got: &str) -> Result<(), String> {
        let known = self.identifiers.entry(expected.to_owned()).or_insert_with(|| got.to_owned());
        if known == got { Ok(()) } else { Err(format!("{expected} was {known} before")) }
    }

    /// Notes that `got` stands where the recorded server has `expected`, and checks that this fits what was noted before.
    pub(crate) fn lsn(&mut self, expected: u64, got: u64) -> Result<(), String> {
        let complain = |problem: String| Err(format!("{} where {} was recorded: {problem}", show(got), show(expected)));
        if (expected == 0) != (got == 0) {
            return complain("only one is invalid".to_owned());
        }
        if let Some(known) = self.forth.get(&expected) {
            return if *known == got { Ok(()) } else { complain(format!("it was {} before", show(*known))) };
        }
        if let Some(known) = self.back.get(&got) {
            return complain(format!("ours stood for {} before", show(*known)));
        }
        let order = |neighbour: Option<(&u64, &u64)>, below: bool| match neighbour {
            Some((recorded, ours)) if (*ours < got) != below => {
                Some(format!("another order than {} and {}", show(*recorded), show(*ours)))
            }
            _ => None,
        };
        let problem = order(self.forth.range(..expected).next_back(), true);
        if let Some(problem) = problem.or_else(|| order(self.forth.range(expected..).next(), false)) {
            return complain(problem);
        }
        for (offset, what) in [(0, "the beginning of a segment"), (0x28, "the first record of a segment")] {
            if (expected % SEGMENT == offset) != (got % SEGMENT == offset) {
                return complain(format!("only one is {what}"));
            }
        }
        self.forth.insert(expected, got);
        self.back.insert(got, expected);
        Ok(())
    }

    /// What our client says where the recorded one said `expected`.
    pub(crate) fn translate(&self, expected: u64) -> u64 {
        if let Some(known) = self.forth.get(&expected) {
            return *known;
        }
        let below = self.forth.range(..expected).next_back();
        let Some((recorded, ours)) = below.or_else(|| self.forth.iter().find(|(recorded, _)| **recorded > 0)) else {
            return expected;
        };
        if *recorded == 0 {
            return expected;
        }
        let same_segment = recorded / SEGMENT == expected / SEGMENT && !expected.is_multiple_of(SEGMENT);
        let shift = |position: u64| if same_segment { position } else { position / SEGMENT * SEGMENT };
        expected.wrapping_add(shift(*ours)).wrapping_sub(shift(*recorded))
    }

    /// A command of the client in which positions stand.
    pub(crate) fn translate_text(&self, text: &str) -> String {
        let word = |word: &str| lsn(word).map_or_else(|| word.to_owned(), |lsn| show(self.translate(lsn)));
        words(text).into_iter().map(word).collect()
    }
}

/// Attributes of SCRAM messages: nonces, salts, proofs and signatures are as long as the recorded ones.
fn scram(expected: &str, got: &str) -> Result<(), String> {
    let attributes = |text: &str| {
        let one = |attribute: &str| match attribute.split_once('=') {
            Some((name @ ("r" | "s" | "v"), value)) => format!("{name}={}", "*".repeat(value.len())),
            _ => attribute.to_owned(),
        };
        text.split(',').map(one).collect::<Vec<_>>().join(",")
    };
    let (expected, got) = (attributes(expected), attributes(got));
    if expected == got { Ok(()) } else { Err(format!("{got} instead of {expected}")) }
}

/// Splits a text into words and what stands between them.
fn words(text: &str) -> Vec<&str> {
    let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/' || byte >= 0x80;
    let mut words = Vec::new();
    let mut begin = 0;
    for (at, pair) in text.as_bytes().windows(2).enumerate() {
        if in_word(pair[0]) != in_word(pair[1]) {
            words.push(&text[begin..=at]);
            begin = at + 1;
        }
    }
    words.push(&text[begin..]);
    words
}

/// A position as `%X/%X`.
fn lsn(word: &str) -> Option<u64> {
    let (high, low) = word.split_once('/')?;
    let half = |text: &str| {
        let hexadecimal = text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        if hexadecimal && !text.is_empty() { u32::from_str_radix(text, 16).ok() } else { None }
    };
    Some(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

/// The first valid position in a text.
pub(crate) fn first_lsn(text: &str) -> Option<u64> {
    words(text).into_iter().filter_map(lsn).find(|lsn| *lsn > 0)
}

fn show(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

/// The timeline and the first position of a WAL segment by the name of its file.
fn wal_file(word: &str) -> Option<(u64, u64)> {
    if word.len() != 24 || !word.is_ascii() {
        return None;
    }
    let part = |at: usize| u64::from_str_radix(&word[at..at + 8], 16).ok();
    Some((part(0)?, (part(8)? << 32) + part(16)? * SEGMENT))
}

/// A file of a relation: which ones there are, and their names, is the cluster's own business.
fn is_relation(word: &str) -> bool {
    let path = word.strip_prefix('/').unwrap_or(word);
    path.strip_prefix("base/").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/'))
}
