//! Starts PostgreSQL on a copy of a backup.
//!
//! The server has a socket and no port, and is asked nothing: that it comes up says that it replayed the backup's WAL to a
//! consistent state and to its end. Then it is stopped, and every page of it is checked, if pages carry checksums.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_protocol::base_backup::tablespace_map::TablespaceMap;
use backstop_protocol::control::ControlFile;
use backstop_protocol::version::ServerVersion;
use tempfile::TempDir;

use super::{Answer, Installation};
use crate::oracle::artifact::{Artifact, Item};

/// How long recovery may take, in seconds: a server that hangs is one that does not start.
const PATIENCE: &str = "300";

/// How many lines of the log are shown.
const SHOWN: usize = 12;

/// Files that would make it something other than a primary, or that are another server's.
const LEFT_OUT: [&str; 6] =
    ["standby.signal", "recovery.signal", "recovery.conf", "postmaster.pid", "postmaster.opts", "backup_manifest"];

/// Files that a server needs and that some installations keep elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// Copies, starts, stops, and checks the pages if that is wanted.
pub(super) fn start(installation: &Installation, version: ServerVersion, artifact: &Artifact, pages: bool) -> Answer {
    if !artifact.problems.is_empty() {
        return Answer::Refused(artifact.problems.join("; "));
    }
    let scratch = match scratch(installation) {
        Ok(scratch) => scratch,
        Err(error) => return Answer::NotAsked(format!("could not make a directory: {error}")),
    };
    let copy = Copy { installation, version, root: scratch.path() };
    match copy.make(artifact) {
        Ok(()) => copy.start(pages),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Answer::Refused(error.to_string()),
        Err(error) => Answer::NotAsked(format!("could not copy the backup: {error}")),
    }
}

/// The path of a socket has about a hundred bytes.
fn scratch(installation: &Installation) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("backstop-").tempdir_in(installation.place())?;
    installation.give(directory.path())?;
    let socket = directory.path().join("s");
    fs::create_dir(&socket)?;
    installation.give(&socket)?;
    Ok(directory)
}

struct Copy<'a> {
    installation: &'a Installation,
    version: ServerVersion,
    root: &'a Path,
}

impl Copy<'_> {
    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    fn log(&self) -> PathBuf {
        self.root.join("s/log")
    }

    /// Copies what was left, tablespaces below the scratch directory, too.
    fn make(&self, artifact: &Artifact) -> io::Result<()> {
        self.directory(&self.data())?;
        for (name, item) in &artifact.items {
            let path = self.place(name)?;
            if LEFT_OUT.iter().any(|left_out| name == left_out.as_bytes()) {
                continue;
            }
            if let Some(oid) = tablespace(name) {
                self.tablespace(oid)?;
            }
            match item {
                Item::Directory => self.directory(&path)?,
                Item::File(content) if name == b"tablespace_map" => {
                    let map = TablespaceMap::parse_as(&content.read(1 << 20)?, self.version);
                    let map = map.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    self.file(&path, &mut &*self.mapped(map).to_bytes(self.version))?;
                }
                Item::File(content) => self.file(&path, &mut content.open()?)?,
                // Elsewhere in the backup, here in its place.
                Item::Symlink(_) if matches!(&name[..], b"pg_wal" | b"pg_xlog") => self.directory(&path)?,
                Item::Symlink(_) if name.starts_with(b"pg_tblspc/") => {}
                Item::Symlink(_) | Item::Other(_) => {
                    let text = format!("\"{}\" is nothing that a data directory holds", name.escape_ascii());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        for name in CONFIGURATION {
            let path = self.data().join(name);
            if !path.exists() {
                self.file(&path, &mut io::empty())?;
            }
        }
        Ok(())
    }

    /// Where a member goes. The names are a client's, who may have believed a hostile server.
    fn place(&self, name: &[u8]) -> io::Result<PathBuf> {
        let relative = Path::new(std::ffi::OsStr::from_bytes(name));
        if relative.components().all(|component| matches!(component, Component::Normal(_))) {
            return Ok(self.data().join(relative));
        }
        let text = format!("\"{}\" leads out of the backup", name.escape_ascii());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// The map, leading into the scratch directory.
    fn mapped(&self, map: TablespaceMap) -> TablespaceMap {
        let here = |oid: u32| self.root.join(oid.to_string()).into_os_string().as_bytes().to_vec();
        TablespaceMap { entries: map.entries.into_iter().map(|(oid, _)| (oid, here(oid))).collect() }
    }

    /// Makes a tablespace's directory and its link, if they are not there.
    fn tablespace(&self, oid: u32) -> io::Result<()> {
        let (place, link) = (self.root.join(oid.to_string()), self.data().join(format!("pg_tblspc/{oid}")));
        if link.exists() {
            return Ok(());
        }
        self.directory(&place)?;
        self.directory(&self.data().join("pg_tblspc"))?;
        symlink(&place, &link)?;
        self.installation.give(&link)
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            self.directory(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path)?;
        self.installation.give(path)
    }

    fn file(&self, path: &Path, content: &mut dyn io::Read) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        let mut file = File::create_new(path)?;
        io::copy(content, &mut file)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        self.installation.give(path)
    }

    fn start(&self, pages: bool) -> Answer {
        let socket = self.root.join("s");
        let sockets =
            if self.version.has_socket_directories() { "unix_socket_directories" } else { "unix_socket_directory" };
        let options = format!(
            "-c {sockets}='{}' -c listen_addresses='' -p 5432 -c fsync=off -c ssl=off -c archive_mode=off \
             -c logging_collector=off -c log_destination=stderr -c shared_preload_libraries=''",
            socket.display()
        );
        let mut start = self.pg_ctl("start");
        start.args(["-w", "-t", PATIENCE, "-o", &options, "-l"]).arg(self.log());
        // A server that keeps a pipe of ours open would keep us waiting.
        let started = start.stdout(Stdio::null()).stderr(Stdio::null()).status();
        // It may be on its way yet when patience ends.
        let stopped = self.pg_ctl("stop").args(["-w", "-m", "fast"]).output();
        let log = self.words(&fs::read(self.log()).unwrap_or_default());
        match started {
            Err(error) => return Answer::NotAsked(format!("could not run pg_ctl: {error}")),
            Ok(status) if !status.success() => {
                return Answer::Refused(format!("PostgreSQL {} does not start: {}", self.version, last_lines(&log)));
            }
            Ok(_) => {}
        }
        if !log.contains("consistent recovery state reached") {
            return Answer::Refused(format!(
                "PostgreSQL {} starts without recovery of a backup: {}",
                self.version,
                last_lines(&log)
            ));
        }
        if !stopped.is_ok_and(|output| output.status.success()) {
            return Answer::Refused(format!("PostgreSQL {} does not stop: {}", self.version, last_lines(&log)));
        }
        if pages {
            return self.check_pages();
        }
        Answer::Accepted(format!("PostgreSQL {} starts on it", self.version))
    }

    /// Whether every page agrees with its checksum.
    fn check_pages(&self) -> Answer {
        let started = format!("PostgreSQL {} starts on it", self.version);
        let control = fs::read(self.data().join("global/pg_control")).unwrap_or_default();
        let checksums = ControlFile::decode(&control).is_ok_and(|control| control.data_checksum_version > 0);
        if !checksums || !self.installation.has("pg_checksums") {
            return Answer::Accepted(started);
        }
        match self.installation.server_tool("pg_checksums").args(["--check", "-D"]).arg(self.data()).output() {
            Ok(output) if output.status.success() => {
                Answer::Accepted(format!("{started}, its pages agree with their checksums"))
            }
            Ok(output) => {
                let said = self.words(&[output.stdout, output.stderr].concat());
                Answer::Refused(format!("pg_checksums: {}", last_lines(&said)))
            }
            Err(error) => Answer::NotAsked(format!("could not run pg_checksums: {error}")),
        }
    }

    fn pg_ctl(&self, command: &str) -> Command {
        let mut pg_ctl = self.installation.server_tool("pg_ctl");
        pg_ctl.args([command, "-s", "-D"]).arg(self.data());
        pg_ctl
    }

    /// What PostgreSQL said, without the place where the copy happened to be.
    fn words(&self, said: &[u8]) -> String {
        String::from_utf8_lossy(said).replace(&format!("{}/", self.root.display()), "")
    }
}

/// The tablespace of a name below `pg_tblspc`.
fn tablespace(name: &[u8]) -> Option<u32> {
    let rest = str::from_utf8(name).ok()?.strip_prefix("pg_tblspc/")?;
    rest.split('/').next()?.parse().ok()
}

/// The end of a log, without times and process ids.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
    let without_prefix = |line: &&str| line.split_once("] ").map_or(*line, |(_, words)| words).trim().to_owned();
    shown.iter().map(without_prefix).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_without_times() {
        let log = "2026-11-21 10:00:00 UTC [7] LOG:  one\n\n2026-11-21 10:00:00 UTC [7] FATAL:  two\nHINT:  three\n";
        assert_eq!(last_lines(log), "LOG:  one; FATAL:  two; HINT:  three");
        assert_eq!(tablespace(b"pg_tblspc/16400/PG_15/1"), Some(16_400));
        assert_eq!(tablespace(b"pg_tblspc"), None);
    }
}
