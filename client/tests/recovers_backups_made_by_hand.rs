//! Small backups of no server, incremental by LSN: put together, refused for every reason there is, and on disks that fail at every
//! step.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_client::Disk;
use backstop_client::recover::{RecoverObserver, RecoverOptions, Recovered, recover};
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::profile::{self, BackupProfile, PageLsns, ProfileFile};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{BLOCK_SIZE, PageHeader};
use support::failing_disk::Failing;

const SYSTEM: u64 = 7_710_000_000_000_000_001;
const START: [u64; 3] = [0x200_0028, 0x400_0028, 0x600_0028];

fn pages(lsns: &[u64]) -> Vec<u8> {
    let page = |lsn: &u64| {
        let mut page = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(*lsn)).write(&mut page);
        page[100] = u8::try_from(lsn & 0xFF).unwrap();
        page
    };
    lsns.iter().flat_map(page).collect()
}

/// The files of the cluster when backup number `backup` is taken.
fn cluster(backup: usize) -> Vec<(String, Vec<u8>)> {
    let old = |lsns: &[u64]| pages(lsns);
    let mut control = vec![0; 8192];
    control[..8].copy_from_slice(&SYSTEM.to_le_bytes());
    control[100] = u8::try_from(backup).unwrap();
    vec![
        ("PG_VERSION".to_owned(), b"9.5\n".to_vec()),
        ("base/1/1247".to_owned(), old(&[0x100_0001, 0x100_0009])),
        // Cut off after the first backup, which sets no LSN on what remains.
        ("base/1/1249".to_owned(), if backup == 0 { old(&[0x100_0002, 0x100_0007]) } else { old(&[0x100_0002]) }),
        ("base/1/1255".to_owned(), if backup == 0 { old(&[0x100_0003]) } else { old(&[0x300_0003]) }),
        ("base/1/1259".to_owned(), old(&[0x100_0004 + if backup == 2 { 0x400_0000 } else { 0 }])),
        ("base/1/1259_vm".to_owned(), old(&[0x100_0005])),
        ("base/1/2619".to_owned(), Vec::new()),
        ("pg_tblspc/16400/PG_9.5_201510051/1/16401".to_owned(), old(&[0x100_0006])),
        ("global/pg_control".to_owned(), control),
    ]
}

fn label(backup: usize) -> String {
    let start = Lsn(START[backup]);
    let from = backup.checked_sub(1).map(|base| format!("INCREMENTAL FROM LOCATION: {}\n", Lsn(START[base])));
    format!(
        "START WAL LOCATION: {start} (file {:024X})\nCHECKPOINT LOCATION: {}\n{}BACKUP METHOD: streamed\n\
         BACKUP FROM: master\nSTART TIME: 2014-10-14 14:31:28 UTC\nLABEL: by hand\n",
        (1_u128 << 64) + u128::from(start.0 >> 24),
        Lsn(start.0 + 0x58),
        from.unwrap_or_default(),
    )
}

fn highest(content: &[u8]) -> Option<Lsn> {
    let mut lsns = PageLsns::default();
    lsns.update(content);
    lsns.highest()
}

struct Chain {
    scratch: tempfile::TempDir,
}

impl Chain {
    /// A full backup and two on top of it, with a tablespace.
    fn new() -> Self {
        let chain = Self { scratch: tempfile::tempdir().unwrap() };
        for backup in 0..3 {
            chain.take(backup);
        }
        chain
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn backup(&self, number: usize) -> PathBuf {
        self.path(["sunday", "monday", "tuesday"][number])
    }

    fn take(&self, backup: usize) {
        let directory = self.backup(backup);
        let space = self.path(&format!("space {backup}"));
        for name in ["base/1", "global", "pg_tblspc", "pg_xlog/archive_status", "pg_notify"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        fs::create_dir_all(space.join("PG_9.5_201510051/1")).unwrap();
        symlink(&space, directory.join("pg_tblspc/16400")).unwrap();
        fs::write(directory.join("pg_xlog/000000010000000000000002"), format!("WAL of {backup}")).unwrap();
        let label = label(backup);
        let mut files = vec![("backup_label".to_owned(), label.clone().into_bytes())];
        files.extend(cluster(backup));
        let since = backup.checked_sub(1).map(|base| Lsn(START[base]));
        let files = files.into_iter().map(|(path, content)| {
            let old = highest(&content).filter(|lsn| Some(*lsn) < since && profile::has_page_lsns(path.as_bytes()));
            if old.is_none() {
                fs::write(directory.join(&path), &content).unwrap();
            }
            let (tablespace, path) = ProfileFile::place(path.as_bytes());
            let size = content.len() as u64;
            ProfileFile { tablespace, lsn: old, sent: old.is_none(), modified: 1_413_297_088, size, path }
        });
        let parsed = BackupLabel::parse(&label).unwrap();
        let profile = BackupProfile { label: parsed, label_text: label, files: files.collect() }.to_bytes();
        self.seal(backup, &profile);
    }

    fn seal(&self, backup: usize, profile: &[u8]) {
        fs::write(self.backup(backup).join("backup_profile"), profile).unwrap();
        fs::write(self.backup(backup).join("backup_profile.sha256"), profile::checksum_file(profile)).unwrap();
    }

    /// Edits a profile and its checksum.
    fn edit(&self, backup: usize, from: &str, to: &str) {
        let text = fs::read_to_string(self.backup(backup).join("backup_profile")).unwrap();
        assert!(text.contains(from), "{from:?} in {text}");
        self.seal(backup, text.replacen(from, to, 1).as_bytes());
    }

    fn options(&self, backups: usize) -> RecoverOptions {
        let inputs: Vec<PathBuf> = (0..backups).map(|number| self.backup(number)).collect();
        let space = self.path(&format!("space {}", backups - 1));
        let tablespace_mapping = vec![(space, self.path("new space"))];
        RecoverOptions { tablespace_mapping, ..RecoverOptions::new(inputs, self.path("out")) }
    }

    /// The error, without where the test works, and that nothing was made.
    fn refused(&self, options: &RecoverOptions) -> String {
        let error = run(options).unwrap_err();
        assert!(!self.path("out").exists() && !self.path("new space").exists(), "{error}");
        error.replace(&format!("{}/", self.scratch.path().display()), "")
    }

    fn check(&self, backup: usize) {
        let out = self.path("out");
        for (path, content) in cluster(backup) {
            assert!(fs::read(out.join(&path)).unwrap() == content, "{path}");
        }
        assert_eq!(fs::read_link(out.join("pg_tblspc/16400")).unwrap(), self.path("new space"));
        assert!(out.join("pg_notify").is_dir() && out.join("pg_xlog/archive_status").is_dir());
        let wal = fs::read_to_string(out.join("pg_xlog/000000010000000000000002")).unwrap();
        assert_eq!(wal, format!("WAL of {backup}"));
        let text = fs::read_to_string(out.join("backup_label")).unwrap();
        let recovered = BackupLabel::parse(&text).unwrap();
        assert_eq!((recovered.start, recovered.incremental_from_location), (Lsn(START[backup]), None));
        let profile = BackupProfile::parse(&fs::read(out.join("backup_profile")).unwrap()).unwrap();
        assert!(profile.files.iter().all(|file| file.sent) && profile.label == recovered);
    }
}

#[derive(Debug, Default)]
struct Heard {
    warnings: Vec<String>,
    progress: Vec<(u64, u64)>,
}

impl RecoverObserver for Heard {
    fn warning(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.progress.push((done, total));
    }
}

fn run(options: &RecoverOptions) -> Result<(Recovered, Heard), String> {
    let mut heard = Heard::default();
    recover(options, &mut heard).map(|recovered| (recovered, heard)).map_err(|error| error.to_string())
}

#[test]
fn a_chain_becomes_a_full_backup_and_the_base_of_another() {
    let chain = Chain::new();
    let (recovered, heard) = run(&chain.options(3)).unwrap();
    chain.check(2);
    assert_eq!((recovered.sent, recovered.found), (5, 4));
    assert_eq!(heard.warnings, Vec::<String>::new());
    assert_eq!(heard.progress.last(), Some(&(recovered.bytes, recovered.bytes)));

    // Monday's result takes Tuesday's backup as Monday and Sunday together do.
    fs::remove_dir_all(chain.path("out")).unwrap();
    fs::remove_dir_all(chain.path("new space")).unwrap();
    run(&chain.options(2)).unwrap();
    chain.check(1);
    fs::rename(chain.path("out"), chain.path("base")).unwrap();
    let moved = [(chain.path("space 2"), chain.path("newer space"))];
    let inputs = [chain.path("base"), chain.backup(2)];
    let options =
        RecoverOptions { tablespace_mapping: moved.to_vec(), ..RecoverOptions::new(inputs, chain.path("out")) };
    run(&options).unwrap();
    for (path, content) in cluster(2) {
        assert!(fs::read(chain.path("out").join(&path)).unwrap() == content, "{path}");
    }
}

#[test]
fn a_base_needs_no_profile() {
    let chain = Chain::new();
    fs::remove_file(chain.backup(0).join("backup_profile")).unwrap();
    fs::remove_file(chain.backup(0).join("backup_profile.sha256")).unwrap();
    run(&chain.options(3)).unwrap();
    chain.check(2);
}

#[test]
fn what_is_no_chain_is_refused() {
    let chain = Chain::new();
    let with = |inputs: &[usize]| RecoverOptions {
        inputs: inputs.iter().map(|number| chain.backup(*number)).collect(),
        ..chain.options(3)
    };
    let mut told = vec![
        chain.refused(&with(&[1, 2])),
        chain.refused(&with(&[0, 0])),
        chain.refused(&with(&[0, 2])),
        chain.refused(&with(&[0, 2, 1])),
        chain.refused(&RecoverOptions { tablespace_mapping: Vec::new(), ..chain.options(3) }),
        chain.refused(&RecoverOptions { inputs: vec![chain.path("nowhere")], ..chain.options(3) }),
        chain.refused(&RecoverOptions { inputs: vec![chain.path("space 0")], ..chain.options(3) }),
        chain.refused(&RecoverOptions { inputs: Vec::new(), ..chain.options(3) }),
    ];
    let inside = RecoverOptions { output: chain.path("monday/out"), ..chain.options(3) };
    told.push(chain.refused(&inside));
    assert!(!chain.path("monday/out").exists());
    fs::create_dir(chain.path("there")).unwrap();
    told.push(chain.refused(&RecoverOptions { output: chain.path("there"), ..chain.options(3) }));
    insta::assert_snapshot!(told.join("\n"));
}

/// Spoils a chain, and tells what is said of it.
fn spoilt(spoil: impl FnOnce(&Chain)) -> String {
    let chain = Chain::new();
    spoil(&chain);
    chain.refused(&chain.options(3))
}

fn change(path: &Path, at: usize, value: u8) {
    let mut content = fs::read(path).unwrap();
    content[at] = value;
    fs::write(path, content).unwrap();
}

#[test]
fn a_base_that_is_not_the_base_is_refused() {
    let sunday = |name: &'static str| move |chain: &Chain| chain.backup(0).join(name);
    let told = [
        spoilt(|chain| change(&sunday("global/pg_control")(chain), 0, 7)),
        spoilt(|chain| fs::write(sunday("PG_VERSION")(chain), "9.4\n").unwrap()),
        spoilt(|chain| fs::rename(sunday("backup_label")(chain), sunday("backup_label.old")(chain)).unwrap()),
        spoilt(|chain| fs::remove_file(sunday("base/1/1247")(chain)).unwrap()),
        spoilt(|chain| fs::write(sunday("base/1/1247")(chain), pages(&[1, 2, 3])).unwrap()),
        // Another content of the same size: of another moment.
        spoilt(|chain| fs::write(sunday("base/1/1247")(chain), pages(&[0x100_0001, 0x100_000A])).unwrap()),
        spoilt(|chain| fs::write(sunday("base/1/1249")(chain), pages(&[0x100_0008, 0x100_0007])).unwrap()),
        spoilt(|chain| fs::write(sunday("base/1/99999")(chain), "who knows").unwrap()),
        spoilt(|chain| {
            fs::remove_file(sunday("base/1/1247")(chain)).unwrap();
            fs::remove_file(sunday("backup_profile")(chain)).unwrap();
        }),
        spoilt(|chain| {
            fs::write(sunday("base/1/1247")(chain), pages(&[0x100_0009])).unwrap();
            fs::remove_file(sunday("backup_profile")(chain)).unwrap();
        }),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_profile_that_is_cut_or_edited_is_refused() {
    let profile = |chain: &Chain| chain.backup(2).join("backup_profile");
    let cut = |lines: usize| {
        move |chain: &Chain| {
            let text = fs::read_to_string(chain.backup(2).join("backup_profile")).unwrap();
            let count = text.lines().count();
            let kept: String = text.split_inclusive('\n').take(count - lines).collect();
            chain.seal(2, kept.as_bytes());
        }
    };
    let edited = |from: &'static str, to: &'static str| spoilt(|chain| chain.edit(2, from, to));
    let unsent = "\\N\t0/1000009\tf\t1413297088\t16384\tbase/1/1247\n";
    let told = [
        // Its checksum is beside it, so that no edit goes unnoticed.
        spoilt(|chain| change(&profile(chain), 10, b'x')),
        spoilt(|chain| {
            let text = fs::read_to_string(profile(chain)).unwrap();
            fs::write(profile(chain), text.replace(unsent, "")).unwrap();
        }),
        // Whoever edits that, too, is found out by what lies there.
        spoilt(cut(1)),
        spoilt(|chain| chain.seal(2, b"")),
        edited("FILE LIST\n", ""),
        edited("LABEL: by hand", "LABEL: by foot"),
        edited(unsent, "\\N\t0/1000008\tf\t1413297088\t16384\tbase/1/1247\n"),
        edited(unsent, "\\N\t0/1000009\tf\t1413297088\t8192\tbase/1/1247\n"),
        edited(unsent, "\\N\t0/1000009\tf\t1413297088\t24576\tbase/1/1247\n"),
        edited(unsent, "\\N\t0/1000009\tf\t1413297088\t16383\tbase/1/1247\n"),
        edited(unsent, "\\N\t0/1000009\tf\t1413297088\t16384\tbase/1/1248\n"),
        edited(unsent, "16400\t0/1000009\tf\t1413297088\t16384\tbase/1/1247\n"),
        edited(unsent, "\\N\t\\N\tt\t1413297088\t16384\tbase/1/1247\n"),
        edited("\\N\t\\N\tt\t1413297088\t8192\tbase/1/1259\n", "\\N\t0/5000004\tf\t1413297088\t8192\tbase/1/1259\n"),
        edited("8192\tbase/1/1259\n", "16384\tbase/1/1259\n"),
        edited("base/1/1259\n", "../../1259\n"),
    ];
    insta::assert_snapshot!(told.join("\n"));
    // A profile that nothing vouches for is taken, and a person is told.
    let chain = Chain::new();
    fs::remove_file(chain.backup(2).join("backup_profile.sha256")).unwrap();
    let (_, heard) = run(&chain.options(3)).unwrap();
    assert!(heard.warnings[0].ends_with("has no checksum: it cannot be told whether it was changed"));
}

#[test]
fn an_incremental_backup_that_is_not_whole_is_refused() {
    let tuesday = |name: &'static str| move |chain: &Chain| chain.backup(2).join(name);
    let told = [
        spoilt(|chain| fs::remove_file(tuesday("base/1/1259")(chain)).unwrap()),
        spoilt(|chain| fs::write(tuesday("base/1/1259")(chain), "short").unwrap()),
        spoilt(|chain| fs::write(tuesday("base/1/1247")(chain), pages(&[1, 2])).unwrap()),
        spoilt(|chain| fs::remove_file(tuesday("backup_profile")(chain)).unwrap()),
        spoilt(|chain| fs::write(tuesday("global/pg_control")(chain), "x").unwrap()),
        spoilt(|chain| fs::remove_file(tuesday("global/pg_control")(chain)).unwrap()),
        spoilt(|chain| symlink("/etc/passwd", tuesday("base/1/7")(chain)).unwrap()),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn nothing_is_left_when_a_step_fails() {
    let chain = Chain::new();
    let mut steps = 0;
    loop {
        let disk = Arc::new(Failing::at(steps, false));
        let options = RecoverOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..chain.options(3) };
        let result = run(&options).map(|_| ());
        if !disk.failed.load(Ordering::Relaxed) {
            result.unwrap();
            break;
        }
        assert!(result.is_err(), "step {steps}");
        assert!(!chain.path("out").exists() && !chain.path("new space").exists(), "step {steps}: {result:?}");
        steps += 1;
    }
    assert!(steps > 50, "{steps}");
    chain.check(2);
}

#[test]
fn what_a_crash_leaves_is_whole_or_starts_no_server() {
    let chain = Chain::new();
    let (mut steps, mut partial) = (0, 0);
    loop {
        let disk = Arc::new(Failing::at(steps, true));
        let options = RecoverOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..chain.options(3) };
        let result = run(&options).map(|_| ());
        if chain.path("out/global/pg_control").exists() {
            chain.check(2);
        } else {
            partial += 1;
        }
        if result.is_ok() {
            break;
        }
        steps += 1;
        let _ = fs::remove_dir_all(chain.path("out"));
        let _ = fs::remove_dir_all(chain.path("new space"));
    }
    assert!(partial > 40 && steps > 50, "{partial} of {steps}");
}

#[test]
fn a_cancelled_recovery_leaves_nothing() {
    let chain = Chain::new();
    let options = chain.options(3);
    options.cancel.store(true, Ordering::Relaxed);
    assert_eq!(chain.refused(&options), "canceled by user");
}
