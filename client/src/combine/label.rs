//! `backup_label` as `pg_combinebackup` reads it: the lines that make a chain, whatever else stands there.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

const START: &str = "START WAL LOCATION";
const TIMELINE: &str = "START TIMELINE";
const FROM_LSN: &str = "INCREMENTAL FROM LSN";
const FROM_TLI: &str = "INCREMENTAL FROM TLI";

/// Where a backup starts, and which start it builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainLabel {
    pub(super) start: (TimelineId, Lsn),
    pub(super) from: Option<(TimelineId, Lsn)>,
}

/// The value of a line, with its end if it has one.
fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.strip_prefix(name.as_bytes())?.strip_prefix(b": ")
}

/// A position, and what follows it.
fn position(value: &[u8]) -> Option<(Lsn, &[u8])> {
    let length = value.iter().take_while(|byte| byte.is_ascii_hexdigit() || **byte == b'/').count();
    let (digits, rest) = value.split_at(length);
    Some((str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// A timeline and nothing else before the end of the line.
fn timeline(value: &[u8]) -> Option<u32> {
    let digits = value.strip_suffix(b"\n")?;
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

impl ChainLabel {
    /// Reads a label; the error is what `pg_combinebackup` says behind the file's name.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let (mut start, mut tli, mut from_lsn, mut from_tli) = (None, None, None, None);
        let located = |value, name, terminator| match position(value) {
            None => Err(format!("could not parse {name}")),
            Some((lsn, rest)) if rest.first() == Some(&terminator) => Ok(lsn),
            Some(_) => Err(format!("improper terminator for {name}")),
        };
        let numbered = |value, problem: String| match timeline(value) {
            None => Err(problem),
            Some(0) => Err("invalid TLI".to_owned()),
            Some(number) => Ok(TimelineId(number)),
        };
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if let Some(value) = value(line, START) {
                start = Some(located(value, START, b' ')?);
            } else if let Some(value) = value(line, TIMELINE) {
                tli = Some(numbered(value, format!("could not parse TLI for {TIMELINE}"))?);
            } else if let Some(value) = value(line, FROM_LSN) {
                from_lsn = Some(located(value, FROM_LSN, b'\n')?);
            } else if let Some(value) = value(line, FROM_TLI) {
                from_tli = Some(numbered(value, format!("could not parse {FROM_TLI}"))?);
            }
        }
        let start = start.ok_or_else(|| format!("could not find {START}"))?;
        let tli = tli.ok_or_else(|| format!("could not find {TIMELINE}"))?;
        let from = match (from_tli, from_lsn) {
            (None, None) => None,
            (Some(tli), Some(lsn)) => Some((tli, lsn)),
            (None, Some(_)) => return Err(format!("{FROM_LSN} requires {FROM_TLI}")),
            (Some(_), None) => return Err(format!("{FROM_TLI} requires {FROM_LSN}")),
        };
        Ok(Self { start: (tli, start), from })
    }
}

/// The label of the output: without the lines that make the backup an incremental one.
pub(super) fn of_full_backup(content: &[u8]) -> Vec<u8> {
    let incremental = |line: &&[u8]| value(line, FROM_LSN).is_some() || value(line, FROM_TLI).is_some();
    content.split_inclusive(|byte| *byte == b'\n').filter(|line| !incremental(line)).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\nLABEL: x\nSTART TIMELINE: 1\n";
    const FROM: &str = "INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n";

    #[test]
    fn reads_what_makes_a_chain() {
        let full = ChainLabel { start: (TimelineId(1), Lsn(0x300_0028)), from: None };
        assert_eq!(ChainLabel::parse(LABEL.as_bytes()), Ok(full));
        let incremental = [LABEL, FROM].concat();
        let from = Some((TimelineId(1), Lsn(0x200_0028)));
        assert_eq!(ChainLabel::parse(incremental.as_bytes()), Ok(ChainLabel { from, ..full }));
        assert_eq!(of_full_backup(incremental.as_bytes()), LABEL.as_bytes());
    }

    #[test]
    fn refuses_in_postgresqls_words() {
        let changes = [
            ("0/3000028 (", "x ("),
            ("0/3000028 (", "0/3000028("),
            ("START WAL", "STOP WAL"),
            ("START TIMELINE: 1", "START TIMELINE: one"),
            ("START TIMELINE: 1", "START TIMELINE: 0"),
            ("START TIMELINE", "END TIMELINE"),
            ("FROM LSN: 0", "FROM LSN: -"),
            ("0/2000028\n", "0/2000028 \n"),
            ("TLI: 1\n", "TLI: 1"),
            ("TLI: 1", "TLI: 00"),
            ("INCREMENTAL FROM LSN", "X"),
            ("INCREMENTAL FROM TLI", "X"),
        ];
        let texts = changes
            .map(|(old, new)| ChainLabel::parse([LABEL, FROM].concat().replace(old, new).as_bytes()).unwrap_err());
        insta::assert_snapshot!(texts.join("\n"), @r"
        could not parse START WAL LOCATION
        improper terminator for START WAL LOCATION
        could not find START WAL LOCATION
        could not parse TLI for START TIMELINE
        invalid TLI
        could not find START TIMELINE
        could not parse INCREMENTAL FROM LSN
        improper terminator for INCREMENTAL FROM LSN
        could not parse INCREMENTAL FROM TLI
        invalid TLI
        INCREMENTAL FROM TLI requires INCREMENTAL FROM LSN
        INCREMENTAL FROM LSN requires INCREMENTAL FROM TLI
        ");
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(noise: Vec<u8>, at in 0_usize..200) {
            let _ = ChainLabel::parse(&noise);
            let mut label = [LABEL, FROM].concat().into_bytes();
            let at = at.min(label.len());
            label.splice(at..at, noise);
            let _ = ChainLabel::parse(&label);
        }
    }
}
