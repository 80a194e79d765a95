//! A server with short segments, and both tools beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER, reachable};
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use tempfile::TempDir;

pub(crate) const RELEASES: [u16; 3] = [15, 16, 18];

/// What makes archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Ours,
    Theirs,
}

/// A server with segments of 1 MiB, all of which it keeps.
pub(crate) struct Setup {
    pub(crate) installation: Installation,
    pub(crate) server: Postgres,
    client: PathBuf,
    // Last: it holds everything above.
    pub(crate) scratch: TempDir,
}

impl Setup {
    pub(crate) fn new(release: u16) -> Option<Self> {
        let installation = Installation::find_release(release, "archives of a real server")?;
        let scratch = installation.scratch();
        let data = scratch.path().join("data");
        installation.initdb(&data, &["--wal-segsize=1"]);
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).unwrap();
        let settings = "wal_level = replica\nwal_keep_size = 512MB\nmax_wal_size = 512MB\nautovacuum = off\n";
        fs::write(conf, text + settings).unwrap();
        let server = Postgres::start(&installation, &data, &scratch.path().join("s"));
        let program = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
        // Called by this name, it is this tool.
        let client = scratch.path().join("pg_receivewal");
        fs::rename(program, &client).unwrap();
        server.sql("create table t (i int, filler text)");
        Some(Self { installation, server, client, scratch })
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.scratch.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        self.installation.give(&directory);
        directory
    }

    pub(crate) fn tool(&self, tool: Tool, server: &Postgres, options: &[&str]) -> Command {
        let mut command = match tool {
            Tool::Ours => self.installation.command(&self.client),
            Tool::Theirs => self.installation.tool("pg_receivewal"),
        };
        command.arg("-h").arg(server.socket()).args(["-p", &PORT.to_string(), "-U", USER]).args(options);
        command
    }

    /// About so many MiB of WAL.
    pub(crate) fn write(&self, megabytes: u32) {
        let rows = megabytes * 4000;
        self.server.sql(&format!("insert into t select i, repeat('x', 150) from generate_series(1, {rows}) i"));
    }

    /// A position that has been passed.
    pub(crate) fn position(&self) -> String {
        let position = self.server.sql("select pg_current_wal_insert_lsn()");
        self.server.sql("insert into t select i, '' from generate_series(1, 100) i");
        position
    }

    /// Every complete segment in `archive` is the server's.
    pub(crate) fn assert_is_the_servers(&self, archive: &Path) {
        for (name, content) in files(archive).into_iter().filter(|(name, _)| is_segment(name)) {
            let theirs = fs::read(self.server.data().join("pg_wal").join(&name)).unwrap();
            assert!(content == theirs, "{name}");
        }
    }
}

pub(crate) fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What lies in an archive, without compression and its suffixes.
pub(crate) fn files(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: fs::DirEntry| {
        let (name, mut content) = (entry.file_name().into_string().unwrap(), Vec::new());
        let file = fs::File::open(entry.path()).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let mut reader: Box<dyn Read> = match name.split('.').nth(1) {
            Some("gz") => Box::new(MultiGzDecoder::new(file)),
            Some("lz4") => Box::new(FrameDecoder::new(file)),
            _ => Box::new(file),
        };
        reader.read_to_end(&mut content).unwrap();
        (name.replace(".gz", "").replace(".lz4", ""), content)
    };
    fs::read_dir(archive).unwrap().map(|entry| read(entry.unwrap())).collect()
}

pub(crate) fn names(archive: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The lines of standard error. A line that is told twice counts once: `pg_receivewal` says twice that it stopped.
pub(crate) fn said(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('\t')) {
        if !lines.iter().any(|told| told == line) {
            lines.push(line.to_owned());
        }
    }
    lines
}
