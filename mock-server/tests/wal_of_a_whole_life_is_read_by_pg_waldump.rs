//! PostgreSQL's own reader follows the WAL of a server through shutdowns, crashes, changed settings and a promotion.

use std::fs;
use std::path::Path;

use backstop_mock::Server;
use backstop_mock::cluster::Cluster;
use backstop_mock::config::{Config, Role};
use backstop_mock::fault::ShutdownMode;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use backstop_scenarios::postgres::Installation;

/// The releases whose tools can be had.
const RELEASES: [(u16, ServerVersion); 3] =
    [(15, ServerVersion::V15), (16, ServerVersion::V16), (18, ServerVersion::V18)];

fn server(version: ServerVersion, role: Role) -> Server {
    let wal_segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB");
    Server::new(Config { version, role, wal_segment_size, size: 64 << 10, ..Config::default() }).expect("a server")
}

/// Writes the segments of a timeline from `first` on, and returns the name of the first and the last.
fn write_segments(cluster: &Cluster, timeline: TimelineId, first: u64, directory: &Path) -> [String; 2] {
    let size = cluster.segment_size();
    let last = size.segment_before(cluster.flush_position());
    let mut content = vec![0; usize::try_from(size.bytes()).expect("fits")];
    let name = |number| WalFileName::new(timeline, number, size);
    for number in first..=last {
        cluster.read_wal_file(name(number), 0, &mut content).expect("a segment");
        fs::write(directory.join(name(number).to_string()), &content).expect("a file");
    }
    [name(first).to_string(), name(last).to_string()]
}

/// What `pg_waldump` finds up to the end of WAL: the records but for filler.
fn dump(installation: &Installation, cluster: &Cluster, timeline: TimelineId, first: u64) -> Vec<String> {
    let scratch = installation.scratch();
    let files = write_segments(cluster, timeline, first, scratch.path());
    let end = cluster.flush_position().to_string();
    let output = installation
        .tool("pg_waldump")
        .arg("-p")
        .arg(scratch.path())
        .args(["-t", &timeline.0.to_string(), "-e", &end])
        .args(files)
        .output()
        .expect("pg_waldump runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let kinds = text.lines().filter_map(|line| line.split_once("desc: ")?.1.split_whitespace().next());
    kinds.filter(|kind| *kind != "NOOP").map(str::to_owned).collect()
}

#[test]
fn of_a_primary_that_crashes_and_is_shut_down() {
    for (major, version) in RELEASES {
        let Some(installation) = Installation::find_release(major, "the WAL of a whole life") else { continue };
        let server = server(version, Role::Primary);
        let cluster = server.cluster();
        let first = cluster.segment_size().segment_of(cluster.oldest_wal());
        cluster.create_slot("keeps", false, true, 1).expect("a slot");
        cluster.grow_wal(300_000);
        server.shut_down(ShutdownMode::Immediate);
        server.start().expect("recovered");
        cluster.grow_wal(300_000);
        cluster.set("full_page_writes", "off").expect("a setting");
        cluster.checkpoint();
        server.shut_down(ShutdownMode::Fast);
        server.start().expect("started");
        cluster.grow_wal(300_000);
        let backup = cluster.start_backup("a", true).expect("a backup");
        cluster.stop_backup(backup).expect("its end");
        let checkpoint = if version.has_checkpoint_redo_record() { "CHECKPOINT_REDO " } else { "" };
        let online = format!("{checkpoint}RUNNING_XACTS CHECKPOINT_ONLINE");
        // What a cluster begins with, the end of recovery, the shutdown; the switches are those of the backup.
        let expected = format!(
            "CHECKPOINT_SHUTDOWN SWITCH CHECKPOINT_SHUTDOWN FPW_CHANGE {online} CHECKPOINT_SHUTDOWN SWITCH {online} \
             BACKUP_END SWITCH"
        );
        assert_eq!(dump(&installation, cluster, TimelineId(1), first).join(" "), expected, "{version}");
    }
}

#[test]
fn of_a_standby_that_is_promoted() {
    for (major, version) in RELEASES {
        let Some(installation) = Installation::find_release(major, "the WAL of a promotion") else { continue };
        let server = server(version, Role::Standby);
        let cluster = server.cluster();
        cluster.create_slot("keeps", false, true, 1).expect("a slot");
        cluster.grow_wal(50_000);
        cluster.follow_promotion().expect("a standby");
        cluster.grow_wal(300_000);
        cluster.promote().expect("still a standby");
        cluster.grow_wal(3_000_000);
        server.shut_down(ShutdownMode::Fast);
        let history = cluster.history(TimelineId(3)).expect("a history");
        let fork = history.switches.last().expect("a switch").at;
        let first = cluster.segment_size().segment_of(fork);
        let records = dump(&installation, cluster, TimelineId(3), first).join(" ");
        assert!(records.contains("END_OF_RECOVERY"), "{version}: {records}");
        assert!(records.ends_with("CHECKPOINT_ONLINE CHECKPOINT_SHUTDOWN"), "{version}: {records}");
    }
}
