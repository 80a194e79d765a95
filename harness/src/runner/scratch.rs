//! Where cases happen that nobody wants to keep: in memory where there is room, else in the temporary directory.
//!
//! A case makes and removes some hundred small files. File systems on disks are slow at that, some of them very: ext4
//! without a journal keeps away from inodes that were freed within the last seconds, and looks through all of them for each new
//! file. Nothing here has to outlive the machine.

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use backstop_mock::config::Source;
use rustix::fs::{FsWord, StatVfs, statfs, statvfs};
use tempfile::TempDir;

use crate::scenario::Case;
use crate::scenario::model::FileKind;
use crate::survivor::Survivor;

/// A file system in memory, on every Linux.
const MEMORY: &str = "/dev/shm";

/// `f_type` of a tmpfs: TMPFS_MAGIC in linux/magic.h.
const TMPFS: FsWord = 0x0102_1994;

/// So many segments of WAL are made room for, for each client.
const SEGMENTS: u64 = 4;

/// For names, directories, and what else a cluster has that is not in its size.
const OVERHEAD: u64 = 2 << 20;

/// Removes what begins with one of its arguments, however long somebody still writes there, and whatever a client made of its rights.
const REMOVE: &str = r#"
tries=0
found=yes
while [ -n "$found" ] && [ "$tries" -lt 100 ]; do
    found=
    for beginning in "$@"; do
        for directory in "$beginning"*; do
            if [ -e "$directory" ]; then
                found=yes
                rm -rf -- "$directory" || chmod -R u+rwx -- "$directory"
            fi
        done
    done
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// Where cases happen.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Chosen by the user: there and nowhere else.
    chosen: Option<PathBuf>,
    /// In memory.
    memory: Option<PathBuf>,
    /// How many cases may need room at the same time.
    jobs: u64,
    /// How the names of its directories begin, and nobody else's.
    prefix: String,
}

impl Default for Scratch {
    /// For as many cases at a time as there are processors.
    fn default() -> Self {
        Self::new(None, std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }
}

impl Scratch {
    /// In `chosen`, or else wherever there is room for `jobs` cases at a time.
    pub fn new(chosen: Option<PathBuf>, jobs: usize) -> Self {
        let memory = Path::new(MEMORY);
        let is_memory = statfs(memory).is_ok_and(|found| found.f_type == TMPFS);
        let prefix = format!("backstop-{:08x}-", RandomState::new().hash_one(()) >> 32);
        Self { chosen, memory: is_memory.then(|| memory.to_owned()), jobs: jobs as u64, prefix }
    }

    /// What removes the directories if this process is killed.
    pub(super) fn survivor(&self) -> io::Result<Survivor> {
        let parents = match &self.chosen {
            Some(chosen) => vec![std::path::absolute(chosen)?],
            None => self.memory.iter().cloned().chain([env::temp_dir()]).collect(),
        };
        let beginnings: Vec<_> = parents.iter().map(|parent| parent.join(&self.prefix)).collect();
        Survivor::start(REMOVE, beginnings.iter().map(|beginning| beginning.as_os_str()))
    }

    /// Makes a directory for `case`, which goes with the value.
    pub(super) fn directory(&self, case: &Case) -> io::Result<TempDir> {
        let make = |parent: &Path| {
            let made = tempfile::Builder::new().prefix(&self.prefix).tempdir_in(parent);
            made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", parent.display())))
        };
        if let Some(chosen) = &self.chosen {
            return make(chosen);
        }
        let wanted = need(case).saturating_mul(2).saturating_mul(self.jobs);
        let memory =
            self.memory.as_deref().filter(|memory| statvfs(*memory).is_ok_and(|found| has_room(&found, wanted)));
        // There may be a memory that is not ours to write to.
        memory.map(make).and_then(Result::ok).map_or_else(|| make(&env::temp_dir()), Ok)
    }
}

fn has_room(found: &StatVfs, wanted: u64) -> bool {
    found.f_bavail.saturating_mul(found.f_frsize) >= wanted
}

/// How much the clients of a case may write, in bytes: an estimate from above, unless WAL flows without end. Of a data
/// directory nothing is known.
fn need(case: &Case) -> u64 {
    let scenario = &case.scenario;
    if scenario.cluster.source != Source::Synthetic {
        return u64::MAX;
    }
    let tablespaces = scenario.cluster.tablespaces.iter().map(|tablespace| tablespace.size.0);
    let files = scenario.cluster.files.iter().map(|file| match file.kind {
        FileKind::Sparse(size) => size.0,
        FileKind::Text(_) | FileKind::Directory | FileKind::Special => 0,
    });
    let cluster = tablespaces.chain(files).fold(scenario.cluster.size.0, u64::saturating_add);
    let wal = scenario.server.wal_segment_size.0.saturating_mul(SEGMENTS);
    let each = cluster.saturating_add(wal).saturating_add(OVERHEAD);
    each.saturating_mul(scenario.clients.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::document::SourceFile;
    use crate::scenario::load;

    fn case(keys: &str) -> Case {
        let text = format!("summary = \"s\"\nbecause = \"b\"\n{keys}");
        let file = SourceFile { path: "case.toml".into(), text: text.into() };
        load::read("case", &file).expect("a scenario").remove(0)
    }

    #[test]
    fn what_is_chosen_is_taken_and_an_error_names_it() {
        let chosen = tempfile::tempdir().expect("a directory");
        let scratch = Scratch::new(Some(chosen.path().to_owned()), 1);
        let made = scratch.directory(&case("")).expect("a directory");
        assert_eq!(made.path().parent(), Some(chosen.path()));
        let nowhere = Scratch::new(Some(chosen.path().join("nowhere")), 1).directory(&case(""));
        let error = nowhere.expect_err("there is no such directory").to_string();
        assert!(error.contains("nowhere"), "{error}");
    }

    #[test]
    fn a_case_too_large_for_memory_happens_on_disk() {
        let memory = tempfile::tempdir().expect("a directory");
        let scratch = Scratch { memory: Some(memory.path().to_owned()), ..Scratch::new(None, 2) };
        let place = |keys| {
            let made = scratch.directory(&case(keys)).expect("a directory");
            made.path().parent().map(Path::to_owned)
        };
        assert_eq!(place("[cluster]\nsize = \"64KiB\"\n").as_deref(), Some(memory.path()));
        assert_eq!(place("[cluster]\nsize = \"4096TiB\"\n"), Some(env::temp_dir()));
        // Memory that cannot be written to is none.
        let missing = Scratch { memory: Some(memory.path().join("missing")), ..scratch.clone() };
        let made = missing.directory(&case("")).expect("a directory");
        assert_eq!(made.path().parent(), Some(&*env::temp_dir()));
    }

    #[test]
    fn every_client_needs_room_for_the_cluster_and_its_wal() {
        let keys = "[server]\nwal-segment-size = \"1MiB\"\n[cluster]\nsize = \"512KiB\"\n\
            [[cluster.tablespace]]\noid = 16400\nlocation = \"/srv/a\"\nsize = \"1MiB\"\n";
        let one = need(&case(keys));
        assert_eq!(one, (512 << 10) + (1 << 20) + (4 << 20) + OVERHEAD);
        let two = need(&case(&format!("{keys}[[client]]\nname = \"a\"\n[[client]]\nname = \"b\"\n")));
        assert_eq!(two, 2 * one);
    }
}
