//! Positions in WAL: a scenario's faults name those of a cluster whose WAL begins where the scenario says, a real server's stands
//! elsewhere.

use backstop_mock::fault::server::RecycleWal;
use backstop_mock::fault::{Action, Point};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use crate::scenario::model::Scenario;

/// The segment in which a cluster's WAL begins if its scenario says nothing else.
const FIRST_SEGMENT: u64 = 2;

/// Moves the positions of faults by whole segments: where the scenario's WAL begins, that of the server begins in segment `stands`.
pub(super) fn shift(scenario: &mut Scenario, stands: u64, size: WalSegmentSize) {
    let begins = scenario.cluster.wal_start.map_or(FIRST_SEGMENT, |start| size.segment_of(start));
    let moved = |segment: u64| (segment + stands).saturating_sub(begins);
    let moved_file = |name: &str| {
        let name = name.parse::<WalFileName>().ok()?;
        Some(WalFileName::new(name.timeline, moved(name.segment(size)?), size).to_string())
    };
    for fault in &mut scenario.faults {
        match &mut fault.when {
            Point::WalData { lsn, .. } => {
                *lsn = Lsn(size.start_of(moved(size.segment_of(*lsn))).0 + size.offset_of(*lsn));
            }
            Point::Member { path, .. } => {
                if let Some((directory @ ("pg_wal" | "pg_xlog"), file)) = path.split_once('/')
                    && let Some(file) = moved_file(file)
                {
                    *path = format!("{directory}/{file}");
                }
            }
            _ => {}
        }
        if let Action::RecycleWal(RecycleWal { through }) = &mut fault.r#do
            && let Some(file) = moved_file(through)
        {
            *through = file;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::document::SourceFile;
    use crate::scenario::load;

    #[test]
    fn positions_keep_their_places_in_segments() {
        let text = "summary = \"s\"\nbecause = \"b\"\n[cluster]\nwal-start = \"0/2000100\"\n\
                    [[fault]]\nwhen.wal-data = { lsn = \"0/3000200\" }\ndo.close = {}\n\
                    [[fault]]\nwhen.ready = {}\ndo.recycle-wal = { through = \"000000010000000000000002\" }\n\
                    [[fault]]\nwhen.member = { path = \"pg_wal/000000010000000000000004\" }\ndo.omit-member = {}\n\
                    [[fault]]\nwhen.member = { path = \"pg_wal/0*\" }\ndo.omit-member = {}\n";
        let file = SourceFile { path: "case.toml".into(), text: text.into() };
        let mut scenario = (*load::read("case", &file).expect("a scenario")[0].scenario).clone();
        shift(&mut scenario, 7, WalSegmentSize::DEFAULT);
        let when = &scenario.faults[0].when;
        assert!(matches!(when, Point::WalData { lsn: Lsn(0x0800_0200), .. }), "{when:?}");
        let what = &scenario.faults[1].r#do;
        assert!(
            matches!(what, Action::RecycleWal(RecycleWal { through }) if through == "000000010000000000000007"),
            "{what:?}"
        );
        let paths = scenario.faults[2..].iter().map(|fault| match &fault.when {
            Point::Member { path, .. } => path.as_str(),
            other => other.name(),
        });
        assert_eq!(paths.collect::<Vec<_>>(), ["pg_wal/000000010000000000000009", "pg_wal/0*"]);
    }
}
