//! `combinebackup`, struck at its system calls.

use super::chance::{Chance, strikes};
use super::site::{End, Site, Tally, is_published, published_and_wrong, remove_all, said};
use super::strike::{Blow, Strike, possible};

const ERRORS: [(&str, Blow); 12] = [
    ("read", Blow::Error("EIO")),
    ("pread64", Blow::Error("EIO")),
    ("write", Blow::Error("ENOSPC")),
    ("write", Blow::Error("EIO")),
    ("fsync", Blow::Error("EIO")),
    ("openat", Blow::Error("EMFILE")),
    ("openat", Blow::Error("ENOSPC")),
    ("mkdirat", Blow::Error("ENOSPC")),
    ("symlinkat", Blow::Error("EACCES")),
    ("renameat", Blow::Error("EIO")),
    ("copy_file_range", Blow::Error("ENOSPC")),
    ("linkat", Blow::Error("EMLINK")),
];

const MOMENTS: [&str; 7] = ["read", "write", "fsync", "openat", "mkdirat", "copy_file_range", "linkat"];

/// Ways to copy whole files.
const WAYS: [&str; 3] = ["--copy", "--copy-file-range", "--link"];

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A site with a full backup and an incremental one.
fn site() -> Site {
    let site = Site::new("0");
    for (name, more) in [("full", ""), ("incremental", " -i full/backup_manifest")] {
        let space = site.home().join(format!("{name}-space"));
        let options = format!("-w -cfast -N -D {name} -T/srv/space={}{more}", space.display());
        let output = site.run("pg_basebackup", &words(&options));
        assert!(output.status.success(), "{}", said(&output));
    }
    site
}

fn arguments(site: &Site, way: &str) -> Vec<String> {
    let home = site.home().display().to_string();
    words(&format!("full incremental -d -o combined -T{home}/incremental-space={home}/space {way}"))
}

fn strike(site: &Site, way: &'static str, strike: &Strike) -> End {
    let places = [site.home().join("combined"), site.home().join("space")];
    remove_all(&places);
    let before = site.picture(&places);
    let output = site.struck("pg_combinebackup", &arguments(site, way), strike);
    let what = format!("{way}: {strike}");
    let end = End::of(&output, &what);
    assert_eq!(before.changes(&site.picture(&places)), Vec::<String>::new(), "{what}");
    assert_eq!(published_and_wrong(&places[0]), None, "{what}: {end:?}\n{}", said(&output));
    let left: Vec<_> = places.iter().filter(|place| place.symlink_metadata().is_ok()).collect();
    match end {
        End::Success => assert!(is_published(&places[0]), "{what}\n{}", said(&output)),
        End::Killed(9) => {}
        // Every thread counts its own calls: the one that removes may be struck once more, and says so.
        End::Failure | End::Killed(_) => {
            let told = said(&output).contains("error: failed to remove ");
            assert!(left.is_empty() || told, "{what}: {left:?} is left\n{}", said(&output));
        }
    }
    end
}

fn strike_all(test: &'static str, count: usize, blows: &[(&'static str, Blow)]) {
    if !possible(test) {
        return;
    }
    let (site, mut chance, mut tally) = (site(), Chance::of(test), Tally::of(test));
    for way in WAYS {
        remove_all(&["combined", "space"].map(|place| site.home().join(place)));
        let calls = site.calls("pg_combinebackup", &arguments(&site, way));
        assert_eq!(published_and_wrong(&site.home().join("combined")), None, "{way}");
        for drawn in calls.draw(&mut chance, blows, strikes(count)) {
            tally.count(way, strike(&site, way, &drawn));
        }
    }
    tally.tell();
}

#[test]
fn a_system_call_that_fails_ends_it_and_everything_is_removed() {
    strike_all("failing calls of combinebackup", 15, &ERRORS);
}

#[test]
fn a_signal_ends_it_and_nothing_is_left_that_passes_for_a_backup() {
    let signals = ["INT", "TERM", "HUP", "KILL"];
    let blows = MOMENTS.iter().flat_map(|call| signals.map(|signal| (*call, Blow::Signal(signal))));
    strike_all("signals to combinebackup", 15, &blows.collect::<Vec<_>>());
}
