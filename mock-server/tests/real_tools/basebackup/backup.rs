//! One run of `pg_basebackup`, and what it left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Output;

use backstop_mock::cluster::{EntryKind, ground_truth};
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::{Installation, succeed};
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::installations;
use crate::served::{Served, TABLESPACES, said};

/// A tool, a server, and where the backup goes.
pub(crate) struct Backup<'a> {
    pub(crate) tool: &'a Installation,
    pub(crate) served: &'a Served,
    pub(crate) directory: PathBuf,
}

impl Backup<'_> {
    /// Runs `pg_basebackup` without a word about where to put the backup.
    pub(crate) fn run_bare(&self, options: &[&str]) -> Output {
        let mut command = self.tool.tool("pg_basebackup");
        self.served.connect(&mut command);
        command.args(["--progress", "--verbose", "--no-sync"]).args(options);
        self.tool.give(self.directory.parent().unwrap());
        let output = command.output().unwrap();
        // Nothing of a session outlives the tool, whatever came of it.
        self.served.idle();
        let state = self.served.server.state();
        assert_eq!((state.sessions, state.running_backups), (0, 0), "{options:?}: {}", said(&output));
        output
    }

    /// Runs `pg_basebackup` with options, into the directory. Tablespaces go beside it.
    pub(crate) fn run(&self, options: &[&str]) -> Output {
        let mut all = options.to_vec();
        let directory = self.directory.to_str().unwrap();
        all.extend(["-D", directory]);
        let mappings: Vec<OsString> = TABLESPACES.iter().map(|(oid, location)| self.mapping(*oid, location)).collect();
        for mapping in &mappings {
            all.extend(["-T", mapping.to_str().unwrap()]);
        }
        self.run_bare(&all)
    }

    fn mapping(&self, oid: u32, location: &str) -> OsString {
        let mut mapping = OsString::from(format!("{location}="));
        mapping.push(self.directory.with_extension(oid.to_string()));
        mapping
    }

    pub(crate) fn version(&self) -> ServerVersion {
        self.served.server.cluster().version()
    }

    /// Whether the server is of the tool's own release.
    pub(crate) fn at_home(&self) -> bool {
        self.version().name() == self.tool.major().to_string()
    }

    /// The file names in the directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let names =
            fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// What a person does with the archives, with a reader that is not ours: the data directory that comes of it.
    /// `suffix` is that of compressed archives; the WAL of the stream has its own.
    pub(crate) fn unpack(&self, suffix: &str, wal: Option<&str>) -> PathBuf {
        let whole = self.directory.with_extension("unpacked");
        let archive = |name: &str, suffix: &str, into: &Path| {
            assert!(!into.is_symlink());
            fs::create_dir_all(into).unwrap();
            let file = File::open(self.directory.join(format!("{name}.tar{suffix}"))).unwrap();
            tar::Archive::new(decompressed(file, suffix)).unpack(into).unwrap();
        };
        archive("base", suffix, &whole);
        for tablespace in self.served.server.cluster().tablespaces() {
            archive(&tablespace.oid.to_string(), suffix, &whole.join(format!("pg_tblspc/{}", tablespace.oid)));
        }
        if let Some(suffix) = wal {
            let directory = self.version().wal_directory();
            archive(directory, suffix, &whole.join(directory));
        }
        if self.directory.join("backup_manifest").exists() {
            fs::copy(self.directory.join("backup_manifest"), whole.join("backup_manifest")).unwrap();
        }
        self.tool.give(&whole);
        whole
    }

    /// Every file of the server is in the data directory `whole`, byte for byte; the backup's own files are there; its
    /// manifest, if it has one, says what is there, and PostgreSQL accepts it.
    pub(crate) fn check(&self, whole: &Path, has_wal: bool) {
        assert_eq!(fs::read_to_string(whole.join("PG_VERSION")).unwrap().trim(), self.version().name());
        let label = fs::read_to_string(whole.join("backup_label")).unwrap();
        assert!(label.contains("\nBACKUP METHOD: streamed\n") || self.version() < ServerVersion::V9_2, "{label}");
        let cluster = self.served.server.cluster();
        for entry in ground_truth(cluster).unwrap() {
            let (name, entry) = entry.unwrap();
            let path = whole.join(String::from_utf8(name).unwrap());
            match entry.kind {
                // `-R` appends to this one.
                EntryKind::File { .. } if path.ends_with("postgresql.auto.conf") => {}
                EntryKind::File { size } => {
                    let mut content = vec![0; usize::try_from(size).unwrap()];
                    assert_eq!(cluster.read(&entry, 0, &mut content).unwrap(), content.len());
                    assert!(fs::read(&path).unwrap() == content, "{}", path.display());
                }
                EntryKind::Directory => assert!(path.is_dir(), "{}", path.display()),
                EntryKind::Symlink { .. } | EntryKind::Special => {}
            }
        }
        let wal = fs::read_dir(whole.join(self.version().wal_directory())).unwrap();
        let segments = wal.filter(|entry| entry.as_ref().unwrap().file_name().len() == 24).count();
        assert_eq!(segments > 0, has_wal);
        if whole.join("backup_manifest").exists() {
            check_manifest(whole);
            self.verify(whole, has_wal);
        }
    }

    /// Has `pg_verifybackup` look at a data directory: the tool's own, WAL and all, or the newest that knows the release.
    fn verify(&self, whole: &Path, has_wal: bool) {
        if self.at_home() {
            verify(self.tool, whole, if has_wal { &[] } else { &["-n"] });
        } else if let Some(newest) = self.verifier() {
            verify(&newest, whole, &["-n"]);
        }
    }

    /// Has `pg_verifybackup` 18 look at the archives themselves, if it can.
    pub(crate) fn verify_archives(&self) {
        if let Some(newest) = self.verifier().filter(|newest| newest.major() >= 18) {
            newest.give(&self.directory);
            verify(&newest, &self.directory, &["-n"]);
        }
    }

    fn verifier(&self) -> Option<Installation> {
        match self.version() {
            // Since 17 the verifier reads `pg_control`, of its own release alone.
            ServerVersion::V17 => None,
            version if version < ServerVersion::V13 => None,
            _ => installations("pg_verifybackup").pop(),
        }
    }
}

fn verify(tool: &Installation, directory: &Path, options: &[&str]) {
    let output = succeed(tool.tool("pg_verifybackup").args(options).arg(directory));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "backup successfully verified\n");
}

/// The manifest against what lies there, with nothing of ours in between: names, sizes, and SHA-256 checksums.
fn check_manifest(whole: &Path) {
    let manifest: Value = serde_json::from_slice(&fs::read(whole.join("backup_manifest")).unwrap()).unwrap();
    for file in manifest["Files"].as_array().unwrap() {
        let Some(path) = file["Path"].as_str() else {
            assert!(file["Encoded-Path"].is_string(), "{file}");
            continue;
        };
        let mut content = Vec::new();
        File::open(whole.join(path)).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(file["Size"], content.len(), "{file}");
        if file["Checksum-Algorithm"] == "SHA256" {
            let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(file["Checksum"], digest, "{file}");
        }
    }
}

/// What is in a file, by the end of its name.
pub(crate) fn decompressed(file: File, suffix: &str) -> Box<dyn Read> {
    match suffix {
        ".gz" => Box::new(MultiGzDecoder::new(file)),
        ".lz4" => Box::new(FrameDecoder::new(file)),
        ".zst" => Box::new(zstd::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    }
}
