//! An unmodified `pg_basebackup` takes backups from `backstop serve` in every way it has, and PostgreSQL's own verifier
//! accepts them: every file and, from a server of its own release, every record of WAL.

mod support;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use backstop_scenarios::postgres::{Installation, succeed};
use support::Serving;

const TABLESPACES: [(u32, &str); 2] = [(16400, "/srv/tablespaces/fast"), (16401, "/srv/tablespaces/large")];

/// One server, and one backup of it.
struct Backup<'a> {
    installation: &'a Installation,
    version: &'a str,
    port: u16,
    tablespaces: &'a [(u32, &'a str)],
    format: &'a str,
    wal: &'a str,
    /// Where it goes; tablespaces go beside it.
    directory: PathBuf,
}

impl Backup<'_> {
    fn space(&self, oid: u32) -> PathBuf {
        self.directory.with_extension(oid.to_string())
    }

    /// Takes the backup and returns where it lies as a data directory.
    fn take(&self) -> PathBuf {
        let mut command = self.installation.tool("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "x", "-P", "-v", "--no-sync"]);
        command.args(["-F", self.format, "-X", self.wal, "-D"]).arg(&self.directory);
        if self.format == "plain" {
            for (oid, location) in self.tablespaces {
                let mut mapping = OsString::from(format!("{location}="));
                mapping.push(self.space(*oid));
                command.arg("-T").arg(mapping);
            }
        }
        let output = succeed(&mut command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.ends_with("pg_basebackup: base backup completed\n"), "{said}");
        let spaces = format!("(100%), {0}/{0} tablespace", self.tablespaces.len() + 1);
        assert!(said.contains(&spaces), "{said}");
        if self.format == "plain" { self.directory.clone() } else { self.unpack() }
    }

    /// What a person does with the archives, with a reader that is not ours.
    fn unpack(&self) -> PathBuf {
        let whole = self.directory.with_extension("unpacked");
        let unpack = |archive: &str, into: PathBuf| {
            fs::create_dir_all(&into).expect("a directory");
            let file = File::open(self.directory.join(archive)).expect("an archive");
            tar::Archive::new(file).unpack(into).expect("a sound archive");
        };
        unpack("base.tar", whole.clone());
        for (oid, _) in self.tablespaces {
            unpack(&format!("{oid}.tar"), whole.join(format!("pg_tblspc/{oid}")));
        }
        if self.wal == "stream" {
            unpack("pg_wal.tar", whole.join("pg_wal"));
        }
        if self.has_manifest() {
            fs::copy(self.directory.join("backup_manifest"), whole.join("backup_manifest")).expect("the manifest");
        }
        self.installation.give(&whole);
        whole
    }

    fn has_manifest(&self) -> bool {
        self.version != "12"
    }

    fn verify(&self, data: &Path) {
        assert_eq!(fs::read_to_string(data.join("PG_VERSION")).expect("a file").trim(), self.version);
        assert!(data.join("backup_label").is_file());
        for (oid, _) in self.tablespaces {
            let below = data.join(format!("pg_tblspc/{oid}"));
            assert_eq!(below.is_symlink(), self.format == "plain");
            assert!(below.is_dir());
        }
        if !self.has_manifest() {
            return;
        }
        let verify = |arguments: &[&str]| {
            let output = succeed(self.installation.tool("pg_verifybackup").args(arguments).arg(data));
            assert_eq!(String::from_utf8_lossy(&output.stdout), "backup successfully verified\n");
        };
        verify(&["-n"]);
        // pg_waldump reads the WAL of its own release alone.
        if self.version == "15" && self.wal != "none" {
            verify(&[]);
        }
    }
}

/// Every format and WAL method, with tablespaces and without.
fn every_way(version: &str, settings: &str) {
    let Some(installation) = Installation::find("pg_basebackup against the mock") else { return };
    for tablespaces in [&[][..], &TABLESPACES] {
        let scratch = installation.scratch();
        let spaces: String = tablespaces
            .iter()
            .map(|(oid, location)| {
                format!("[[cluster.tablespace]]\noid = {oid}\nlocation = \"{location}\"\nsize = \"256KiB\"\n")
            })
            .collect();
        let scenario = format!(
            "summary = \"A sound server\"\nbecause = \"It must be taken for one\"\n\
             [server]\nversion = \"{version}\"\n{settings}[cluster]\nsize = \"2MiB\"\n{spaces}"
        );
        let server = Serving::start(scratch.path(), "sound", &scenario);
        for format in ["plain", "tar"] {
            for wal in ["stream", "fetch", "none"] {
                let backup = Backup {
                    installation: &installation,
                    version,
                    port: server.port,
                    tablespaces,
                    format,
                    wal,
                    directory: scratch.path().join(format!("{format}-{wal}")),
                };
                let data = backup.take();
                backup.verify(&data);
            }
        }
    }
}

#[test]
fn from_a_server_of_its_own_release() {
    every_way("15", "");
}

#[test]
fn from_a_server_of_its_own_release_with_small_segments() {
    every_way("15", "wal-segment-size = \"1MiB\"\n");
}

#[test]
fn from_14() {
    every_way("14", "wal-segment-size = \"1MiB\"\n");
}

#[test]
fn from_13() {
    every_way("13", "wal-segment-size = \"1MiB\"\n");
}

#[test]
fn from_12() {
    every_way("12", "wal-segment-size = \"1MiB\"\n");
}
