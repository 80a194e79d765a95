//! `pg_receivewal` follows the mock across its promotion and its crashes, and what it stores is the server's WAL without a
//! gap, which `pg_waldump` reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Output;
use std::str::FromStr;
use std::thread;

use backstop_mock::config::{Config, Role};
use backstop_mock::fault::Fault;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalFileName;
use backstop_scenarios::postgres::{Installation, succeed};
use flate2::read::MultiGzDecoder;

use crate::served::{Served, said, small};
use crate::{installations, own};

/// Where the WAL stands at the start.
const START: Lsn = Lsn(0x0200_0028);

/// A server whose WAL grows, and stays.
fn growing(version: ServerVersion, faults: &[&str]) -> Config {
    let config = small(version, false);
    // A few segments are quickly full.
    let wal_rate = 8 * config.wal_segment_size.bytes();
    let keep = if version >= ServerVersion::V13 { ("wal_keep_size", "4GB") } else { ("wal_keep_segments", "256") };
    let faults = faults.iter().map(|fault| serde_json::from_str::<Fault>(fault).unwrap()).collect();
    let settings = BTreeMap::from([(keep.0.to_owned(), keep.1.to_owned())]);
    Config { wal_start: Some(START), wal_rate, faults, settings, ..config }
}

/// So many segments after the one in which the WAL starts, and a piece of the next.
fn after(config: &Config, segments: u64) -> Lsn {
    let size = config.wal_segment_size;
    Lsn(size.start_of(size.segment_of(START) + segments).0 + size.bytes() / 8)
}

/// A tool, a server, and the directory of the archive.
struct Archive<'a> {
    tool: &'a Installation,
    served: &'a Served,
    directory: PathBuf,
}

impl Archive<'_> {
    fn run(&self, options: &[&str]) -> Output {
        let mut command = self.tool.tool("pg_receivewal");
        self.served.connect(&mut command);
        let output = command.arg("--verbose").args(options).output().unwrap();
        self.served.idle();
        output
    }

    /// Receives up to a position.
    fn receive(&self, end: Lsn, options: &[&str]) -> Output {
        fs::create_dir_all(&self.directory).unwrap();
        self.tool.give(&self.directory);
        let (directory, end) = (self.directory.to_str().unwrap(), end.to_string());
        let mut all = vec!["-D", directory, "--endpos", &end];
        all.extend_from_slice(options);
        self.run(&all)
    }

    fn receive_all(&self, end: Lsn, options: &[&str]) -> String {
        let output = self.receive(end, options);
        let said = said(&output);
        let context = format!("pg_receivewal {} {options:?}", self.tool.major());
        assert!(output.status.success(), "{context}: {said}");
        assert!(said.contains("stopped log streaming at"), "{context}: {said}");
        said
    }

    /// What lies in the directory: names without the suffix of compression, and contents without compression.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |entry: fs::DirEntry| {
            let (name, mut content) = (entry.file_name().into_string().unwrap(), Vec::new());
            let mut file = File::open(entry.path()).unwrap();
            let read = if name.contains(".gz") {
                MultiGzDecoder::new(file).read_to_end(&mut content)
            } else {
                file.read_to_end(&mut content)
            };
            read.unwrap();
            (name.replace(".gz", ""), content)
        };
        fs::read_dir(&self.directory).unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    /// Where the first stream began.
    fn begin(&self) -> Lsn {
        let command = &self.served.commands("START_REPLICATION")[0];
        command.split(' ').find_map(|word| Lsn::from_str(word).ok()).unwrap()
    }

    /// Every segment from the first that was asked for to the one before `end` is there, complete and the server's, and
    /// `pg_waldump` reads those of each timeline. Where a timeline ended, the next one repeats the segment.
    fn check(&self, end: Lsn) {
        let cluster = self.served.server.cluster();
        let (size, files) = (cluster.segment_size(), self.files());
        let complete: Vec<WalFileName> = files.keys().filter_map(|name| name.parse().ok()).collect();
        let mut numbers = complete.iter().map(|file| file.segment(size).unwrap());
        let expected: Vec<_> = (size.segment_of(self.begin())..size.segment_of(end)).collect();
        assert!(expected.len() > 1 && numbers.by_ref().eq(expected), "{:?}", files.keys());
        for file in &complete {
            let mut theirs = vec![0; usize::try_from(size.bytes()).unwrap()];
            cluster.read_wal_file(*file, 0, &mut theirs).unwrap();
            assert!(files[&file.to_string()] == theirs, "{file}");
        }
        if cluster.version() == own(self.tool) {
            self.dump(&files, &complete);
        }
    }

    fn dump(&self, files: &BTreeMap<String, Vec<u8>>, complete: &[WalFileName]) {
        // Compressed segments are nothing for pg_waldump.
        let plain = self.directory.with_extension("plain");
        let _ = fs::remove_dir_all(&plain);
        fs::create_dir(&plain).unwrap();
        for file in complete {
            fs::write(plain.join(file.to_string()), &files[&file.to_string()]).unwrap();
        }
        self.tool.give(&plain);
        let mut timelines: Vec<TimelineId> = complete.iter().map(|file| file.timeline).collect();
        timelines.dedup();
        for timeline in timelines {
            let mut own = complete.iter().filter(|file| file.timeline == timeline).map(ToString::to_string);
            let first = own.next().unwrap();
            let last = own.next_back().unwrap_or_else(|| first.clone());
            let output = succeed(self.tool.tool("pg_waldump").arg("-q").arg(plain.join(first)).arg(plain.join(last)));
            assert_eq!(said(&output), "");
        }
    }
}

#[test]
fn segments_up_to_a_position() {
    for tool in installations("pg_receivewal") {
        let config = growing(own(&tool), &[]);
        let end = after(&config, 4);
        for options in [&["--no-loop"][..], &["--no-loop", "-Z", "gzip:1"], &["--no-loop", "-Z", "3"]] {
            let served = Served::start(config.clone());
            let scratch = tool.scratch();
            let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
            archive.receive_all(end, options);
            archive.check(end);
            let compressed = options.len() > 1;
            let names = fs::read_dir(&archive.directory).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(names.into_iter().all(|name| name.to_str().unwrap().contains(".gz") == compressed));
            assert_eq!(archive.files().keys().filter(|name| name.ends_with(".partial")).count(), 1);
            // It goes on where it stopped, in the partial segment's place.
            archive.receive_all(Lsn(end.0 + 3 * config.wal_segment_size.bytes()), options);
            archive.check(Lsn(end.0 + 3 * config.wal_segment_size.bytes()));
        }
    }
}

#[test]
fn servers_of_older_releases() {
    for tool in installations("pg_receivewal and mocks of older releases") {
        let older = ServerVersion::ALL.into_iter().filter(|version| *version < own(&tool));
        for version in older.filter(|version| *version >= ServerVersion::V9_3) {
            let config = growing(version, &[]);
            let end = after(&config, 3);
            let served = Served::start(config);
            let scratch = tool.scratch();
            let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
            archive.receive_all(end, &["--no-loop"]);
            archive.check(end);
        }
    }
}

#[test]
fn a_slot_from_its_creation_to_its_end() {
    for tool in installations("pg_receivewal with a slot") {
        let config = growing(own(&tool), &[]);
        let end = after(&config, 3);
        let served = Served::start(config);
        let scratch = tool.scratch();
        let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
        let refused = |options: &[&str], words: &str| {
            let output = archive.run(options);
            assert!(!output.status.success() && said(&output).contains(words), "{options:?}: {}", said(&output));
        };
        let slots = || served.server.state().slots;

        assert!(archive.run(&["--create-slot", "--slot", "kept"]).status.success());
        assert!(slots().len() == 1 && slots()[0].restart_lsn.is_none() && !slots()[0].temporary);
        refused(&["--create-slot", "--slot", "kept"], "ERROR:  replication slot \"kept\" already exists");
        assert!(archive.run(&["--create-slot", "--slot", "kept", "--if-not-exists"]).status.success());

        archive.receive_all(end, &["--no-loop", "--slot", "kept", "--synchronous"]);
        archive.check(end);
        let restart = slots()[0].restart_lsn.unwrap();
        assert!(restart > archive.begin() && slots()[0].active_pid.is_none());

        // A new archive begins where the slot says.
        let again = Archive { directory: scratch.path().join("again"), ..archive };
        let further = Lsn(end.0 + 2 * served.server.cluster().segment_size().bytes());
        again.receive_all(further, &["--no-loop", "--slot", "kept"]);
        let asked = served.commands("START_REPLICATION").pop().unwrap();
        let segment = served.server.cluster().segment_size().round_down(restart);
        assert!(asked.contains(&format!("SLOT \"kept\" {segment} TIMELINE 1")), "{asked}");

        assert!(again.run(&["--drop-slot", "--slot", "kept"]).status.success());
        assert!(slots().is_empty());
        let missing = "ERROR:  replication slot \"kept\" does not exist";
        let output = again.run(&["--drop-slot", "--slot", "kept"]);
        assert!(!output.status.success() && said(&output).contains(missing), "{}", said(&output));
        let output = again.receive(further, &["--no-loop", "--slot", "kept"]);
        assert!(!output.status.success() && said(&output).contains(missing), "{}", said(&output));
    }
}

#[test]
fn a_promotion_is_followed_to_the_new_timeline() {
    for tool in installations("pg_receivewal across a promotion") {
        let promotion = r#"{"when": {"wal-data": {"lsn": "0/2280000"}}, "do": {"promote": {}}}"#;
        let config = Config { role: Role::Standby, ..growing(own(&tool), &[promotion]) };
        let end = after(&config, 6);
        let served = Served::start(config);
        let scratch = tool.scratch();
        let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
        let said = archive.receive_all(end, &["--no-loop"]);
        assert!(said.contains("switched to timeline 2 at 0/2"), "{said}");
        archive.check(end);
        let files = archive.files();
        let history = served.server.cluster().history(TimelineId(2)).unwrap();
        assert_eq!(files["00000002.history"], history.to_string().into_bytes());
        // The segment of the switch is there twice, the old timeline's as far as that went.
        let [first] =
            files.keys().filter(|name| name.starts_with("00000001") && name.ends_with(".partial")).collect::<Vec<_>>()
                [..]
        else {
            unreachable!("one partial segment of timeline 1: {:?}", files.keys())
        };
        assert!(files.contains_key(&first.replacen("00000001", "00000002", 1).replace(".partial", "")));
        // One connection saw it all.
        assert_eq!(served.commands("START_REPLICATION").len(), 2);
        assert_eq!(served.commands("TIMELINE_HISTORY"), ["TIMELINE_HISTORY 2"]);
    }
}

#[test]
fn a_crash_is_waited_out_and_the_archive_has_no_gap() {
    // The tool waits for 5 s before it connects again.
    thread::scope(|scope| {
        for tool in installations("pg_receivewal across a crash") {
            scope.spawn(move || {
                let crash =
                    r#"{"when": {"wal-data": {"lsn": "0/2380000"}}, "do": {"crash": {"restart-after": "100ms"}}}"#;
                let config = growing(own(&tool), &[crash]);
                let end = after(&config, 7);
                let served = Served::start(config);
                let scratch = tool.scratch();
                let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
                let said = archive.receive_all(end, &[]);
                assert!(said.contains("disconnected; waiting 5 seconds to try again"), "{said}");
                archive.check(end);
                assert_eq!(served.commands("START_REPLICATION").len(), 2);
            });
        }
    });
}

#[test]
fn a_shutdown_is_preceded_by_all_of_the_wal() {
    for tool in installations("pg_receivewal and a shutdown") {
        let shutdown = r#"{"when": {"wal-data": {"lsn": "0/2280000"}}, "do": {"shutdown": {"mode": "fast"}}}"#;
        let served = Served::start(growing(own(&tool), &[shutdown]));
        let scratch = tool.scratch();
        let archive = Archive { tool: &tool, served: &served, directory: scratch.path().join("archive") };
        let output = archive.receive(Lsn(0x1000_0000), &["--no-loop"]);
        let said = said(&output);
        assert!(
            !output.status.success() && said.contains("replication stream was terminated before stop point"),
            "{said}"
        );
        let end = served.server.cluster().flush_position();
        archive.check(end);
        let files = archive.files();
        let (_, last) = files.iter().find(|(name, _)| name.ends_with(".partial")).unwrap();
        let size = served.server.cluster().segment_size();
        let mut theirs = vec![0; usize::try_from(size.offset_of(end)).unwrap()];
        served.server.cluster().read_wal(TimelineId::FIRST, size.round_down(end), &mut theirs).unwrap();
        assert!(last.starts_with(&theirs), "the shutdown checkpoint is the last of it");
    }
}
