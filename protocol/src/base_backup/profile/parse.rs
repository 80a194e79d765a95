//! Reading a profile.

use std::collections::HashSet;
use std::str::FromStr;

use super::{BackupProfile, ESCAPES, FILE_LIST, MAX_PATH, ProfileFile, TITLE};
use crate::base_backup::label::{BackupLabel, LabelProblem};
use crate::lsn::Lsn;

/// The longest line in bytes: a path of escapes, and numbers.
const MAX_LINE: usize = 2 * MAX_PATH + 100;

/// The most lines of a label.
const MAX_LABEL_LINES: usize = 12;

/// A `backup_profile` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid data in file \"backup_profile\", line {line}: {problem}")]
pub struct ProfileError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: ProfileProblem,
}

/// What is wrong with a line of a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileProblem {
    /// The first line is another one.
    #[error("expected \"POSTGRESQL BACKUP PROFILE 1\"")]
    Title,
    /// The label ends, or does not.
    #[error("could not find FILE LIST")]
    FileList,
    /// The label in its header.
    #[error("{0}")]
    Label(LabelProblem),
    /// More or less than six columns.
    #[error("expected 6 columns, separated by tabs, but found {0}")]
    Columns(usize),
    /// A column that cannot be read.
    #[error("invalid {column} \"{}\"", .value.escape_debug())]
    Column {
        /// Which.
        column: &'static str,
        /// What stands there.
        value: String,
    },
    /// A file that was left out without a reason.
    #[error("file \"{}\" was not sent, but has no LSN", .0.escape_debug())]
    NoLsn(String),
    /// A file that an earlier line has.
    #[error("file \"{}\" occurs twice", .0.escape_debug())]
    Duplicate(String),
    /// A line that goes on for longer than any valid one.
    #[error("line is too long")]
    TooLong,
    /// The last line does not end.
    #[error("last line not newline-terminated")]
    Unterminated,
}

pub(super) fn parse(bytes: &[u8]) -> Result<BackupProfile, ProfileError> {
    let mut lines = Lines { rest: bytes, line: 0 };
    if lines.next()? != Some(TITLE.as_bytes()) {
        return Err(ProfileError { line: 1, problem: ProfileProblem::Title });
    }
    let (label, label_text) = label(&mut lines)?;
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    while let Some(line) = lines.next()? {
        let file = file(line).map_err(|problem| lines.fail(problem))?;
        if !seen.insert((file.tablespace, file.path.clone())) {
            return Err(lines.fail(ProfileProblem::Duplicate(lossy(&file.path))));
        }
        files.push(file);
    }
    Ok(BackupProfile { label, label_text, files })
}

/// The label, up to and with FILE LIST.
fn label(lines: &mut Lines<'_>) -> Result<(BackupLabel, String), ProfileError> {
    let mut text = String::new();
    for _ in 0..MAX_LABEL_LINES {
        let Some(line) = lines.next()? else { break };
        if line == FILE_LIST.as_bytes() {
            let label = BackupLabel::parse(&text).map_err(|error| ProfileError {
                line: error.line + 1,
                problem: ProfileProblem::Label(error.problem),
            })?;
            return Ok((label, text));
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(lines.fail(column("backup label", line)));
        };
        text.push_str(line);
        text.push('\n');
    }
    Err(lines.fail(ProfileProblem::FileList))
}

fn file(line: &[u8]) -> Result<ProfileFile, ProfileProblem> {
    let columns: Vec<&[u8]> = line.splitn(8, |&byte| byte == b'\t').collect();
    let [tablespace, lsn, sent, modified, size, path] = columns[..] else {
        return Err(ProfileProblem::Columns(columns.len()));
    };
    let file = ProfileFile {
        tablespace: or_null("tablespace", tablespace, |text| digits(text).filter(|&oid: &u32| oid != 0))?,
        lsn: or_null("LSN", lsn, |text| text.parse().ok().filter(|lsn: &Lsn| lsn.to_string() == text))?,
        sent: match sent {
            b"t" => true,
            b"f" => false,
            other => return Err(column("mark of a file that was sent", other)),
        },
        modified: value("time", modified, |text| {
            let (sign, number) = text.strip_prefix('-').map_or((1, text), |number| (-1, number));
            Some(sign * digits::<i64>(number)?)
        })?,
        size: value("size", size, |text| digits(text).filter(|&size: &u64| i64::try_from(size).is_ok()))?,
        path: unescaped(path).filter(|path| stays_inside(path)).ok_or_else(|| column("path", path))?,
    };
    let reason = file.lsn.filter(|lsn| !lsn.is_invalid());
    if !file.sent && reason.is_none() {
        return Err(ProfileProblem::NoLsn(lossy(&file.path)));
    }
    Ok(file)
}

fn column(column: &'static str, value: &[u8]) -> ProfileProblem {
    ProfileProblem::Column { column, value: lossy(value) }
}

fn value<T>(name: &'static str, bytes: &[u8], read: impl FnOnce(&str) -> Option<T>) -> Result<T, ProfileProblem> {
    std::str::from_utf8(bytes).ok().and_then(read).ok_or_else(|| column(name, bytes))
}

fn or_null<T>(
    name: &'static str,
    bytes: &[u8],
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ProfileProblem> {
    if bytes == b"\\N" { Ok(None) } else { value(name, bytes, read).map(Some) }
}

/// A number in plain digits, without sign or zeroes in front.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn unescaped(path: &[u8]) -> Option<Vec<u8>> {
    let mut literal = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        // What has an escape stands there as one.
        if byte != b'\\' {
            let plain = ESCAPES.iter().all(|escape| escape.1 != byte);
            literal.push(plain.then_some(byte)?);
            continue;
        }
        let letter = bytes.next()?;
        literal.push(ESCAPES.iter().find(|escape| escape.0 == letter)?.1);
    }
    Some(literal)
}

/// Whether a path names something below its directory, in one way only.
fn stays_inside(path: &[u8]) -> bool {
    let sound = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.len() <= MAX_PATH && path.split(|&byte| byte == b'/').all(sound)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines that were not read yet.
struct Lines<'a> {
    rest: &'a [u8],
    /// Of the line read last, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    fn fail(&self, problem: ProfileProblem) -> ProfileError {
        ProfileError { line: self.line, problem }
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, ProfileError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        // Within the bound, look for the end: a file without newlines is not searched through.
        let end = self.rest.iter().take(MAX_LINE).position(|&byte| byte == b'\n');
        let Some((line, rest)) = end.and_then(|end| Some((self.rest.get(..end)?, self.rest.get(end + 1..)?))) else {
            let whole = self.rest.len() < MAX_LINE;
            return Err(self.fail(if whole { ProfileProblem::Unterminated } else { ProfileProblem::TooLong }));
        };
        self.rest = rest;
        Ok(Some(line))
    }
}
