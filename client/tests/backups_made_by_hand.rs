//! Small backups of no server: combined on disks that fail at every step, and verified whatever their bytes are.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_client::combine::{CombineObserver, CombineOptions, CopyMethod, combine_backups};
use backstop_client::verifybackup::{Finding, VerifyObserver, VerifyOptions, verify_backup};
use backstop_client::{Disk, RealDisk};
use backstop_protocol::base_backup::incremental::IncrementalHeader;
use backstop_protocol::base_backup::manifest::{
    ChecksumAlgorithm, ChecksumHasher, ManifestFile, ManifestWriter, WalRange,
};
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use proptest::prelude::*;
use support::failing_disk::Failing;

const SYSTEM_IDENTIFIER: u64 = 7_710_000_000_000_000_001;
const START: [u64; 2] = [0x200_0028, 0x400_0028];

/// Keeps what was found.
#[derive(Default)]
struct Findings(Vec<String>);

impl VerifyObserver for Findings {
    fn found(&mut self, finding: &Finding) {
        self.0.push(finding.to_string());
    }
}

impl CombineObserver for Findings {
    fn warning(&mut self, text: &str, _hint: Option<&str>) {
        self.0.push(text.to_owned());
    }
}

fn block(content: u8) -> Vec<u8> {
    vec![content; 8192]
}

/// What is in the files of the full backup and of the one that builds on it, by number.
fn files(backup: usize) -> Vec<(String, Vec<u8>)> {
    let control = ControlFile::new(ServerVersion::V18, SYSTEM_IDENTIFIER, TimelineId(1));
    let control = ControlFile { checkpoint: Lsn(START[backup] + 0x58), ..control };
    let start = Lsn(START[backup]);
    let mut label = format!(
        "START WAL LOCATION: {start} (file {:024X})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\n\
         BACKUP FROM: primary\nSTART TIME: 2026-11-21 01:49:34 UTC\nLABEL: by hand\nSTART TIMELINE: 1\n",
        (1_u128 << 64) + u128::from(start.0 >> 24),
        Lsn(start.0 + 0x58)
    );
    let relation = if backup == 0 {
        ("base/5/1259".to_owned(), [block(1), block(2), block(3)].concat())
    } else {
        writeln!(label, "INCREMENTAL FROM LSN: {}\nINCREMENTAL FROM TLI: 1", Lsn(START[0])).unwrap();
        let header = IncrementalHeader::new(3, vec![1]).unwrap();
        ("base/5/INCREMENTAL.1259".to_owned(), [header.encode(), block(9)].concat())
    };
    vec![
        ("PG_VERSION".to_owned(), b"18\n".to_vec()),
        ("backup_label".to_owned(), label.into_bytes()),
        ("base/5/PG_VERSION".to_owned(), b"18\n".to_vec()),
        relation,
        ("base/5/2619".to_owned(), block(u8::try_from(backup).unwrap())),
        ("global/pg_control".to_owned(), control.encode()),
    ]
}

fn manifest(files: &[(String, Vec<u8>)], start: u64) -> Vec<u8> {
    let mut writer = ManifestWriter::new(2, Some(SYSTEM_IDENTIFIER), false);
    let mut text = Vec::new();
    for (path, content) in files {
        let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
        hasher.update(content);
        let file = ManifestFile {
            path: path.clone().into_bytes(),
            size: content.len() as u64,
            last_modified: "2026-11-21 01:49:34 GMT".to_owned(),
            checksum: Some((ChecksumAlgorithm::Crc32c, hasher.finish())),
        };
        writer.add_file(&file, &mut text);
    }
    let range = WalRange { timeline: TimelineId(1), start: Lsn(start), end: Lsn(start + 0xF8) };
    writer.finish(&[range], &mut text);
    text
}

fn directories() -> Vec<&'static str> {
    let mut directories = ServerVersion::V18.data_directories();
    directories.extend(["base", "base/5", "global"]);
    directories
}

/// Writes a plain backup.
fn plain(directory: &Path, backup: usize) {
    plain_of(directory, backup, &files(backup));
}

fn plain_of(directory: &Path, backup: usize, files: &[(String, Vec<u8>)]) {
    for name in directories() {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    for (path, content) in files {
        fs::write(directory.join(path), content).unwrap();
    }
    fs::write(directory.join("backup_manifest"), manifest(files, START[backup])).unwrap();
}

/// The full backup as an archive.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    for name in directories() {
        add(&format!("{name}/"), tar::EntryType::Directory, &[]);
    }
    for (path, content) in files(0) {
        add(&path, tar::EntryType::Regular, &content);
    }
    builder.into_inner().unwrap()
}

fn verify(directory: &Path) -> Result<(), String> {
    let options = VerifyOptions { parse_wal: false, ..VerifyOptions::new(directory) };
    let mut findings = Findings::default();
    match verify_backup(&options, &mut findings) {
        Ok(true) => Ok(()),
        Ok(false) => Err(findings.0.join("\n")),
        Err(error) => Err(error.to_string()),
    }
}

struct Chain {
    scratch: tempfile::TempDir,
}

impl Chain {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        plain(&scratch.path().join("full"), 0);
        plain(&scratch.path().join("inc"), 1);
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn options(&self) -> CombineOptions {
        CombineOptions::new([self.path("full"), self.path("inc")], self.path("out"))
    }
}

fn combine(options: &CombineOptions) -> Result<Vec<String>, String> {
    let mut findings = Findings::default();
    combine_backups(options, &mut findings).map(|()| findings.0).map_err(|error| error.to_string())
}

#[test]
fn a_chain_becomes_a_full_backup() {
    let chain = Chain::new();
    for method in [CopyMethod::Copy, CopyMethod::Link, CopyMethod::CopyFileRange] {
        combine(&CombineOptions { copy_method: method, ..chain.options() }).unwrap();
        let out = chain.path("out");
        assert_eq!(verify(&out), Ok(()), "{method:?}");
        assert_eq!(fs::read(out.join("base/5/1259")).unwrap(), [block(1), block(9), block(3)].concat());
        assert!(!fs::read_to_string(out.join("backup_label")).unwrap().contains("INCREMENTAL"));
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn nothing_is_left_when_a_step_fails() {
    let chain = Chain::new();
    let mut steps = 0;
    loop {
        let disk = Arc::new(Failing::at(steps, false));
        let result = combine(&CombineOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..chain.options() });
        if !disk.failed.load(Ordering::Relaxed) {
            result.unwrap();
            break;
        }
        assert!(result.is_err(), "step {steps}");
        assert!(!chain.path("out").exists(), "step {steps}: {result:?}");
        steps += 1;
    }
    assert!(steps > 60, "{steps}");
    assert_eq!(verify(&chain.path("out")), Ok(()));
}

#[test]
fn what_a_crash_leaves_is_whole_or_no_backup() {
    let chain = Chain::new();
    let out = chain.path("out");
    let (mut steps, mut partial) = (0, 0);
    loop {
        let disk = Arc::new(Failing::at(steps, true));
        let result = combine(&CombineOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..chain.options() });
        let failed = disk.failed.load(Ordering::Relaxed);
        assert_eq!(result.is_err(), failed, "step {steps}");
        let manifest = out.join("backup_manifest").exists();
        if out.join("global/pg_control").exists() {
            // A server would start: then nothing may be missing.
            let relation = fs::read(out.join("base/5/1259")).unwrap();
            assert_eq!(relation, [block(1), block(9), block(3)].concat(), "step {steps}");
            assert!(!manifest || verify(&out).is_ok(), "step {steps}");
        } else {
            assert!(!manifest, "step {steps}");
            partial += 1;
        }
        if !failed {
            break;
        }
        steps += 1;
        let _ = fs::remove_dir_all(&out);
    }
    assert!(partial > 55 && steps > 60, "{partial} of {steps}");
}

#[test]
fn a_cancelled_combination_leaves_nothing() {
    let chain = Chain::new();
    let options = chain.options();
    options.cancel.store(true, Ordering::Relaxed);
    assert_eq!(combine(&options), Err("canceled by user".to_owned()));
    assert!(!chain.path("out").exists());
}

/// Lets everything happen but the making of one directory.
#[derive(Debug)]
struct Without(&'static str);

impl Disk for Without {
    fn change(&self, path: &Path, work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if path.ends_with(self.0) { Err(io::ErrorKind::StorageFull.into()) } else { work() }
    }
}

#[test]
fn the_first_problem_in_the_order_of_names_is_told() {
    let chain = Chain::new();
    let disk: Arc<dyn Disk> = Arc::new(Without("global"));
    let options = CombineOptions { disk, ..chain.options() };
    let problem = combine(&options).unwrap_err();
    assert!(problem.starts_with("could not create directory"), "{problem}");
    // Files are made behind the directories that were found with them.
    let path = chain.path("inc/base/5/2619");
    fs::write(&path, block(7)).unwrap();
    assert_eq!(combine(&options), Err(format!("checksum mismatch for file \"{}\"", path.display())));
    assert!(!chain.path("out").exists());
}

#[test]
fn inputs_are_verified_if_that_is_asked_for() {
    let chain = Chain::new();
    // In a block that the output does not need.
    let path = chain.path("full/base/5/1259");
    let mut content = fs::read(&path).unwrap();
    content[9000] ^= 1;
    fs::write(&path, content).unwrap();
    assert_eq!(combine(&chain.options()), Ok(vec![]));
    fs::remove_dir_all(chain.path("out")).unwrap();
    let options = CombineOptions { verify_inputs: true, disk: Arc::new(RealDisk), ..chain.options() };
    let problem = combine(&options).unwrap_err();
    assert!(problem.ends_with("is damaged: checksum mismatch for file \"base/5/1259\""), "{problem}");
    assert!(!chain.path("out").exists());
}

/// A large file is read in several places at once.
#[test]
fn damage_in_any_part_of_a_large_file_is_found_once() {
    const MIB: u64 = 1 << 20;
    let scratch = tempfile::tempdir().unwrap();
    let path = "base/5/16384";
    let mut files = files(0);
    files.push((path.to_owned(), [block(4), vec![0; 70 << 20], block(5)].concat()));
    plain_of(scratch.path(), 0, &files);
    assert_eq!(verify(scratch.path()), Ok(()));
    let file = fs::File::options().write(true).open(scratch.path().join(path)).unwrap();
    for offset in [0, 31 * MIB, 32 * MIB, 63 * MIB, 64 * MIB, 70 * MIB + 16_383] {
        file.write_all_at(&[1], offset).unwrap();
        assert_eq!(verify(scratch.path()), Err(format!("checksum mismatch for file \"{path}\"")), "{offset}");
        let before = if offset == 0 {
            4
        } else if offset > 70 * MIB {
            5
        } else {
            0
        };
        file.write_all_at(&[before], offset).unwrap();
    }
    assert_eq!(verify(scratch.path()), Ok(()));
}

#[test]
fn archives_are_read_however_they_are_compressed() {
    let scratch = tempfile::tempdir().unwrap();
    let archive = archive();
    let lz4 = |bytes: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let changed = {
        let mut archive = archive.clone();
        let at = archive.windows(8192).position(|window| window == block(2)).unwrap();
        archive[at] ^= 1;
        archive
    };
    for (name, encode) in [("base.tar.lz4", &lz4 as &dyn Fn(&[u8]) -> Vec<u8>), ("base.tar.zst", &zstd)] {
        let backup = scratch.path().join(name);
        fs::create_dir(&backup).unwrap();
        fs::write(backup.join("backup_manifest"), manifest(&files(0), START[0])).unwrap();
        let write = |bytes: &[u8]| fs::write(backup.join(name), bytes).unwrap();
        write(&encode(&archive));
        assert_eq!(verify(&backup), Ok(()), "{name}");
        write(&encode(&changed));
        assert_eq!(verify(&backup), Err(format!("checksum mismatch for file \"base/5/1259\" in archive \"{name}\"")));
        let whole = encode(&archive);
        write(&whole[..whole.len() / 2]);
        let problem = verify(&backup).unwrap_err();
        assert!(problem.starts_with(&format!("archive \"{name}\": ")), "{problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_a_manifest_that_is_refused(noise: Vec<u8>, at: proptest::sample::Index, cut: proptest::sample::Index) {
        let scratch = tempfile::tempdir().unwrap();
        plain(scratch.path(), 0);
        let mut text = manifest(&files(0), START[0]);
        let at = at.index(text.len());
        text.splice(at..at, noise.iter().copied());
        let cut = cut.index(text.len() + 1);
        for content in [&noise[..], &text, &text[..cut]] {
            fs::write(scratch.path().join("backup_manifest"), content).unwrap();
            let sound = content == manifest(&files(0), START[0]);
            prop_assert_eq!(verify(scratch.path()).is_ok(), sound);
        }
    }

    #[test]
    fn any_bytes_are_an_archive_that_is_refused(
        noise in proptest::collection::vec(any::<u8>(), 1..600),
        at: proptest::sample::Index,
        which in 0_usize..4,
    ) {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("backup_manifest"), manifest(&files(0), START[0])).unwrap();
        let name = ["base.tar", "base.tar.gz", "base.tar.lz4", "base.tar.zst"][which];
        let mut content = archive();
        let at = at.index(content.len());
        content.splice(at..at, noise.iter().copied());
        for content in [&noise, &content] {
            fs::write(scratch.path().join(name), content).unwrap();
            prop_assert!(verify(scratch.path()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_an_incremental_file_that_does_no_harm(
        noise in proptest::collection::vec(any::<u8>(), 1..100),
        at: proptest::sample::Index,
    ) {
        let chain = Chain::new();
        let path = chain.path("inc/base/5/INCREMENTAL.1259");
        let mut content = fs::read(&path).unwrap();
        let at = at.index(content.len());
        content.splice(at..at, noise.iter().copied());
        for content in [&noise, &content] {
            fs::write(&path, content).unwrap();
            prop_assert!(combine(&chain.options()).is_err());
            prop_assert!(!chain.path("out").exists());
        }
    }
}
