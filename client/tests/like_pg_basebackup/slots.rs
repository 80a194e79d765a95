//! Replication slots: made, used, and moved on by a backup.

use super::site::{Site, Tool};

#[test]
fn a_slot_that_is_there_moves_on() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for slot in ["ours", "theirs"] {
            site.server.sql(&format!("select pg_create_physical_replication_slot('{slot}', true)"));
        }
        let at = |slot: &str| {
            site.server.sql(&format!(
                "select restart_lsn - '0/0'::pg_lsn from pg_replication_slots where slot_name = '{slot}' and not temporary"
            ))
        };
        let before = [at("ours"), at("theirs")].map(|lsn| lsn.parse::<u64>().unwrap());
        // They keep a segment that no backup from now on needs.
        site.server.sql("select pg_switch_wal()");
        for (tool, slot, before) in [(Tool::Ours, "ours", before[0]), (Tool::Theirs, "theirs", before[1])] {
            let backup = site.back_up(tool, slot, &["-S", slot]);
            let label = std::fs::read_to_string(backup.join("backup_label")).unwrap();
            let start = label.split("START WAL LOCATION: ").nth(1).unwrap().split(' ').next().unwrap();
            let begins = site.server.sql(&format!("select '{start}'::pg_lsn - '0/0'::pg_lsn")).parse::<u64>().unwrap();
            let after = at(slot).parse::<u64>().unwrap();
            assert!(before < after && after >= begins / (16 << 20) * (16 << 20), "{major} {tool:?}: {before} {after}");
            site.quiet();
        }
        assert_eq!(site.server.sql("select count(*) from pg_replication_slots"), "2", "{major}");
    }
}

#[test]
fn a_slot_is_made_once() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for (tool, slot) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
            site.back_up(tool, slot, &["-C", "--slot", slot]);
            site.quiet();
            let kept = format!(
                "select restart_lsn is not null and not active from pg_replication_slots where slot_name = '{slot}'"
            );
            assert_eq!(site.server.sql(&kept), "t", "{major} {tool:?}");
        }
        let said = |tool| {
            let said = site.fails(tool, "again", &["-C", "-S", "ours"]);
            site.quiet();
            said
        };
        let ours = said(Tool::Ours);
        assert!(ours.contains("ERROR:  replication slot \"ours\" already exists"), "{ours}");
        assert_eq!(ours, said(Tool::Theirs), "{major}");
        assert_eq!(site.server.sql("select count(*) from pg_replication_slots"), "2", "{major}");
    }
}

#[test]
fn a_slot_that_is_not_there_is_missed() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for tool in [Tool::Ours, Tool::Theirs] {
            let said = site.fails(tool, "missed", &["-S", "slot0"]);
            let problem = "could not send replication command \"START_REPLICATION\": \
                           ERROR:  replication slot \"slot0\" does not exist\n";
            assert!(said.contains(problem), "{major} {tool:?}: {said}");
        }
    }
}
