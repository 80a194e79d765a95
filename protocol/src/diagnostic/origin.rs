//! Where in PostgreSQL's source a message is raised: fields `F`, `L` and `R` of ErrorResponse and NoticeResponse.

use super::Severity;
use super::origins::ROWS;
use crate::version::ServerVersion;

/// The file, line and routine that raise a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Field `F`: the name of the file without its directory.
    pub file: &'static str,
    /// Field `L`: from the last minor release at the time of the recordings; 1 where none was recorded.
    pub line: u16,
    /// Field `R`: the C function.
    pub routine: &'static str,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// The message's text; `*` stands for anything.
    pattern: &'static str,
    /// Whether it is raised there as a FATAL only.
    fatal: bool,
    file: &'static str,
    routine: &'static str,
    /// Lines in 12 to 18; 0: not raised there in that release, or not recorded.
    lines: [u16; RELEASES.len()],
}

/// The releases of the table's columns.
const RELEASES: [ServerVersion; 7] = {
    use ServerVersion::{V12, V13, V14, V15, V16, V17, V18};
    [V12, V13, V14, V15, V16, V17, V18]
};

pub(super) const fn row(
    pattern: &'static str,
    file: &'static str,
    routine: &'static str,
    lines: [u16; RELEASES.len()],
) -> Row {
    Row { pattern, fatal: false, file, routine, lines }
}

/// A row for messages that end the session.
pub(super) const fn fatal(
    pattern: &'static str,
    file: &'static str,
    routine: &'static str,
    lines: [u16; RELEASES.len()],
) -> Row {
    Row { fatal: true, ..row(pattern, file, routine, lines) }
}

impl Origin {
    /// What is said of a message that the table does not know: the walsender's main function.
    const UNKNOWN: Self = Self { file: "walsender.c", line: 1, routine: "exec_replication_command" };

    /// Where `version` raises `message`. Releases before 12, of which there are no recordings, answer as 12; a message that
    /// was not recorded of a release has the origin of the nearest release of which it was. Where several routines say the
    /// same, `raised_in` is a part of the name of one.
    pub fn of(version: ServerVersion, severity: Severity, message: &str, raised_in: Option<&str>) -> Self {
        let column = RELEASES.iter().rposition(|release| *release <= version).unwrap_or(0);
        let mut nearest: Option<(usize, &Row, usize)> = None;
        let mut pattern = None;
        for row in &ROWS {
            // Rows of one pattern follow each other, and the first pattern that fits counts.
            if pattern.is_some_and(|(found, fatal)| (found, fatal) != (row.pattern, row.fatal)) {
                break;
            }
            if raised_in.is_some_and(|part| !row.routine.contains(part)) {
                continue;
            }
            if (row.fatal && severity != Severity::Fatal) || !fits(row.pattern, message) {
                continue;
            }
            pattern = Some((row.pattern, row.fatal));
            let known = row.lines.iter().enumerate().filter(|(_, line)| **line != 0);
            for (release, _) in known {
                let distance = release.abs_diff(column);
                if nearest.is_none_or(|(least, ..)| distance < least) {
                    nearest = Some((distance, row, release));
                }
            }
        }
        nearest.map_or(Self::UNKNOWN, |(_, row, release)| Self {
            file: row.file,
            line: row.lines[release],
            routine: row.routine,
        })
    }
}

/// Whether `text` is as `pattern` says, in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(piece) = last.replace(piece) {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        assert!(fits("slot \"*\" is active for PID *", "slot \"a\" is active for PID 12"));
        assert!(fits("*checksum*", "8 total checksum failures"));
        assert!(fits("a * b", "a  b"));
        assert!(!fits("a * b", "a b"));
        assert!(!fits("abc", "abcd"));
        assert!(!fits("ab*ba", "aba"));
    }

    #[test]
    fn a_routine_that_was_renamed_or_moved_has_its_old_name_in_old_releases() {
        let origin = |version, message| {
            let origin = Origin::of(version, Severity::Error, message, None);
            format!("{} {}", origin.file, origin.routine)
        };
        let missing = "replication slot \"x\" does not exist";
        assert_eq!(origin(ServerVersion::V12, missing), "slot.c ReplicationSlotAcquire");
        assert_eq!(origin(ServerVersion::V13, missing), "slot.c ReplicationSlotAcquireInternal");
        assert_eq!(origin(ServerVersion::V18, missing), "slot.c ReplicationSlotAcquire");
        let starting = "the database system is starting up";
        assert_eq!(origin(ServerVersion::V16, starting), "postmaster.c ProcessStartupPacket");
        // Of 18 it was not recorded.
        assert_eq!(origin(ServerVersion::V18, starting), "backend_startup.c BackendInitialize");
        assert_eq!(origin(ServerVersion::V9_1, starting), "postmaster.c ProcessStartupPacket");
    }

    #[test]
    fn a_setting_that_is_unknown_at_start_up_has_an_origin_of_its_own() {
        let origin = |severity| {
            Origin::of(ServerVersion::V18, severity, "unrecognized configuration parameter \"x\"", None).routine
        };
        assert_eq!(origin(Severity::Fatal), "assignable_custom_variable_name");
        assert_eq!(origin(Severity::Error), "find_option");
    }

    #[test]
    fn two_commands_say_the_same_of_an_option() {
        let message = "unrecognized option: bogus";
        let routine = |version, raised_in| Origin::of(version, Severity::Error, message, raised_in).routine;
        assert_eq!(routine(ServerVersion::V17, None), "parseCreateReplSlotOptions");
        assert_eq!(routine(ServerVersion::V17, Some("Alter")), "ParseAlterReplSlotOptions");
        assert_eq!(routine(ServerVersion::V18, Some("Alter")), "AlterReplicationSlot");
    }

    #[test]
    fn what_nobody_recorded_has_an_origin_too() {
        assert_eq!(Origin::of(ServerVersion::V15, Severity::Error, "made up", None), Origin::UNKNOWN);
    }
}
