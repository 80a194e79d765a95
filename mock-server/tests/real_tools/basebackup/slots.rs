//! The WAL stream of `pg_basebackup` with a replication slot.

use backstop_protocol::lsn::Lsn;

use super::backup::Backup;
use crate::served::{Served, said, small};
use crate::{installations, own};

#[test]
fn a_temporary_slot_goes_with_its_connection() {
    for tool in installations("pg_basebackup with a temporary slot") {
        let served = Served::start(small(own(&tool), false));
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        let output = backup.run(&[]);
        assert!(output.status.success(), "{}", said(&output));
        let created = served.commands("CREATE_REPLICATION_SLOT");
        assert!(created.len() == 1 && created.iter().all(|command| command.contains("TEMPORARY")), "{created:?}");
        assert!(served.server.state().slots.is_empty());
        backup.check(&backup.directory, true);
    }
}

#[test]
fn a_slot_is_created_used_again_and_moves_on() {
    for tool in installations("pg_basebackup with a slot of its own") {
        let served = Served::start(small(own(&tool), false));
        // The tool says once where it began to receive: at the segment that holds the start position.
        let segment = |backup: usize| {
            let start = served.server.backups()[backup].start.0;
            Lsn(start - start % served.server.cluster().segment_size().bytes())
        };
        let restart = || {
            let slots = served.server.state().slots;
            let [slot] = slots.as_slice() else { unreachable!("one slot: {slots:?}") };
            assert!(slot.name == "kept" && !slot.temporary && slot.active_pid.is_none(), "{slot:?}");
            slot.restart_lsn.unwrap()
        };
        let scratch = tool.scratch();
        let backup = |name: &str| Backup { tool: &tool, served: &served, directory: scratch.path().join(name) };
        let first = backup("first");
        let output = first.run(&["-C", "-S", "kept"]);
        assert!(output.status.success(), "{}", said(&output));
        first.check(&first.directory, true);
        assert_eq!(restart(), segment(0));

        let second = backup("second");
        let output = second.run(&["-S", "kept"]);
        assert!(output.status.success(), "{}", said(&output));
        second.check(&second.directory, true);
        assert!(restart() == segment(1) && segment(1) > segment(0));

        let third = backup("third");
        let output = third.run(&["-C", "-S", "kept"]);
        let exists = "ERROR:  replication slot \"kept\" already exists";
        assert!(!output.status.success() && said(&output).contains(exists), "{}", said(&output));
        assert!(!third.directory.exists(), "a failed backup is removed");
    }
}

#[test]
fn a_slot_that_does_not_exist_is_refused() {
    for tool in installations("pg_basebackup with a slot that does not exist") {
        let served = Served::start(small(own(&tool), false));
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        let output = backup.run(&["-S", "nobodys"]);
        let missing = "ERROR:  replication slot \"nobodys\" does not exist";
        assert!(!output.status.success() && said(&output).contains(missing), "{}", said(&output));
        assert!(!backup.directory.exists());
    }
}
