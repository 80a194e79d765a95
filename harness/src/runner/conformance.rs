//! Whether a server that is not ours says what PostgreSQL of its release says: the same case is played on the mock of that release first.

use backstop_protocol::wal_file::WalSegmentSize;

use super::case_directory::CaseDirectory;
use super::{Job, RunError, Shared, execute};
use crate::arena::Arena;
use crate::oracle;
use crate::parity::{Side, differences};
use crate::record::Record;
use crate::scenario::Case;
use crate::verdict::{Check, Level, Verdict};

/// How many lines that differ are told of one case.
const MOST_TOLD: usize = 50;

/// What a case came to on the mock.
pub(super) enum Reference {
    /// The server is ours.
    NotNeeded,
    /// This was said there.
    Plays(Box<Record>),
    /// With this server's roles and settings it is another story, which says nothing.
    Fails(String),
}

/// Plays the case on the mock as this server plays it, if the server is to be compared.
pub(super) fn reference(shared: &Shared, job: &Job, seed: u64) -> Result<Reference, RunError> {
    if !matches!(shared.arena, Arena::Remote(_)) {
        return Ok(Reference::NotNeeded);
    }
    let case = shared.arena.adapted(&job.case);
    let directory = CaseDirectory::make(&case, &shared.scratch, None)?;
    let record = execute(&case, &job.subject, &Arena::MockBehindProxy, &directory, seed, &shared.cancel)?;
    let (verdict, checks) = oracle::judge(&case, &record);
    if verdict <= Verdict::Weak {
        return Ok(Reference::Plays(Box::new(record)));
    }
    let failed = checks.iter().find(|check| !check.ok);
    let failed = failed.map(|check| format!("{}: {}", check.check, check.actual)).unwrap_or_default();
    Ok(Reference::Fails(format!("with this server's user it is another story: {failed}")))
}

/// Whether both servers said the same. How their WAL lies says nothing of what they say.
pub(super) fn check(case: &Case, reference: &Record, record: &Record) -> Check {
    let size = WalSegmentSize::new(case.scenario.server.wal_segment_size.0).unwrap_or(WalSegmentSize::DEFAULT);
    let differences = differences(&reference.said, &record.said, size);
    let told = differences.iter().filter(|difference| difference.side != Side::Both);
    let lines: Vec<String> = told.map(ToString::to_string).collect();
    let more = lines.len().saturating_sub(MOST_TOLD);
    let more = (more > 0).then(|| format!("… and {more} more lines"));
    let actual = lines.iter().take(MOST_TOLD).cloned().chain(more).collect::<Vec<_>>().join("\n");
    Check {
        check: format!("the server answers as PostgreSQL {} does", case.scenario.server.version),
        expected: "no line that differs (- PostgreSQL's alone, + this server's alone)".to_owned(),
        actual: if lines.is_empty() { "no line that differs".to_owned() } else { actual },
        ok: lines.is_empty(),
        level: Level::Law,
    }
}
