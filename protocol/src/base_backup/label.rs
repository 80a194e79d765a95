//! `backup_label`: where recovery of a backup must begin.

use std::fmt::Write;
use std::str::FromStr;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::ServerVersion;
use crate::wal_file::WalFileName;

/// The longest label in bytes, `MAXPGPATH`: `backup label too long (max 1024 bytes)`.
pub const MAX_LABEL: usize = 1024;

/// The longest line that is looked at, in bytes.
const MAX_LINE: usize = MAX_LABEL + 32;

/// What kind of server a backup was taken from: the line `BACKUP FROM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSource {
    /// `primary`; `master` up to 13.
    Primary,
    /// `standby`.
    Standby,
}

/// The content of `backup_label`, as `build_backup_content` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay must start: the redo position of the backup's checkpoint.
    pub start: Lsn,
    /// The segment that holds it.
    pub start_file: WalFileName,
    /// Where that checkpoint's record stands.
    pub checkpoint: Lsn,
    /// The start of the backup that this one builds on, file by file: the proof of concept of 2014. Not to be confused with
    /// [`incremental_from`](Self::incremental_from).
    pub incremental_from_location: Option<Lsn>,
    /// `streamed`; `pg_start_backup` for an exclusive backup (up to 14).
    pub method: String,
    /// What the server was. Servers of 9.1 do not say and are primaries.
    pub from: LabelSource,
    /// When the backup began, in the server's `log_timezone`: `2026-11-21 01:40:58 UTC`.
    pub start_time: String,
    /// What the client called the backup, at most [`MAX_LABEL`] bytes.
    pub label: String,
    /// The timeline that it began on (since 11).
    pub timeline: Option<TimelineId>,
    /// The start of the backup that this incremental one builds on (since 17).
    pub incremental_from: Option<(Lsn, TimelineId)>,
}

/// A `backup_label` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid data in file \"backup_label\", line {line}: {problem}")]
pub struct LabelError {
    /// From 1; the line after the last for what is missing at the end.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LabelProblem,
}

/// What is wrong with a line of a label. Where `pg_combinebackup` has a text, it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelProblem {
    /// Another line, or none, where this one has to stand.
    #[error("could not find {0}")]
    Missing(&'static str),
    /// The line is there, its value is not valid.
    #[error("could not parse {0}")]
    Invalid(&'static str),
    /// One of the two lines of an incremental backup without the other.
    #[error("{0} requires {1}")]
    Requires(&'static str, &'static str),
    /// START TIMELINE and the name of the start file differ (`read_backup_label`).
    #[error("timeline ID parsed is {parsed}, but expected {expected}")]
    Timeline {
        /// In START TIMELINE.
        parsed: TimelineId,
        /// In the file name of START WAL LOCATION.
        expected: TimelineId,
    },
    /// A line that goes on for longer than any valid one.
    #[error("line is too long")]
    TooLong,
    /// The last line does not end.
    #[error("last line not newline-terminated")]
    Unterminated,
    /// Lines behind the last one.
    #[error("unexpected line")]
    Unexpected,
}

const START: &str = "START WAL LOCATION";
const CHECKPOINT: &str = "CHECKPOINT LOCATION";
const FROM_LOCATION: &str = "INCREMENTAL FROM LOCATION";
const METHOD: &str = "BACKUP METHOD";
const FROM: &str = "BACKUP FROM";
const TIME: &str = "START TIME";
const LABEL: &str = "LABEL";
const TIMELINE: &str = "START TIMELINE";
const FROM_LSN: &str = "INCREMENTAL FROM LSN";
const FROM_TLI: &str = "INCREMENTAL FROM TLI";

impl BackupLabel {
    /// Reads a label. The lines must stand in the order in which servers write them, with nothing between or behind.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let mut lines = Lines { rest: text, line: 0 };
        let (start, start_file) = lines.required(START, |value| {
            let (lsn, file) = value.strip_suffix(')')?.split_once(" (file ")?;
            Some((lsn.parse().ok()?, file.parse::<WalFileName>().ok()?))
        })?;
        let checkpoint = lines.required(CHECKPOINT, parsed)?;
        let incremental_from_location = lines.optional(FROM_LOCATION, parsed)?;
        let method = lines.required(METHOD, |value| {
            let method = ["streamed", "pg_start_backup"].into_iter().find(|method| *method == value);
            method.map(str::to_owned)
        })?;
        let from = lines.optional(FROM, |value| match value {
            "primary" | "master" => Some(LabelSource::Primary),
            "standby" => Some(LabelSource::Standby),
            _ => None,
        })?;
        let start_time = lines.required(TIME, |value| (!value.is_empty()).then(|| value.to_owned()))?;
        let label = lines.required(LABEL, |value| (value.len() <= MAX_LABEL).then(|| value.to_owned()))?;
        let timeline = lines.optional(TIMELINE, timeline)?;
        if let Some(parsed) = timeline
            && parsed != start_file.timeline
        {
            return Err(lines.fail(LabelProblem::Timeline { parsed, expected: start_file.timeline }));
        }
        let from_lsn = lines.optional(FROM_LSN, parsed)?;
        let from_tli = lines.optional(FROM_TLI, self::timeline)?;
        let incremental_from = match (from_lsn, from_tli) {
            (Some(lsn), Some(tli)) => Some((lsn, tli)),
            (None, None) => None,
            (Some(_), None) => return Err(lines.fail(LabelProblem::Requires(FROM_LSN, FROM_TLI))),
            (None, Some(_)) => return Err(lines.fail(LabelProblem::Requires(FROM_TLI, FROM_LSN))),
        };
        if !lines.rest.is_empty() {
            lines.line += 1;
            return Err(lines.fail(LabelProblem::Unexpected));
        }
        Ok(Self {
            start,
            start_file,
            checkpoint,
            incremental_from_location,
            method,
            from: from.unwrap_or(LabelSource::Primary),
            start_time,
            label,
            timeline,
            incremental_from,
        })
    }

    /// The file as a server of `version` writes it: what that release does not know is left out.
    pub fn to_text(&self, version: ServerVersion) -> String {
        let mut text = String::new();
        let mut line = |name, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        };
        line(START, &format_args!("{} (file {})", self.start, self.start_file));
        line(CHECKPOINT, &self.checkpoint);
        if let Some(location) = self.incremental_from_location {
            line(FROM_LOCATION, &location);
        }
        line(METHOD, &self.method);
        if version.label_has_source() {
            let standby = self.from == LabelSource::Standby;
            line(FROM, &if standby { "standby" } else { version.label_primary() });
        }
        line(TIME, &self.start_time);
        line(LABEL, &self.label);
        if let Some(timeline) = self.timeline
            && version.label_has_timeline()
        {
            line(TIMELINE, &timeline);
        }
        if let Some((lsn, tli)) = self.incremental_from
            && version.has_incremental()
        {
            line(FROM_LSN, &lsn);
            line(FROM_TLI, &tli);
        }
        text
    }
}

fn parsed<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

/// A timeline number: plain digits, not zero.
fn timeline(value: &str) -> Option<TimelineId> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|&number| plain && number > 0).map(TimelineId)
}

/// The lines that were not read yet.
struct Lines<'a> {
    rest: &'a str,
    /// Of the line read last, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    fn fail(&self, problem: LabelProblem) -> LabelError {
        LabelError { line: self.line, problem }
    }

    /// The value of the next line, if that is `name`'s.
    fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, LabelError> {
        let Some(after) = self.rest.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")) else {
            return Ok(None);
        };
        self.line += 1;
        // Within the bound, look for the end: a file without newlines is not searched through.
        let end = after.bytes().take(MAX_LINE).position(|byte| byte == b'\n');
        let Some((value, rest)) = end.and_then(|end| Some((after.get(..end)?, after.get(end + 1..)?))) else {
            let whole = after.len() < MAX_LINE;
            return Err(self.fail(if whole { LabelProblem::Unterminated } else { LabelProblem::TooLong }));
        };
        self.rest = rest;
        let clean = !value.contains('\0');
        let value = parse(value).filter(|_| clean).ok_or_else(|| self.fail(LabelProblem::Invalid(name)))?;
        Ok(Some(value))
    }

    fn required<T>(&mut self, name: &'static str, parse: impl FnOnce(&'a str) -> Option<T>) -> Result<T, LabelError> {
        match self.optional(name, parse)? {
            Some(value) => Ok(value),
            None => Err(LabelError { line: self.line + 1, problem: LabelProblem::Missing(name) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V12: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
CHECKPOINT LOCATION: 0/3000060
BACKUP METHOD: streamed
BACKUP FROM: master
START TIME: 2026-11-21 01:46:49 UTC
LABEL: cap full
START TIMELINE: 1
";
    const V18: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
CHECKPOINT LOCATION: 0/3000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-21 01:49:34 UTC
LABEL: cap full
START TIMELINE: 1
";
    const INCREMENTAL: &str = "INCREMENTAL FROM LSN: 0/27000028\nINCREMENTAL FROM TLI: 1\n";

    #[test]
    fn reads_and_writes_recorded_labels() {
        use ServerVersion as V;
        let standby = V18.replace("primary", "standby");
        let incremental = V18.to_owned() + INCREMENTAL;
        let recorded = [
            (V12, V::V12),
            (V12, V::V13),
            (V18, V::V14),
            (V18, V::V18),
            (&standby, V::V12),
            (&standby, V::V18),
            (&incremental, V::V17),
        ];
        for (text, version) in recorded {
            let label = BackupLabel::parse(text).unwrap();
            assert_eq!(label.to_text(version), text);
            assert_eq!((label.start, label.timeline), (Lsn(0x300_0028), Some(TimelineId(1))));
            assert_eq!(label.label, "cap full");
        }
        let label = BackupLabel::parse(&incremental).unwrap();
        assert_eq!(label.incremental_from, Some((Lsn(0x2700_0028), TimelineId(1))));
    }

    #[test]
    fn leaves_out_what_a_release_does_not_know() {
        let label = BackupLabel::parse(&(V18.to_owned() + INCREMENTAL)).unwrap();
        insta::assert_snapshot!(label.to_text(ServerVersion::V9_1), @r"
        START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
        CHECKPOINT LOCATION: 0/3000080
        BACKUP METHOD: streamed
        START TIME: 2026-11-21 01:49:34 UTC
        LABEL: cap full
        ");
        assert!(
            label
                .to_text(ServerVersion::V10)
                .ends_with("BACKUP FROM: master\nSTART TIME: 2026-11-21 01:49:34 UTC\nLABEL: cap full\n")
        );
        let old = BackupLabel::parse(&label.to_text(ServerVersion::V9_1)).unwrap();
        assert_eq!((old.from, old.timeline, old.incremental_from), (LabelSource::Primary, None, None));
    }

    #[test]
    fn a_backup_of_2014_says_where_it_is_incremental_from() {
        let text = V12.replace("BACKUP METHOD", "INCREMENTAL FROM LOCATION: 0/2000028\nBACKUP METHOD");
        let label = BackupLabel::parse(&text).unwrap();
        assert_eq!((label.incremental_from_location, label.incremental_from), (Some(Lsn(0x200_0028)), None));
        assert_eq!(label.to_text(ServerVersion::V12), text);
        let misplaced = format!("{V12}INCREMENTAL FROM LOCATION: 0/2000028\n");
        assert_eq!(BackupLabel::parse(&misplaced).unwrap_err().problem, LabelProblem::Unexpected);
    }

    #[test]
    fn names_the_bad_line() {
        let long = V18.replace("cap full", &"x".repeat(5000));
        let texts = [
            String::new(),
            "\n".to_owned() + V18,
            V18.replace("START WAL", "STOP WAL"),
            V18.replace("0/3000028", "0/300002800"),
            V18.replace("000000010000000000000003", &"0".repeat(5000)),
            V18.replace(" (file 000000010000000000000003)", ""),
            V18.replace("03)", "03"),
            V18.replace("CHECKPOINT LOCATION: ", "CHECKPOINT LOCATION:"),
            V18.replace("streamed", "guessed"),
            V18.replace("primary", "elsewhere"),
            V18.replace("2026-11-21 01:49:34 UTC", ""),
            V18.replace("LABEL: cap full\n", ""),
            V18.replace("cap full", "cap\nfull"),
            V18.replace('\n', "\r\n"),
            V18.replace("cap full", &"x".repeat(MAX_LABEL + 1)),
            long,
            V18.replace("TIMELINE: 1", "TIMELINE: 2"),
            V18.replace("TIMELINE: 1", "TIMELINE: +1"),
            V18.replace("TIMELINE: 1", "TIMELINE: 0"),
            V18.replace("TIMELINE: 1", "TIMELINE: 4294967297"),
            V18.trim_end().to_owned(),
            V18.to_owned() + "INCREMENTAL FROM LSN: 0/27000028\n",
            V18.to_owned() + "INCREMENTAL FROM TLI: 1\n",
            V18.to_owned() + INCREMENTAL + INCREMENTAL,
            V18.to_owned() + "\n",
        ];
        let refusals = texts.map(|text| BackupLabel::parse(&text).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        invalid data in file "backup_label", line 1: could not find START WAL LOCATION
        invalid data in file "backup_label", line 1: could not find START WAL LOCATION
        invalid data in file "backup_label", line 1: could not find START WAL LOCATION
        invalid data in file "backup_label", line 1: could not parse START WAL LOCATION
        invalid data in file "backup_label", line 1: line is too long
        invalid data in file "backup_label", line 1: could not parse START WAL LOCATION
        invalid data in file "backup_label", line 1: could not parse START WAL LOCATION
        invalid data in file "backup_label", line 2: could not find CHECKPOINT LOCATION
        invalid data in file "backup_label", line 3: could not parse BACKUP METHOD
        invalid data in file "backup_label", line 4: could not parse BACKUP FROM
        invalid data in file "backup_label", line 5: could not parse START TIME
        invalid data in file "backup_label", line 6: could not find LABEL
        invalid data in file "backup_label", line 7: unexpected line
        invalid data in file "backup_label", line 1: could not parse START WAL LOCATION
        invalid data in file "backup_label", line 6: could not parse LABEL
        invalid data in file "backup_label", line 6: line is too long
        invalid data in file "backup_label", line 7: timeline ID parsed is 2, but expected 1
        invalid data in file "backup_label", line 7: could not parse START TIMELINE
        invalid data in file "backup_label", line 7: could not parse START TIMELINE
        invalid data in file "backup_label", line 7: could not parse START TIMELINE
        invalid data in file "backup_label", line 7: last line not newline-terminated
        invalid data in file "backup_label", line 8: INCREMENTAL FROM LSN requires INCREMENTAL FROM TLI
        invalid data in file "backup_label", line 8: INCREMENTAL FROM TLI requires INCREMENTAL FROM LSN
        invalid data in file "backup_label", line 10: unexpected line
        invalid data in file "backup_label", line 8: unexpected line
        "#);
    }

    proptest! {
        #[test]
        fn round_trips(
            positions: (u64, u64, u64), timeline in 1_u32.., base in 1_u32.., standby: bool, incremental: bool,
            by_file: bool,            label in "[^\\n\\x00]{0,60}",
        ) {
            let version = ServerVersion::V18;
            let size = crate::wal_file::WalSegmentSize::DEFAULT;
            let (start, checkpoint, from) = positions;
            let label = BackupLabel {
                start: Lsn(start),
                start_file: WalFileName::holding(TimelineId(timeline), Lsn(start), size),
                checkpoint: Lsn(checkpoint),
                incremental_from_location: by_file.then_some(Lsn(from)),
                method: "streamed".to_owned(),
                from: if standby { LabelSource::Standby } else { LabelSource::Primary },
                start_time: "2026-11-21 01:49:34 UTC".to_owned(),
                label,
                timeline: Some(TimelineId(timeline)),
                incremental_from: incremental.then_some((Lsn(from), TimelineId(base))),
            };
            prop_assert_eq!(BackupLabel::parse(&label.to_text(version)), Ok(label));
        }

        #[test]
        fn any_text_is_safe(noise in "(?s).{0,40}", at: proptest::sample::Index) {
            let mut text = V18.to_owned() + INCREMENTAL;
            let at = at.index(text.len());
            text.replace_range(at.., &noise);
            let _ = BackupLabel::parse(&text);
            let _ = BackupLabel::parse(&noise);
        }
    }
}
