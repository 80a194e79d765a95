//! Archives, side by side and against the server's `pg_wal`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use backstop_scenarios::postgres::{PORT, Postgres, USER, succeed};
use rustix::process::{Pid, Signal, kill_process};

use super::site::{RELEASES, Setup, Tool, files, is_segment, names, said};

#[test]
fn archives_are_the_same_as_pg_receivewals_in_every_form() {
    for release in RELEASES {
        let Some(setup) = Setup::new(release) else { continue };
        let (ours, theirs) = (setup.directory("ours"), setup.directory("theirs"));
        // Only that of the distribution was built with lz4.
        let forms: &[&str] =
            if release == 15 { &["none", "gzip:1", "lz4", "none"] } else { &["none", "gzip:1", "none"] };
        for tool in [Tool::Ours, Tool::Theirs] {
            let slot = format!("{tool:?}").to_lowercase();
            succeed(&mut setup.tool(tool, &setup.server, &["--slot", &slot, "--create-slot"]));
        }
        for form in forms {
            setup.write(2);
            let end = setup.position();
            let receive = |tool: Tool, directory: &Path| {
                let slot = format!("{tool:?}").to_lowercase();
                let mut command = setup.tool(tool, &setup.server, &["-n", "-v", "--synchronous", "-S", &slot]);
                succeed(command.args(["--endpos", &end, "--compress", form, "-D"]).arg(directory))
            };
            let (ours_said, theirs_said) = (receive(Tool::Ours, &ours), receive(Tool::Theirs, &theirs));
            // Where exactly each stops depends on how the server packs its messages.
            let comparable = |output: &Output| {
                let lines = said(output);
                lines.into_iter().filter(|line| !line.contains("stopped log streaming")).collect::<Vec<_>>()
            };
            assert_eq!(comparable(&ours_said), comparable(&theirs_said), "{release} {form}");
            assert_eq!(names(&ours), names(&theirs), "{release} {form}");
            setup.assert_is_the_servers(&ours);
        }
        let complete = |archive| files(archive).into_iter().filter(|(name, _)| is_segment(name)).collect::<Vec<_>>();
        assert!(complete(&ours).len() > 2 && complete(&ours) == complete(&theirs), "{release}");
        for tool in [Tool::Ours, Tool::Theirs] {
            let slot = format!("{tool:?}").to_lowercase();
            succeed(&mut setup.tool(tool, &setup.server, &["--slot", &slot, "--drop-slot"]));
        }
        assert_eq!(setup.server.sql("select count(*) from pg_replication_slots"), "0");
    }
}

#[test]
fn each_tool_goes_on_in_the_others_archive() {
    let Some(setup) = Setup::new(15) else { return };
    let archive = setup.directory("archive");
    setup.write(1);
    let forms = [(Tool::Ours, "lz4"), (Tool::Theirs, "gzip"), (Tool::Ours, "none"), (Tool::Theirs, "lz4")];
    for (round, (tool, form)) in forms.into_iter().enumerate() {
        setup.write(2);
        let end = setup.position();
        let mut command =
            setup.tool(tool, &setup.server, &["-n", "-v", "--no-sync", "--endpos", &end, "-Z", form, "-D"]);
        let output = succeed(command.arg(&archive));
        // The first one begins where the server is.
        let finished = said(&output).iter().any(|line| line.contains("finished segment"));
        assert!(finished || round == 0, "{tool:?} {form}");
        setup.assert_is_the_servers(&archive);
    }
    let complete: Vec<_> = files(&archive).into_keys().filter(|name| is_segment(name)).collect();
    let numbers: Vec<_> = complete.iter().map(|name| u64::from_str_radix(&name[16..], 16).unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{complete:?}");
    // What others read of it.
    let plain = setup.directory("plain");
    for (name, content) in files(&archive).into_iter().filter(|(name, _)| is_segment(name)) {
        fs::write(plain.join(name), content).unwrap();
    }
    setup.installation.give(&plain);
    let (first, last) = (complete.first().unwrap(), complete.last().unwrap());
    let dump =
        setup.installation.tool("pg_waldump").arg("-q").arg("-p").arg(&plain).args([first, last]).output().unwrap();
    let problem = String::from_utf8_lossy(&dump.stderr).into_owned();
    // The last record goes on in a segment that is not complete.
    assert!(dump.status.success() || problem.contains("could not find file"), "{problem}");
}

/// A running receiver, and the lines that it says.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until something is said.
    fn until(&mut self, wanted: &str) {
        assert!(self.lines.any(|line| line.unwrap().contains(wanted)), "{wanted} was never said");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let rest = self.lines.map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_receiver_that_is_killed_goes_on_without_a_hole() {
    let Some(setup) = Setup::new(15) else { return };
    let archive = setup.directory("archive");
    succeed(&mut setup.tool(Tool::Ours, &setup.server, &["-S", "archive", "--create-slot"]));
    let receive = |form: &str, more: &[&str]| {
        let mut command = setup.tool(Tool::Ours, &setup.server, &["-S", "archive", "-v", "--synchronous", "-Z", form]);
        command.args(more).arg("-D").arg(&archive);
        command
    };
    // From when on there is a position that it must come back to.
    setup.write(1);
    let end = setup.position();
    succeed(&mut receive("none", &["--endpos", &end]));
    for (round, form) in ["none", "gzip:1", "lz4", "none", "gzip:1", "none"].into_iter().enumerate() {
        let mut running = Running::start(receive(form, &[]));
        if round % 3 == 0 {
            running.until("starting log streaming");
        } else {
            setup.write(2);
            running.until("finished segment");
        }
        running.signal(Signal::KILL);
        assert_eq!(running.end().0, None);
        // What the server was told is safe is there.
        let kept = setup.server.sql("select pg_walfile_name(restart_lsn) from pg_replication_slots");
        let there = names(&archive).into_iter().any(|name| name.starts_with(&kept) || name > kept);
        assert!(there, "{kept} is confirmed: {:?}", names(&archive));
    }
    setup.write(1);
    let end = setup.position();
    succeed(&mut receive("none", &["-n", "--endpos", &end]));
    let complete: Vec<_> = names(&archive).into_iter().filter_map(|name| Some(name.get(..24)?.to_owned())).collect();
    let mut numbers: Vec<_> = complete.iter().map(|name| u64::from_str_radix(&name[16..], 16).unwrap()).collect();
    numbers.dedup();
    assert!(numbers.len() > 5 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{complete:?}");
    let whole = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().contains("partial");
    for entry in fs::read_dir(&archive).unwrap().map(Result::unwrap).filter(whole) {
        let name = entry.file_name().into_string().unwrap();
        let one = setup.directory("one");
        let copy = one.join(&name);
        fs::copy(entry.path(), &copy).unwrap();
        setup.assert_is_the_servers(&one);
        fs::remove_file(copy).unwrap();
    }
}

#[test]
fn signals_end_a_receiver_at_a_clean_point() {
    let Some(setup) = Setup::new(15) else { return };
    for (tool, signal) in [(Tool::Ours, Signal::INT), (Tool::Ours, Signal::TERM), (Tool::Theirs, Signal::INT)] {
        let archive = setup.directory(&format!("{tool:?}{signal:?}").replace(|c: char| !c.is_ascii_alphanumeric(), ""));
        let mut command = setup.tool(tool, &setup.server, &["-v", "--no-sync", "-D"]);
        command.arg(&archive);
        let mut running = Running::start(command);
        running.until("starting log streaming");
        setup.write(2);
        running.until("finished segment");
        running.signal(signal);
        let (status, said) = running.end();
        assert_eq!(status, Some(0), "{tool:?}: {said:?}");
        let told = |wanted: &str| said.iter().any(|line| line.contains(wanted));
        assert!(told("pg_receivewal: received interrupt signal, exiting"), "{tool:?}: {said:?}");
        // Unless it came between two segments.
        let partial = names(&archive).into_iter().find(|name| name.ends_with(".partial"));
        let left = partial.is_none_or(|name| told(&format!("not renaming \"{name}\", segment is not complete")));
        assert!(left, "{tool:?}: {said:?}");
        setup.assert_is_the_servers(&archive);
    }
}

#[test]
fn a_promotion_is_followed_as_pg_receivewal_follows_it() {
    for release in [15, 18] {
        let Some(setup) = Setup::new(release) else { continue };
        let data = setup.scratch.path().join("standby");
        let mut copy = setup.installation.tool("pg_basebackup");
        copy.arg("-h").arg(setup.server.socket()).args(["-p", &PORT.to_string(), "-U", USER, "-R", "-cfast", "-D"]);
        succeed(copy.arg(&data));
        let standby = Postgres::start(&setup.installation, &data, &setup.scratch.path().join("s2"));
        let archives = [(Tool::Ours, setup.directory("ours")), (Tool::Theirs, setup.directory("theirs"))];
        for (tool, archive) in &archives {
            let slot = format!("{tool:?}").to_lowercase();
            succeed(&mut setup.tool(*tool, &standby, &["-S", &slot, "--create-slot"]));
            setup.write(1);
            let end = setup.position();
            standby.sql(&format!(
                "do $$ begin while pg_last_wal_replay_lsn() < '{end}' loop perform pg_sleep(0); end loop; end $$"
            ));
            succeed(setup.tool(*tool, &standby, &["-n", "-S", &slot, "--endpos", &end, "-D"]).arg(archive));
        }
        setup.server.stop();
        standby.sql("select pg_promote()");
        standby.sql("insert into t select i, repeat('y', 150) from generate_series(1, 8000) i");
        let end = standby.sql("select pg_current_wal_insert_lsn()");
        standby.sql("insert into t select i, '' from generate_series(1, 100) i");
        for (tool, archive) in &archives {
            let slot = format!("{tool:?}").to_lowercase();
            let mut command = setup.tool(*tool, &standby, &["-n", "-v", "-S", &slot, "--endpos", &end, "-D"]);
            let output = succeed(command.arg(archive));
            assert!(
                said(&output).iter().any(|line| line.contains("switched to timeline 2 at ")),
                "{:?}",
                said(&output)
            );
        }
        let [ours, theirs] = archives.map(|(_, archive)| files(&archive));
        let history = fs::read(data.join("pg_wal/00000002.history")).unwrap();
        assert_eq!(ours.get("00000002.history"), Some(&history));
        // Each began where the server was then.
        let second = |files: &BTreeMap<String, Vec<u8>>| {
            let names = files.keys().filter(|name| name.starts_with("00000002"));
            names.cloned().collect::<Vec<_>>()
        };
        assert_eq!(second(&ours), second(&theirs), "{release}");
        for (name, content) in ours.iter().filter(|(name, _)| is_segment(name)) {
            assert!(theirs.get(name).is_none_or(|theirs| theirs == content), "{release}: {name}");
            let of_server = fs::read(data.join("pg_wal").join(name));
            assert!(
                of_server.is_ok_and(|theirs| theirs == *content) || name.starts_with("00000001"),
                "{release}: {name}"
            );
        }
    }
}

#[test]
fn mistakes_are_told_as_pg_receivewal_tells_them() {
    for release in RELEASES {
        let Some(setup) = Setup::new(release) else { continue };
        let archive = setup.directory("archive");
        let directory = archive.to_str().unwrap();
        succeed(&mut setup.tool(Tool::Theirs, &setup.server, &["-S", "there", "--create-slot"]));
        let cases: &[&[&str]] = &[
            &[],
            &["-D", directory, "more"],
            &["--create-slot", "--drop-slot", "-S", "s"],
            &["--create-slot"],
            &["--drop-slot"],
            &["-D", directory, "--synchronous", "--no-sync"],
            &["-D", directory, "-E", "x"],
            &["-D", directory, "-Z", "none:1"],
            &["-D", directory, "-Z", "gzip:99"],
            &["-D", directory, "-Z", "gzip:level=9,"],
            &["-D", directory, "-Z", "bogus"],
            &["-D", directory, "-s", "x"],
            &["-D", directory, "-s", "-1"],
            &["-D", "/nowhere"],
            &["-S", "there", "--create-slot"],
            &["-S", "there", "--create-slot", "--if-not-exists", "-v"],
            &["-S", "no", "--drop-slot"],
            &["-D", directory, "-S", "no", "-n"],
            &["-D", directory, "-n", "-U", "nobody"],
            &["-D", directory, "-n", "-d", "nonsense=1"],
        ];
        for case in cases {
            let run = |tool| setup.tool(tool, &setup.server, case).output().unwrap();
            let (ours, theirs) = (run(Tool::Ours), run(Tool::Theirs));
            assert_eq!(ours.status.code(), theirs.status.code(), "{release} {case:?}: {:?}", said(&ours));
            assert_eq!(said(&ours), said(&theirs), "{release} {case:?}");
        }
    }
}
