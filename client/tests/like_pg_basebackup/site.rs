//! A server with tablespaces, and both tools beside it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, PORT, Postgres, reachable, succeed};
use tempfile::TempDir;

/// Which tool is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Ours,
    Theirs,
}

/// Everything for one release.
pub(crate) struct Site {
    pub(crate) installation: Installation,
    pub(crate) server: Postgres,
    ours: PathBuf,
    // Last: it holds everything above.
    scratch: TempDir,
}

impl Site {
    /// A server that nobody else works with: what two backups of it hold differs only in what backups do themselves.
    pub(crate) fn new(major: u16, settings: &[&str]) -> Option<Self> {
        Self::on(major, settings, &[])
    }

    /// The same on a cluster that was made with more options of `initdb`.
    pub(crate) fn on(major: u16, settings: &[&str], initdb: &[&str]) -> Option<Self> {
        let installation = Installation::find_release(major, "a client in pg_basebackup's place")?;
        let scratch = installation.scratch();
        let quiet = ["autovacuum = off", "bgwriter_lru_maxpages = 0", "allow_in_place_tablespaces = on"];
        let server = Postgres::on(&installation, scratch.path(), &[&quiet[..], settings].concat(), initdb);
        let ours = scratch.path().join("bin");
        std::fs::create_dir(&ours).unwrap();
        std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), &ours);
        // Under these names it is the tools.
        std::fs::rename(copy, ours.join("pg_basebackup")).unwrap();
        std::fs::hard_link(ours.join("pg_basebackup"), ours.join("pg_combinebackup")).unwrap();
        let site = Self { installation, server, ours, scratch };
        let location = site.path("ts");
        std::fs::create_dir(&location).unwrap();
        site.installation.give(&location);
        site.server.sql(&format!("create tablespace ts location '{}'", location.display()));
        site.server.sql("create tablespace inside location ''");
        site.server.sql("create table t as select i, repeat(md5(i::text), 8) as x from generate_series(1, 10000) as i");
        site.server.sql("create table u tablespace ts as select generate_series(1, 3000) as i");
        site.server.sql("create table v tablespace inside as select generate_series(1, 3000) as i");
        site.server.sql("vacuum freeze");
        site.server.sql("checkpoint");
        Some(site)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A tool by its name alone.
    pub(crate) fn named(&self, tool: Tool, name: &str) -> Command {
        match tool {
            Tool::Ours => self.installation.command(self.ours.join(name)),
            Tool::Theirs => self.installation.tool(name),
        }
    }

    /// The tool as a user of the server would call it.
    pub(crate) fn tool(&self, tool: Tool, arguments: &[&str]) -> Command {
        let mut command = self.named(tool, "pg_basebackup");
        command.env("PGHOST", self.server.socket()).env("PGUSER", "postgres").env("PGPORT", PORT.to_string());
        if self.installation.major() > 15 {
            // These builds know no encryption, so that the defaults of their libpq are others.
            for variable in ["PGSSLMODE", "PGCHANNELBINDING", "PGSSLCERTMODE", "PGGSSENCMODE"] {
                command.env(variable, "disable");
            }
        }
        command.args(arguments);
        command
    }

    /// A backup at `name` with a fast checkpoint and without waiting for the disk.
    pub(crate) fn back_up(&self, tool: Tool, name: &str, arguments: &[&str]) -> PathBuf {
        let target = self.path(name);
        let mapping = format!("{}={}", self.path("ts").display(), self.path(&format!("{name}.ts")).display());
        let mut command = self.tool(tool, &["-c", "fast", "-N", "-D", target.to_str().unwrap(), "-T", &mapping]);
        succeed(command.args(arguments));
        target
    }

    /// An attempt at a backup into `name`, which is the same for both tools: they tell of it.
    pub(crate) fn attempt(&self, tool: Tool, name: &str, arguments: &[&str]) -> Command {
        let target = self.path(name);
        let mapping = format!("{}={}", self.path("ts").display(), self.space(name).display());
        let mut command = self.tool(tool, &["-c", "fast", "-N", "-D", target.to_str().unwrap(), "-T", &mapping]);
        command.args(arguments);
        command
    }

    /// The tablespace of the backup that is called so.
    pub(crate) fn space(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.ts"))
    }

    /// An attempt that fails and leaves nothing: what was said of it.
    pub(crate) fn fails(&self, tool: Tool, name: &str, arguments: &[&str]) -> String {
        let output = self.attempt(tool, name, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{tool:?} {arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{tool:?} {arguments:?}");
        self.assert_gone(tool, name);
        without_remains(&said(&output))
    }

    /// Nothing is left of a backup. Theirs leaves the directories of tablespaces.
    pub(crate) fn assert_gone(&self, tool: Tool, name: &str) {
        if tool == Tool::Theirs && self.space(name).exists() {
            std::fs::remove_dir_all(self.space(name)).unwrap();
        }
        for place in [self.path(name), self.space(name)] {
            assert!(!place.exists(), "{tool:?}: {}", place.display());
        }
    }

    pub(crate) fn refused(&self, tool: Tool, arguments: &[&str]) -> String {
        let output = self.tool(tool, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{tool:?} {arguments:?}: {}", said(&output));
        said(&output)
    }

    /// The object identifier of the tablespace outside the data directory.
    pub(crate) fn oid(&self, tablespace: &str) -> String {
        self.server.sql(&format!("select oid from pg_tablespace where spcname = '{tablespace}'"))
    }

    /// Asks until the answer is this one.
    pub(crate) fn until(&self, query: &str, answer: &str) {
        while self.server.sql(query) != answer {}
    }

    /// No walsender is left of the tools that have ended.
    pub(crate) fn quiet(&self) {
        self.until("select count(*) from pg_stat_activity where backend_type = 'walsender'", "0");
    }

    /// PostgreSQL's verifier on a plain backup.
    pub(crate) fn verify(&self, backup: &Path, arguments: &[&str]) {
        succeed(self.installation.tool("pg_verifybackup").arg(backup).args(arguments));
    }
}

/// What a tool printed on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was said, without what theirs alone has to say: that it leaves the directories of tablespaces as they are.
pub(crate) fn without_remains(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.ends_with("tablespace directories will not be undone\n")).collect()
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What lies under a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    File { mode: u32, content: Vec<u8> },
    Directory { mode: u32 },
    Link { target: PathBuf },
}

/// Everything in a directory, links not followed.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Item> {
    let mut tree = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.mode() & 0o7777;
            let item = if metadata.is_symlink() {
                Item::Link { target: std::fs::read_link(&path).unwrap() }
            } else if metadata.is_dir() {
                open.push(path.clone());
                Item::Directory { mode }
            } else {
                Item::File { mode, content: std::fs::read(&path).unwrap() }
            };
            tree.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), item);
        }
    }
    tree
}
