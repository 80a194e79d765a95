//! Values of options, in `pg_basebackup`'s spellings and with its messages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::lsn::Lsn;

use crate::options::{Deadlines, SyncMethod, WalMethod};

/// `-F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Tar,
}

/// `-c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Checkpoint {
    pub(in crate::cli) fast: bool,
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "p" | "plain" => Ok(Format::Plain),
        "t" | "tar" => Ok(Format::Tar),
        _ => Err(format!("invalid output format \"{text}\", must be \"plain\" or \"tar\"")),
    }
}

/// The start position of a backup.
pub(super) fn lsn(text: &str) -> Result<Lsn, String> {
    let lsn: Lsn = text.parse().map_err(|_| format!("could not parse start position \"{text}\""))?;
    if lsn.is_invalid() { Err("start position must not be 0/0".to_owned()) } else { Ok(lsn) }
}

pub(super) fn wal_method(text: &str) -> Result<WalMethod, String> {
    match text {
        "n" | "none" => Ok(WalMethod::None),
        "f" | "fetch" => Ok(WalMethod::Fetch),
        "s" | "stream" => Ok(WalMethod::Stream),
        _ => Err(format!("invalid wal-method option \"{text}\", must be \"fetch\", \"stream\", or \"none\"")),
    }
}

pub(in crate::cli) fn checkpoint(text: &str) -> Result<Checkpoint, String> {
    match text.to_ascii_lowercase().as_str() {
        "fast" => Ok(Checkpoint { fast: true }),
        "spread" => Ok(Checkpoint { fast: false }),
        _ => Err(format!("invalid checkpoint argument \"{text}\", must be \"fast\" or \"spread\"")),
    }
}

pub(in crate::cli) fn checksums(text: &str) -> Result<ChecksumAlgorithm, String> {
    text.parse().map_err(|_| format!("unrecognized checksum algorithm: \"{text}\""))
}

/// A rate in kB/s, or with a suffix in kB/s (`k`) or MB/s (`M`).
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("transfer rate \"{text}\" is not a valid value"))?;
    let kilobytes = match unit.trim() {
        "" | "k" => number,
        "M" => number * 1024.0,
        unit => return Err(format!("invalid --max-rate unit: \"{unit}\"")),
    };
    if kilobytes <= 0.0 {
        return Err("transfer rate must be greater than zero".to_owned());
    }
    // What is left is a number of at most seven digits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    if (32.0..=1_048_576.0).contains(&kilobytes) {
        Ok(kilobytes as u32)
    } else {
        Err(format!("transfer rate \"{text}\" is out of range"))
    }
}

/// A size in bytes, or with a suffix in binary multiples.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("invalid --max-size unit: \"{unit}\"")),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).filter(|size| *size > 0);
    size.ok_or_else(|| format!("invalid value \"{text}\" for option --max-size"))
}

/// `OLDDIR=NEWDIR`; `\=` is an equals sign in a name.
pub(in crate::cli) fn tablespace_mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let mut sides = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '=' {
            sides.push(String::new());
            continue;
        }
        let c = if c == '\\' { chars.next_if_eq(&'=').unwrap_or(c) } else { c };
        if let Some(side) = sides.last_mut() {
            side.push(c);
        }
    }
    match sides.as_slice() {
        [_, _, _, ..] => Err("multiple \"=\" signs in tablespace mapping".to_owned()),
        [old, new] if !old.is_empty() && !new.is_empty() => {
            for (which, side) in [("old", old), ("new", new)] {
                if !Path::new(side).is_absolute() {
                    return Err(format!("{which} directory is not an absolute path in tablespace mapping: {side}"));
                }
            }
            Ok((PathBuf::from(old), PathBuf::from(new)))
        }
        _ => Err(format!("invalid tablespace mapping format \"{text}\", must be \"OLDDIR=NEWDIR\"")),
    }
}

/// `-t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupTarget {
    pub(super) name: String,
    pub(super) detail: Option<String>,
}

impl BackupTarget {
    /// The target that stands for none.
    pub(super) fn client() -> Self {
        Self { name: "client".to_owned(), detail: None }
    }
}

/// `TARGET[:DETAIL]`, which the server judges.
#[expect(clippy::unnecessary_wraps, reason = "a parser of values")]
pub(super) fn target(text: &str) -> Result<BackupTarget, String> {
    Ok(match text.split_once(':') {
        Some((name, detail)) => BackupTarget { name: name.to_owned(), detail: Some(detail.to_owned()) },
        None => BackupTarget { name: text.to_owned(), detail: None },
    })
}

pub(in crate::cli) fn sync_method(text: &str) -> Result<SyncMethod, String> {
    match text {
        "fsync" => Ok(SyncMethod::Fsync),
        "syncfs" => Ok(SyncMethod::Syncfs),
        _ => Err(format!("unrecognized sync method: {text}")),
    }
}

/// A phase with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Waiting {
    Connect,
    Checkpoint,
    Data,
    Finish,
    WalSilence,
    WalEnd,
}

impl Waiting {
    /// Its deadline.
    pub(in crate::cli) fn place(self, deadlines: &mut Deadlines) -> &mut Option<Duration> {
        match self {
            Self::Connect => &mut deadlines.connect,
            Self::Checkpoint => &mut deadlines.checkpoint,
            Self::Data => &mut deadlines.data,
            Self::Finish => &mut deadlines.finish,
            Self::WalSilence => &mut deadlines.wal_silence,
            Self::WalEnd => &mut deadlines.wal_end,
        }
    }
}

/// `PHASE=SECONDS`.
pub(in crate::cli) fn deadline(text: &str) -> Result<(Waiting, Duration), String> {
    let invalid = || {
        format!(
            "invalid deadline \"{text}\", must be \"PHASE=SECONDS\" with one of the phases connect, checkpoint, data, \
             finish, wal-silence, wal-end"
        )
    };
    let (phase, seconds) = text.split_once('=').ok_or_else(invalid)?;
    let phase = match phase {
        "connect" => Waiting::Connect,
        "checkpoint" => Waiting::Checkpoint,
        "data" => Waiting::Data,
        "finish" => Waiting::Finish,
        "wal-silence" => Waiting::WalSilence,
        "wal-end" => Waiting::WalEnd,
        _ => return Err(invalid()),
    };
    let seconds: u32 = seconds.parse().map_err(|_| invalid())?;
    Ok((phase, Duration::from_secs(seconds.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(rate("32"), Ok(32));
        assert_eq!(rate("32k"), Ok(32));
        assert_eq!(rate("32M"), Ok(32768));
        assert_eq!(rate("0.5M"), Ok(512));
        assert_eq!(rate("1M1"), Err("invalid --max-rate unit: \"M1\"".to_owned()));
        for text in ["", "x", "31", "0", "1025M", "1.2.3", "-5", "99999999999999999999"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn mappings_have_two_sides() {
        let pair = |old: &str, new: &str| Ok((PathBuf::from(old), PathBuf::from(new)));
        assert_eq!(tablespace_mapping("/a=/b"), pair("/a", "/b"));
        assert_eq!(tablespace_mapping(r"/a\=x=/b\=y"), pair("/a=x", "/b=y"));
        insta::assert_debug_snapshot!(["=/b", "/a=", "/a", "/a=/b=/c", "a=/b", "/a=b"].map(|text| tablespace_mapping(text).unwrap_err()), @r#"
        [
            "invalid tablespace mapping format \"=/b\", must be \"OLDDIR=NEWDIR\"",
            "invalid tablespace mapping format \"/a=\", must be \"OLDDIR=NEWDIR\"",
            "invalid tablespace mapping format \"/a\", must be \"OLDDIR=NEWDIR\"",
            "multiple \"=\" signs in tablespace mapping",
            "old directory is not an absolute path in tablespace mapping: a",
            "new directory is not an absolute path in tablespace mapping: b",
        ]
        "#);
    }

    #[test]
    fn deadlines_name_their_phase() {
        assert_eq!(deadline("wal-end=5"), Ok((Waiting::WalEnd, Duration::from_secs(5))));
        assert!(deadline("wal=5").is_err());
        assert!(deadline("data=-5").is_err());
    }
}
