//! Incremental backups, since 17: what they build on, and which files are sent by their changed blocks
//! (`basebackup_incremental.c`).

use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::incremental::IncrementalHeader;
use backstop_protocol::base_backup::manifest::{PriorBackup, WalRange};
use backstop_protocol::base_backup::relation::{Fork, RelationFile};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{BLOCK_SIZE, BLOCKS_PER_FILE};
use backstop_protocol::timeline::TimelineId;
use tokio::time::Instant;

use super::super::{Session, Stop};
use crate::cluster::{Entry, EntryKind, RunningBackup, TimelineEntry, Unsummarized};

/// How long the summarizer is waited for before something is said.
const CYCLE: Duration = Duration::from_secs(10);

/// How many cycles without any progress are enough.
const DEAD_CYCLES: u32 = 6;

/// What an incremental backup builds on.
#[derive(Clone, Debug)]
pub(super) struct Incremental {
    prior: Arc<PriorBackup>,
    /// Where the WAL begins that the backup before needs.
    since: Lsn,
}

fn refused(message: String) -> Diagnostic {
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

impl Session {
    /// `PrepareForIncrementalBackup`: whether this server's history leads from the backup whose manifest was uploaded to the one
    /// that has begun, and whether there are summaries of all WAL between the two.
    pub(super) async fn prepare_incremental(
        &mut self,
        prior: Arc<PriorBackup>,
        running: &mut RunningBackup,
    ) -> Result<Incremental, Stop> {
        let history = self.shared.cluster.timeline_entries(running.timeline);
        let (since, timeline) = earliest(prior.wal_ranges(), &history, running.start)?;
        running.build_on(since, timeline);
        self.wait_for_summaries(running.start).await?;
        for entry in &history {
            let start = if entry.timeline == timeline { since } else { entry.begin };
            let end = entry.end.unwrap_or(running.start);
            let missing = self.shared.cluster.unsummarized(*entry, start, end);
            let required = format!("WAL summaries are required on timeline {} from {start} to {end}", entry.timeline);
            match missing {
                None => {}
                Some(Unsummarized::All) => {
                    let message = format!("{required}, but no summaries for that timeline and LSN range exist");
                    return Err(refused(message).into());
                }
                Some(Unsummarized::From(first)) => {
                    let message =
                        format!("{required}, but the summaries for that timeline and LSN range are incomplete");
                    let detail = format!("The first unsummarized LSN in this range is {first}.");
                    return Err(refused(message).with_detail(detail).into());
                }
            }
            if entry.timeline == timeline {
                break;
            }
        }
        Ok(Incremental { prior, since })
    }

    /// `WaitForWalSummarization`: until the summarizer is there, is switched off, or has made no progress for a minute.
    async fn wait_for_summaries(&mut self, position: Lsn) -> Result<(), Stop> {
        let cluster = self.shared.cluster.clone();
        let (began, mut cycles, mut dead) = (Instant::now(), 0, 0);
        let mut pending = Lsn::INVALID;
        loop {
            cycles += 1;
            tokio::select! {
                biased;
                () = cluster.summarized_through(position) => return Ok(()),
                ended = self.pause(began.checked_add(CYCLE * cycles)) => ended?,
            }
            if !cluster.summarizes_wal() {
                return Ok(());
            }
            // What is summarized in memory and what lies on disk is the same here.
            let reached = cluster.summarized_lsn();
            if reached > pending {
                (pending, dead) = (reached, 0);
            } else {
                dead += 1;
            }
            if dead >= DEAD_CYCLES {
                let detail = format!(
                    "Summarization is needed through {position}, but is stuck at {reached} on disk and {reached} in memory."
                );
                return Err(refused("WAL summarization is not progressing".to_owned()).with_detail(detail).into());
            }
            let seconds = (CYCLE * cycles).as_secs();
            let message = format!("still waiting for WAL summarization through {position} after {seconds} seconds");
            let detail = format!("Summarization has reached {reached} on disk and {reached} in memory.");
            let warning = Diagnostic::warning(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_detail(detail);
            self.send(BackendMessage::NoticeResponse(warning)).await?;
        }
    }

    /// `GetFileBackupMethod`: the header of the incremental file that is sent instead of the file at `path`; none if the
    /// whole file is sent.
    pub(super) fn incremental_header(
        &self,
        incremental: &Incremental,
        path: &[u8],
        entry: &Entry,
    ) -> Option<IncrementalHeader> {
        let EntryKind::File { size } = entry.kind else { return None };
        let file = RelationFile::parse(path)?;
        if !may_be_incremental(file, size) || !incremental.prior.has_relation_file(path) {
            return None;
        }
        let cluster = &self.shared.cluster;
        let limit = cluster.limit_block(entry, incremental.since);
        header(size, file.segment, limit, cluster.changed_blocks(entry, incremental.since))
    }
}

/// Whether a file of this kind and size is ever sent by its changed blocks.
fn may_be_incremental(file: RelationFile, size: u64) -> bool {
    // The free space map is not properly logged in WAL. An incremental file is never empty.
    let block = BLOCK_SIZE as u64;
    file.fork != Fork::FreeSpaceMap && size > 0 && size.is_multiple_of(block) && size / block <= BLOCKS_PER_FILE.into()
}

/// The header for a file of `size` bytes of which `blocks` changed, in a relation that had as few as `limit` blocks meanwhile;
/// none if it was created, lay wholly behind its relation's end, or changed by more than 90 percent.
fn header(size: u64, segment: u32, limit: Option<u32>, blocks: Vec<u32>) -> Option<IncrementalHeader> {
    let length = u32::try_from(size / BLOCK_SIZE as u64).ok()?;
    let first_block = segment.checked_mul(BLOCKS_PER_FILE)?;
    if limit.is_some_and(|limit| limit <= first_block) {
        return None;
    }
    if blocks.len() as u64 * 10 > u64::from(length) * 9 {
        return None;
    }
    // Blocks before the limit may still come from the backup before.
    let kept = limit.map_or(0, |limit| (limit - first_block).min(BLOCKS_PER_FILE));
    IncrementalHeader::new(length.max(kept), blocks).ok()
}

/// Where the WAL begins that a backup with these ranges needs, and on which timeline, in a server whose timelines are
/// `history`, newest first, for a backup that starts at `start`.
fn earliest(ranges: &[WalRange], history: &[TimelineEntry], start: Lsn) -> Result<(Lsn, TimelineId), Diagnostic> {
    let mut found = Vec::with_capacity(ranges.len());
    for range in ranges {
        let place = history.iter().position(|entry| entry.timeline == range.timeline);
        let Some((place, entry)) = place.and_then(|place| history.get(place).map(|entry| (place, entry))) else {
            let timeline = range.timeline;
            let message = format!("timeline {timeline} found in manifest, but not in this server's history");
            return Err(refused(message));
        };
        found.push((place, range, entry));
    }
    // Of several ranges on the oldest timeline the first counts.
    let oldest = found.iter().map(|(place, ..)| *place).max();
    let newest = found.iter().map(|(place, ..)| *place).min();
    let Some((_, earliest, _)) = found.iter().find(|(place, ..)| Some(*place) == oldest) else {
        return Err(refused("manifest contains no required WAL ranges".to_owned()));
    };
    for (place, range, entry) in &found {
        let timeline = range.timeline;
        if Some(*place) == oldest && range.start < entry.begin {
            return Err(refused(format!(
                "manifest requires WAL from initial timeline {timeline} starting at {}, but that timeline begins at {}",
                range.start, entry.begin
            )));
        }
        if Some(*place) != oldest && range.start != entry.begin {
            return Err(refused(format!(
                "manifest requires WAL from continuation timeline {timeline} starting at {}, but that timeline begins at {}",
                range.start, entry.begin
            )));
        }
        if Some(*place) == newest && range.end > start {
            let message = format!(
                "manifest requires WAL from final timeline {timeline} ending at {}, but this backup starts at {start}",
                range.end
            );
            let hint = "This can happen for incremental backups on a standby if there was little activity since the \
                        previous backup.";
            return Err(refused(message).with_hint(hint));
        }
        let switched = entry.end.unwrap_or(Lsn::INVALID);
        if Some(*place) != newest && range.end != switched {
            return Err(refused(format!(
                "manifest requires WAL from non-final timeline {timeline} ending at {}, but this server switched timelines \
                 at {switched}",
                range.end
            )));
        }
    }
    Ok((earliest.start, earliest.timeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> RelationFile {
        RelationFile::parse(path.as_bytes()).unwrap()
    }

    #[test]
    fn some_files_are_always_sent_whole() {
        let main = file("base/5/1259");
        let sent = [
            may_be_incremental(main, 8192),
            may_be_incremental(file("base/5/1259_vm"), 8192),
            may_be_incremental(file("base/5/16397_init"), 8192),
            may_be_incremental(file("base/5/1259_fsm"), 24_576),
            may_be_incremental(main, 0),
            may_be_incremental(main, 8193),
            may_be_incremental(main, 1 << 30),
            may_be_incremental(main, (1 << 30) + 8192),
        ];
        assert_eq!(sent, [true, true, true, false, false, false, true, false]);
    }

    #[test]
    fn nine_tenths_are_the_most() {
        let blocks = |count: u32| header(10 * 8192, 0, None, (0..count).collect()).map(|header| header.blocks().len());
        assert_eq!([blocks(0), blocks(9), blocks(10)], [Some(0), Some(9), None]);
        let length =
            |segment, limit| header(10 * 8192, segment, limit, vec![]).map(|header| header.truncation_block_length());
        assert_eq!([length(0, None), length(0, Some(3)), length(0, Some(12))], [Some(10), Some(10), Some(12)]);
        // A relation that was shorter than the file's first block, and one that lost blocks of a later file.
        assert_eq!([length(0, Some(0)), length(2, Some(2 * BLOCKS_PER_FILE))], [None, None]);
        assert_eq!(length(1, Some(BLOCKS_PER_FILE + 1)), Some(10));
        assert_eq!(length(1, Some(4 * BLOCKS_PER_FILE)), Some(BLOCKS_PER_FILE));
    }

    #[test]
    fn ranges_must_lie_in_the_servers_history() {
        let entry = |timeline, begin, end: Option<u64>| TimelineEntry {
            timeline: TimelineId(timeline),
            begin: Lsn(begin),
            end: end.map(Lsn),
        };
        let history = [entry(4, 0x500, None), entry(2, 0x300, Some(0x500)), entry(1, 0, Some(0x300))];
        let told = |ranges: &[(u32, u64, u64)]| {
            let ranges: Vec<_> = ranges
                .iter()
                .map(|&(timeline, start, end)| WalRange {
                    timeline: TimelineId(timeline),
                    start: Lsn(start),
                    end: Lsn(end),
                })
                .collect();
            match earliest(&ranges, &history, Lsn(0x700)) {
                Ok((start, timeline)) => format!("from {start} of {timeline}"),
                Err(error) => error.message + error.hint.as_deref().map(|_| " (with a hint)").unwrap_or_default(),
            }
        };
        let cases: [&[(u32, u64, u64)]; 10] = [
            &[(4, 0x600, 0x700)],
            &[(4, 0x500, 0x600), (2, 0x300, 0x500), (1, 0x100, 0x300)],
            &[(1, 0x100, 0x200)],
            &[],
            &[(3, 0x600, 0x700)],
            &[(4, 0x600, 0x701)],
            &[(2, 0x200, 0x400)],
            &[(4, 0x501, 0x600), (2, 0x300, 0x500)],
            &[(4, 0x500, 0x600), (2, 0x300, 0x400)],
            &[(4, 0x500, 0x600), (4, 0x600, 0x700)],
        ];
        insta::assert_snapshot!(cases.map(told).join("\n"), @r"
        from 0/600 of 4
        from 0/100 of 1
        from 0/100 of 1
        manifest contains no required WAL ranges
        timeline 3 found in manifest, but not in this server's history
        manifest requires WAL from final timeline 4 ending at 0/701, but this backup starts at 0/700 (with a hint)
        manifest requires WAL from initial timeline 2 starting at 0/200, but that timeline begins at 0/300
        manifest requires WAL from continuation timeline 4 starting at 0/501, but that timeline begins at 0/500
        manifest requires WAL from non-final timeline 2 ending at 0/400, but this server switched timelines at 0/500
        from 0/500 of 4
        ");
    }
}
