//! What a client says is safe on its disk, the server may throw away.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalFileName;

use super::Evidence;
use super::artifact::Item;
use crate::record::Record;
use crate::scenario::Case;
use crate::scenario::model::{Slot, WalMethod};

/// Flush positions that the client reported before it was sent so much WAL. PostgreSQL believes them: a slot moves on, and
/// what the client never had is removed.
pub fn beyond_what_was_sent(record: &Record, client: &str) -> Vec<String> {
    let sessions = record.session_counts.iter().filter(|count| record.is_session_of(count.session, client));
    let problem = |session: u32, (flush, sent): (Lsn, Lsn)| {
        format!("connection #{session} reported WAL as flushed to {flush} when it had been sent to {sent}")
    };
    sessions.filter_map(|count| Some(problem(count.session, count.carried.overconfirmed?))).collect()
}

/// Whether the client's slot keeps what comes after the WAL in its backup: a slot that is ahead has lost some in between.
pub fn problems(case: &Case, record: &Record, evidence: &Evidence<'_>) -> Vec<String> {
    let Some(client) = case.scenario.client(&evidence.client.name) else { return Vec::new() };
    let (Slot::Create(name) | Slot::Existing(name)) = client.slot_on(case.scenario.server.version) else {
        return Vec::new();
    };
    let slot = record.state.slots.iter().find(|slot| slot.name == name);
    let kept = slot.and_then(|slot| slot.restart_lsn).filter(|_| client.wal == WalMethod::Stream);
    match (kept, stored_to(evidence)) {
        (Some(kept), Some(stored)) if kept > stored => {
            vec![format!("slot \"{name}\" keeps WAL from {kept} on, but what was stored ends at {stored}")]
        }
        _ => Vec::new(),
    }
}

/// The end of the last WAL segment in the backup.
fn stored_to(evidence: &Evidence<'_>) -> Option<Lsn> {
    let directory = format!("{}/", evidence.original.version().wal_directory());
    let size = evidence.original.segment_size();
    let files = evidence.artifact.items.iter().filter(|(_, item)| matches!(item, Item::File(_)));
    let names = files.filter_map(|(path, _)| str::from_utf8(path.strip_prefix(directory.as_bytes())?).ok());
    let segments = names.filter_map(|name| name.parse::<WalFileName>().ok()?.segment(size));
    segments.max().map(|segment| size.start_of(segment + 1))
}
