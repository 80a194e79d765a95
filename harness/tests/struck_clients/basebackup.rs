//! `basebackup`, struck at its system calls.

use std::path::{Path, PathBuf};

use super::chance::{Chance, strikes};
use super::site::{End, Site, Tally, is_published, published_and_wrong, remove_all, said};
use super::strike::{Blow, Strike, possible};

/// What can go wrong with a client's files and connections.
const ERRORS: [(&str, Blow); 14] = [
    ("write", Blow::Error("ENOSPC")),
    ("write", Blow::Error("EIO")),
    ("writev", Blow::Error("ENOSPC")),
    ("pwrite64", Blow::Error("ENOSPC")),
    ("fsync", Blow::Error("EIO")),
    ("fsync", Blow::Error("ENOSPC")),
    ("openat", Blow::Error("EMFILE")),
    ("openat", Blow::Error("ENOSPC")),
    ("mkdirat", Blow::Error("ENOSPC")),
    ("symlinkat", Blow::Error("EACCES")),
    ("renameat", Blow::Error("EIO")),
    ("ftruncate", Blow::Error("ENOSPC")),
    ("recvfrom", Blow::Error("ECONNRESET")),
    ("sendto", Blow::Error("EPIPE")),
];

/// Where signals find it.
const MOMENTS: [&str; 8] = ["write", "writev", "fsync", "openat", "mkdirat", "renameat", "recvfrom", "sendto"];

/// A way to take a backup: its options, and what else than the target it makes.
struct Way {
    name: &'static str,
    options: &'static [&'static str],
    elsewhere: &'static [&'static str],
}

const WAYS: [Way; 3] = [
    Way {
        name: "plain",
        options: &["-Fp", "-Xstream", "-T/srv/space=HOME/space", "--waldir=HOME/wal"],
        elsewhere: &["space", "wal"],
    },
    Way { name: "tar", options: &["-Ft", "-Xstream"], elsewhere: &[] },
    Way { name: "tar.gz", options: &["-Ft", "-z", "-Xfetch"], elsewhere: &[] },
];

impl Way {
    fn arguments(&self, home: &Path, more: &[&str]) -> Vec<String> {
        let home = home.to_str().expect("a path in ASCII");
        let options = self.options.iter().map(|option| option.replace("HOME", home));
        let common = ["-w", "-v", "-P", "-cfast", "-D", "backup"].into_iter().chain(more.iter().copied());
        common.map(str::to_owned).chain(options).collect()
    }

    fn places(&self, home: &Path) -> Vec<PathBuf> {
        ["backup"].iter().chain(self.elsewhere).map(|name| home.join(name)).collect()
    }
}

/// Takes one backup, strikes it, and checks what is left: of one that cleans up, nothing at all.
fn strike(site: &Site, way: &Way, more: &[&str], strike: &Strike) -> End {
    let home = site.home();
    let places = way.places(&home);
    remove_all(&places);
    let before = site.picture(&places);
    let output = site.struck("pg_basebackup", &way.arguments(&home, more), strike);
    let what = format!("{} {}: {strike}", way.name, more.join(" "));
    let end = End::of(&output, &what);
    let target = home.join("backup");

    let after = site.picture(&places);
    assert_eq!(before.changes(&after), Vec::<String>::new(), "{what}");
    assert_eq!(published_and_wrong(&target), None, "{what}: {end:?}\n{}", said(&output));
    let left: Vec<_> = places.iter().filter(|place| place.symlink_metadata().is_ok()).collect();
    match end {
        End::Success => assert!(is_published(&target), "{what}\n{}", said(&output)),
        End::Failure if more.contains(&"--no-clean") => {}
        End::Failure => assert!(left.is_empty(), "{what}: {left:?} is left\n{}", said(&output)),
        // Before it is ready to hear of them, there is nothing to clean up.
        End::Killed(9) => {}
        End::Killed(_) => assert!(left.is_empty(), "{what}: {left:?} is left"),
    }
    end
}

fn strike_all(test: &'static str, count: usize, blows: &[(&'static str, Blow)], more: &[&str]) {
    if !possible(test) {
        return;
    }
    let (site, mut chance) = (Site::new("0"), Chance::of(test));
    let mut tally = Tally::of(test);
    for way in &WAYS {
        remove_all(&way.places(&site.home()));
        let calls = site.calls("pg_basebackup", &way.arguments(&site.home(), more));
        assert!(is_published(&site.home().join("backup")), "{}", way.name);
        for drawn in calls.draw(&mut chance, blows, strikes(count)) {
            let end = strike(&site, way, more, &drawn);
            tally.count(way.name, end);
        }
    }
    tally.tell();
}

#[test]
fn a_system_call_that_fails_ends_the_backup_and_everything_is_removed() {
    strike_all("failing calls of basebackup", 30, &ERRORS, &[]);
}

#[test]
fn with_no_clean_what_is_left_passes_for_nothing() {
    strike_all("failing calls of basebackup --no-clean", 10, &ERRORS, &["--no-clean"]);
}

#[test]
fn a_signal_ends_the_backup_and_everything_is_removed() {
    let blows = MOMENTS.iter().flat_map(|call| ["INT", "TERM", "HUP"].map(|signal| (*call, Blow::Signal(signal))));
    strike_all("signals to basebackup", 25, &blows.collect::<Vec<_>>(), &[]);
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_that_passes_for_one() {
    let blows: Vec<_> = MOMENTS.iter().map(|call| (*call, Blow::Signal("KILL"))).collect();
    strike_all("SIGKILL to basebackup", 25, &blows, &[]);
}

#[test]
fn who_was_started_to_ignore_a_hangup_goes_on() {
    if !possible("basebackup under nohup") {
        return;
    }
    let site = Site::new("0");
    let way = &WAYS[0];
    let target = site.home().join("backup");
    let hangup = Strike { call: "mkdirat", when: 5, blow: Blow::Signal("HUP") };
    let output = site.struck("pg_basebackup", &way.arguments(&site.home(), &[]), &hangup);
    assert_eq!((End::of(&output, "a hangup"), is_published(&target)), (End::Failure, false), "{}", said(&output));
    let output = site.struck_without_hangup("pg_basebackup", &way.arguments(&site.home(), &[]), &hangup);
    assert_eq!((End::of(&output, "nohup"), is_published(&target)), (End::Success, true), "{}", said(&output));
}

#[test]
fn forcing_a_backup_to_disk_can_be_interrupted() {
    if !possible("basebackup interrupted at fsync") {
        return;
    }
    let site = Site::new("0");
    for (way, when) in [(&WAYS[0], 20), (&WAYS[1], 1)] {
        let interrupt = Strike { call: "fsync", when, blow: Blow::Signal("INT") };
        let end = strike(&site, way, &[], &interrupt);
        assert_eq!(end, End::Failure, "{}", way.name);
    }
}
