//! The data that is copied.

use std::fs;
use std::path::{Path, PathBuf};

use backstop_scenarios::postgres::{Installation, Postgres, succeed};
use tempfile::TempDir;

use super::servers::{Real, Serves as _};
use super::{CompareError, Programs};

/// About what one row of the table takes on disk, in bytes.
const ROW: u64 = 300;

/// Several, as in every database: what works on files in parallel has something to do.
const TABLES: [&str; 4] = ["rows", "more_rows", "other_rows", "last_rows"];

/// Nothing happens in the background, and WAL is there as long as it is needed.
const SETTINGS: [&str; 6] = [
    "autovacuum = off",
    "shared_buffers = '256MB'",
    "max_wal_size = '8GB'",
    "full_page_writes = off",
    "wal_keep_size = '4GB'",
    "bgwriter_delay = '10s'",
];

/// A real cluster that nobody uses.
#[derive(Debug)]
pub(super) struct Cluster {
    release: Installation,
    scratch: TempDir,
    /// Bytes of its archive.
    pub(super) bytes: u64,
}

impl Cluster {
    /// Makes one with tables of about `bytes`.
    pub(super) fn make(release: &Installation, bytes: u64) -> Result<Self, CompareError> {
        let scratch = release.scratch();
        let mut settings = SETTINGS.to_vec();
        if release.major() >= 17 {
            settings.push("summarize_wal = on");
        }
        let server = Postgres::new(release, scratch.path(), &settings);
        for table in TABLES {
            let rows = bytes / ROW / TABLES.len() as u64;
            server.sql(&format!(
                "create table {table} as select id, md5(id::text) || md5((id + 1)::text) || md5((id + 2)::text) || md5((id + 3)::text) \
                 || md5((id + 4)::text) || md5((id + 5)::text) || md5((id + 6)::text) || md5((id + 7)::text) as filler \
                 from generate_series(1, {rows}) as id"
            ));
        }
        server.sql("vacuum freeze");
        server.sql("checkpoint");
        server.stop();
        drop(server);
        let mut cluster = Self { release: release.clone(), scratch, bytes: 0 };
        cluster.bytes = cluster.archive_size()?;
        Ok(cluster)
    }

    /// Starts its server.
    pub(super) fn start(&self) -> Result<Real, CompareError> {
        Real::start(&self.release, &self.data(), &self.scratch.path().join("s"))
    }

    /// The same without tying it to one core.
    pub(super) fn start_on_all_cores(&self) -> Result<Real, CompareError> {
        Real::start_on_all_cores(&self.release, &self.data(), &self.scratch.path().join("s"))
    }

    /// Its data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// Puts so many files of 4 kB into a directory of the cluster, as schemas with many small tables do.
    pub(super) fn add_small_files(&self, files: u32) -> Result<(), CompareError> {
        let directory = self.data().join("base/4000000000");
        let io = |what| CompareError::io(what, &directory);
        fs::create_dir(&directory).map_err(io("could not make"))?;
        for file in 0..files {
            let content = [u8::try_from(file % 251).unwrap_or_default(); 4096];
            fs::write(directory.join(file.to_string()), content).map_err(io("could not write to"))?;
        }
        self.release.give(&directory);
        Ok(())
    }

    fn archive_size(&self) -> Result<u64, CompareError> {
        let server = self.start()?;
        let target = self.scratch.path().join("sized");
        let mut backup = Programs::theirs(&self.release, "pg_basebackup");
        backup.args(server.arguments()).args(["-Ft", "-Xnone", "-cfast", "-N", "--no-manifest", "-D"]).arg(&target);
        succeed(&mut backup);
        let archive = target.join("base.tar");
        let size = fs::metadata(&archive).map_err(CompareError::io("could not size", &archive))?.len();
        fs::remove_dir_all(&target).map_err(CompareError::io("could not remove", &target))?;
        Ok(size)
    }
}

/// A scenario in which nothing happens.
pub(super) fn scenario(version: u16, bytes: u64) -> String {
    format!(
        "summary = \"A quiet server\"\nbecause = \"It is measured\"\n[server]\nversion = \"{version}\"\n[cluster]\nsize = \"{}MiB\"\n\
         [[client]]\nname = \"backup\"\n",
        (bytes >> 20).max(1)
    )
}

/// Bytes of all files below a directory.
pub(super) fn size_of(directory: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}
