//! What lies in a data directory, by release.

use super::ServerVersion;

impl ServerVersion {
    /// The only directory inside a tablespace that belongs to this release: `PG_15_202209061`.
    pub fn tablespace_version_directory(self) -> String {
        format!("PG_{}_{}", self.name(), self.catalog_version())
    }

    /// The directory of the WAL below the data directory: `pg_xlog` before 10.
    pub fn wal_directory(self) -> &'static str {
        if self >= Self::V10 { "pg_wal" } else { "pg_xlog" }
    }

    /// The OIDs of `template0` and `postgres`, fixed since 15; before, those of the recordings.
    pub fn initial_databases(self) -> [u32; 2] {
        match self {
            Self::V14 => [13_694, 13_695],
            Self::V13 => [13_382, 13_383],
            older if older < Self::V13 => [13_395, 13_396],
            _ => [4, 5],
        }
    }

    /// The directories beside `base` and `global` in a data directory, in the order of their names.
    pub fn data_directories(self) -> Vec<&'static str> {
        let since = |release: Self, name| (self >= release).then_some(name);
        let directories = [
            since(Self::V9_5, "pg_commit_ts"),
            (self < Self::V10).then_some("pg_clog"),
            since(Self::V9_4, "pg_dynshmem"),
            since(Self::V9_4, "pg_logical"),
            Some("pg_multixact"),
            Some("pg_notify"),
            since(Self::V9_4, "pg_replslot"),
            Some("pg_serial"),
            since(Self::V9_2, "pg_snapshots"),
            since(Self::V9_3, "pg_stat"),
            Some("pg_stat_tmp"),
            Some("pg_subtrans"),
            Some("pg_tblspc"),
            Some("pg_twophase"),
            since(Self::V10, "pg_wal"),
            since(Self::V10, "pg_xact"),
            (self < Self::V10).then_some("pg_xlog"),
        ];
        directories.into_iter().flatten().collect()
    }

    /// The directories without which a data directory is none: [those at its top](Self::data_directories), `base` and
    /// `global`, and those in `pg_logical` and `pg_multixact`. A backup holds them all, empty as most of them are, and no
    /// manifest lists them. A server that starts makes `archive_status` and `summaries` of its WAL anew, so that they are not
    /// among them.
    pub fn required_directories(self) -> Vec<&'static str> {
        let mut directories = vec!["base", "global"];
        for directory in self.data_directories() {
            directories.push(directory);
            directories.extend_from_slice(match directory {
                "pg_logical" => &["pg_logical/mappings", "pg_logical/snapshots"],
                "pg_multixact" => &["pg_multixact/members", "pg_multixact/offsets"],
                _ => &[],
            });
        }
        directories
    }

    /// The directory of the commit log: `pg_clog` before 10.
    pub fn commit_status_directory(self) -> &'static str {
        if self >= Self::V10 { "pg_xact" } else { "pg_clog" }
    }

    /// Whether there is `postgresql.auto.conf`.
    pub fn has_auto_conf(self) -> bool {
        self >= Self::V9_4
    }

    /// Whether data pages can carry checksums (`initdb --data-checksums`).
    pub fn has_data_checksums(self) -> bool {
        self >= Self::V9_3
    }

    /// Whether `standby.signal` makes a standby, instead of `recovery.conf`.
    pub fn has_signal_files(self) -> bool {
        self >= Self::V12
    }

    /// Whether a tablespace can be a directory in `pg_tblspc` (`allow_in_place_tablespaces`).
    pub fn has_in_place_tablespaces(self) -> bool {
        self >= Self::V15
    }

    /// How many relations a `pg_filenode.map` has room for (`MAX_MAPPINGS`).
    pub fn relation_map_entries(self) -> usize {
        if self >= Self::V16 { 64 } else { 62 }
    }

    /// Bytes after the CRC of a `pg_filenode.map`.
    pub fn relation_map_padding(self) -> usize {
        if self >= Self::V16 { 0 } else { 4 }
    }

    /// Whether `pg_wal/summaries` exists.
    pub fn has_wal_summaries(self) -> bool {
        self >= Self::V17
    }

    /// Whether `data_directory_mode` exists: since 11 the group may be allowed to read a data directory.
    pub fn has_group_access(self) -> bool {
        self >= Self::V11
    }

    /// Whether a standby is made by `standby.signal` and settings in `postgresql.auto.conf`, not by `recovery.conf`.
    pub fn has_recovery_signal(self) -> bool {
        self >= Self::V12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_version_directory() {
        assert_eq!(ServerVersion::V18.tablespace_version_directory(), "PG_18_202506291");
    }

    #[test]
    fn directories_come_after_the_one_that_they_are_in() {
        for version in ServerVersion::ALL {
            let directories = version.required_directories();
            assert!(version.data_directories().iter().all(|directory| directories.contains(directory)));
            for (index, directory) in directories.iter().enumerate() {
                let parent = directory.rsplit_once('/').map(|(parent, _)| parent);
                assert!(parent.is_none_or(|parent| directories[..index].contains(&parent)), "{directory}");
            }
        }
    }
}
