//! `receivewal`, struck at its system calls while WAL flows, and then started again: its archive is as if nothing had been.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::chance::{Chance, strikes};
use super::site::{End, Site, Tally, remove, said};
use super::strike::{Blow, Strike, possible};

const SEGMENT: u64 = 1 << 20;

/// How much WAL a run receives: two segments are completed, and one is begun.
const AMOUNT: u64 = 2 * SEGMENT + SEGMENT / 2;

const BLOWS: [(&str, Blow); 22] = [
    ("write", Blow::Error("ENOSPC")),
    ("write", Blow::Error("EIO")),
    ("pwrite64", Blow::Error("ENOSPC")),
    ("fsync", Blow::Error("EIO")),
    ("fdatasync", Blow::Error("EIO")),
    ("ftruncate", Blow::Error("ENOSPC")),
    ("openat", Blow::Error("EMFILE")),
    ("rename", Blow::Error("EIO")),
    ("renameat", Blow::Error("EIO")),
    ("recvfrom", Blow::Error("ECONNRESET")),
    ("sendto", Blow::Error("EPIPE")),
    ("write", Blow::Signal("KILL")),
    ("fsync", Blow::Signal("KILL")),
    ("rename", Blow::Signal("KILL")),
    ("renameat", Blow::Signal("KILL")),
    ("recvfrom", Blow::Signal("KILL")),
    ("write", Blow::Signal("INT")),
    ("fsync", Blow::Signal("INT")),
    ("recvfrom", Blow::Signal("INT")),
    ("recvfrom", Blow::Signal("TERM")),
    ("openat", Blow::Signal("TERM")),
    ("sendto", Blow::Signal("INT")),
];

const WAYS: [&str; 3] = ["", "--synchronous", "--compress=gzip:1"];

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// Where streaming began.
fn start_of(said: &str) -> Lsn {
    let position = said.lines().find_map(|line| line.split_once("starting log streaming at ")?.1.split(' ').next());
    position.expect(said).parse().expect("a position")
}

/// Makes a slot that holds WAL from now on. One that `--create-slot` makes does not before it is used; others hold it from the
/// last checkpoint on, and this makes one.
fn create_slot(site: &Site, name: &str) {
    site.command("BASE_BACKUP (CHECKPOINT 'fast', WAIT 0, TARGET 'blackhole')");
    site.command(&format!("CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL"));
}

fn drop_slot(site: &Site, name: &str) {
    site.command(&format!("DROP_REPLICATION_SLOT {name}"));
}

fn empty_directory(path: &Path) {
    remove(path);
    fs::create_dir(path).expect("a directory");
}

/// The segment that a receiver begins with that has neither files nor a slot.
fn now(site: &Site) -> Lsn {
    let probe = site.home().join("probe");
    empty_directory(&probe);
    let position = start_of(&succeed(&site.run("pg_receivewal", &words("-w -v -n -D probe --endpos=0/1"))));
    remove(&probe);
    position
}

/// The complete segments of an archive, unpacked, and the name of what is not complete.
fn segments(archive: &Path) -> (BTreeMap<u64, Vec<u8>>, Vec<String>) {
    let (mut segments, mut others) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(archive).expect("an archive") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let content = fs::read(&path).expect("a segment");
        let (plain, content) = match name.strip_suffix(".gz") {
            Some(plain) => {
                let mut unpacked = Vec::new();
                let read = std::io::copy(&mut flate2::read::MultiGzDecoder::new(&content[..]), &mut unpacked);
                assert!(read.is_ok(), "{name}: {read:?}");
                (plain, unpacked)
            }
            None => (name.as_str(), content),
        };
        match plain.parse::<WalFileName>() {
            Ok(file) => {
                let size = WalSegmentSize::new(SEGMENT).expect("a size");
                assert_eq!((content.len() as u64, file.timeline), (SEGMENT, TimelineId(1)), "{name}");
                segments.insert(file.segment(size).expect("a segment"), content);
            }
            Err(_) => others.push(name),
        }
    }
    (segments, others)
}

fn strike(site: &Site, way: &'static str, name: &str, strike: &Strike) -> End {
    let (archive, reference) = (site.home().join("archive"), site.home().join("reference"));
    let reference_slot = format!("{name}_reference");
    empty_directory(&archive);
    empty_directory(&reference);
    create_slot(site, &reference_slot);
    create_slot(site, name);
    let end = Lsn(now(site).0 + AMOUNT);
    let options = words(&format!("-w -v -n -D archive -S {name} --endpos={end} {way}"));
    let before = site.picture(std::slice::from_ref(&archive));

    let output = site.struck("pg_receivewal", &options, strike);
    let what = format!("{way} {strike}");
    let ended = End::of(&output, &what);
    if let Blow::Signal("INT" | "TERM") = strike.blow {
        // Before it is ready to hear of them, there is nothing to end in good order.
        assert!(matches!(ended, End::Success | End::Killed(_)), "{what}: {ended:?}\n{}", said(&output));
    }
    let (struck, _) = segments(&archive);

    // On from where that one stopped, and as far as it should have come.
    let resumed = site.run("pg_receivewal", &options);
    assert!(resumed.status.success(), "{what}: {ended:?}\n{}\nthen\n{}", said(&output), said(&resumed));
    let (whole, others) = segments(&archive);
    assert_eq!(before.changes(&site.picture(std::slice::from_ref(&archive))), Vec::<String>::new(), "{what}");
    let numbers: Vec<_> = whole.keys().copied().collect();
    let last = end.0 / SEGMENT;
    assert!(numbers.iter().copied().eq(last - numbers.len() as u64..last), "{what}: a hole: {numbers:?} before {end}");
    assert!(
        numbers.len() >= 2 && others.len() == 1,
        "{what}: {numbers:?} {others:?}\n{}\nthen\n{}",
        said(&output),
        said(&resumed)
    );
    for (number, content) in &struck {
        assert!(whole.get(number) == Some(content), "{what}: segment {number} changed");
    }
    // What a receiver gets that nobody strikes.
    let options = words(&format!("-w -n -D reference -S {reference_slot} --endpos={end}"));
    succeed(&site.run("pg_receivewal", &options));
    let (sound, _) = segments(&reference);
    for (number, content) in &whole {
        assert!(sound.get(number) == Some(content), "{what}: segment {number} is not the server's");
    }
    drop_slot(site, name);
    drop_slot(site, &reference_slot);
    ended
}

#[test]
fn whatever_strikes_it_the_archive_is_whole_in_the_end() {
    let test = "receivewal";
    if !possible(test) {
        return;
    }
    let (site, mut chance, mut tally) = (Site::new("16MiB/s"), Chance::of(test), Tally::of(test));
    for (way_number, way) in WAYS.into_iter().enumerate() {
        empty_directory(&site.home().join("archive"));
        create_slot(&site, "count");
        let end = Lsn(now(&site).0 + AMOUNT);
        let calls = site.calls("pg_receivewal", &words(&format!("-w -v -n -D archive -S count --endpos={end} {way}")));
        drop_slot(&site, "count");
        for (number, drawn) in calls.draw(&mut chance, &BLOWS, strikes(12)).iter().enumerate() {
            let end = strike(&site, way, &format!("s{way_number}_{number}"), drawn);
            tally.count(if way.is_empty() { "plain" } else { way }, (drawn.blow, end));
        }
    }
    tally.tell();
}
