//! What of a server's files belongs to a backup: what BASE_BACKUP sends.

use std::collections::{BTreeMap, BTreeSet};

use backstop_protocol::base_backup::exclude;
use backstop_protocol::base_backup::relation::RelationFile;
use backstop_protocol::version::ServerVersion;

use super::files::{CONTROL, Found};
use crate::archive_check::clean_name;
use crate::error::{ClientError, shown};
use crate::receive::Tablespace;

/// Something to make in the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The index of the tablespace whose directory it is in; none for the data directory.
    pub(super) tablespace: Option<usize>,
    /// Its path below that.
    pub(super) name: Vec<u8>,
    /// Its path on the server and in the backup: `pg_tblspc/16400/PG_15_202209061/5/16401`.
    pub(super) path: Vec<u8>,
    /// In bytes; 0 for directories.
    pub(super) size: u64,
    /// When it was changed last, in seconds since 1970.
    pub(super) changed: i64,
    /// Whether an init fork lies beside it.
    pub(super) unlogged: bool,
}

impl Entry {
    /// Whether it is a file of a relation, which WAL repairs.
    pub(super) fn relation(&self) -> Option<RelationFile> {
        RelationFile::parse(&self.path)
    }
}

/// All of it, in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) directories: Vec<Entry>,
    pub(super) files: Vec<Entry>,
}

/// Directories that need not be looked into: their content is not part of a backup.
pub(super) fn closed(version: ServerVersion) -> Vec<Vec<u8>> {
    let wal = version.wal_directory();
    let tops = version.data_directories().into_iter();
    let empty = tops.filter(|name| exclude::sent_empty(name.as_bytes()) || *name == wal || *name == "pg_tblspc");
    empty.map(|name| format!("./{name}").into_bytes()).collect()
}

/// The root of a tablespace's tree; none for one inside the data directory, which has no directory of a release above its own.
pub(super) fn root(tablespace: &Tablespace, version: ServerVersion) -> Vec<u8> {
    let oid = tablespace.oid.unwrap_or_default();
    format!("pg_tblspc/{oid}/{}", version.tablespace_version_directory()).into_bytes()
}

impl Listing {
    /// Adds what was found in the data directory.
    pub(super) fn add_base(&mut self, found: Vec<Found>, version: ServerVersion) -> Result<(), ClientError> {
        self.add(None, b"", found, version)?;
        let wal = version.wal_directory();
        self.directories.push(directory(None, format!("{wal}/archive_status").into_bytes(), b""));
        if version.has_wal_summaries() {
            self.directories.push(directory(None, format!("{wal}/summaries").into_bytes(), b""));
        }
        let has = |name: &str| self.directories.iter().any(|entry| entry.path == name.as_bytes());
        if let Some(missing) = version.required_directories().into_iter().find(|name| !has(name)) {
            return Err(ClientError::Incomplete(format!("the server has no directory \"{missing}\"")));
        }
        if !self.files.iter().any(|entry| entry.path == b"PG_VERSION") {
            return Err(ClientError::Incomplete("the server has no file \"PG_VERSION\"".to_owned()));
        }
        Ok(())
    }

    /// Adds what was found in the tablespace with this index.
    pub(super) fn add_tablespace(
        &mut self,
        index: usize,
        tablespace: &Tablespace,
        found: Vec<Found>,
        version: ServerVersion,
    ) -> Result<(), ClientError> {
        let prefix = format!("pg_tblspc/{}/", tablespace.oid.unwrap_or_default()).into_bytes();
        let top = version.tablespace_version_directory().into_bytes();
        let index = if tablespace.in_place() {
            // Its directory is one of ours.
            let own = prefix.strip_suffix(b"/").unwrap_or(&prefix);
            self.directories.push(directory(None, own.to_vec(), b""));
            None
        } else {
            Some(index)
        };
        self.directories.push(directory(index, top, &prefix));
        self.add(index, &prefix, found, version)
    }

    fn add(
        &mut self,
        tablespace: Option<usize>,
        prefix: &[u8],
        found: Vec<Found>,
        version: ServerVersion,
    ) -> Result<(), ClientError> {
        let mut entries = BTreeMap::new();
        for found in found {
            let below = found.path.strip_prefix(prefix).unwrap_or(&found.path);
            let refused = |problem: String| {
                ClientError::Incomplete(format!("the server lists \"{}\": {problem}", shown(&found.path)))
            };
            let name = clean_name(below, false).map_err(refused)?;
            if entries.insert(name, (found.directory, found.size, found.changed)).is_some() {
                let problem = "the same name for the second time".to_owned();
                return Err(ClientError::Incomplete(format!("the server lists \"{}\": {problem}", shown(&found.path))));
            }
        }
        let unlogged: BTreeSet<(&[u8], &[u8])> = entries
            .keys()
            .filter_map(|name| {
                let (parent, file) = split(name);
                let (number, init) = exclude::relation(file)?;
                init.then_some((parent, number))
            })
            .collect();
        // A directory comes before what is in it, so that it is known whether it is taken along and looked into.
        let mut open: BTreeSet<Vec<u8>> = BTreeSet::from([Vec::new()]);
        if !prefix.is_empty() {
            open.insert(version.tablespace_version_directory().into_bytes());
        }
        for (name, (is_directory, size, changed)) in &entries {
            let (parent, file) = split(name);
            let path = [prefix, name].concat();
            if !open.contains(parent) || exclude::left_out(file, version) || path == CONTROL {
                continue;
            }
            // Names below an in-place tablespace are not relative to its directory.
            let within = [parent, b"/"].concat();
            let in_database = exclude::is_database(&within, version);
            let beside_init = exclude::relation(file).filter(|(number, _)| unlogged.contains(&(parent, *number)));
            let hidden = in_database
                && !is_directory
                && (beside_init.is_some_and(|(_, init)| !init) || exclude::temporary_relation(file));
            if hidden {
                continue;
            }
            let is_wal = prefix.is_empty() && **name == *version.wal_directory().as_bytes();
            let entry = Entry {
                tablespace,
                name: if tablespace.is_some() { name.clone() } else { path.clone() },
                path,
                size: if *is_directory { 0 } else { *size },
                changed: *changed,
                unlogged: beside_init.is_some(),
            };
            if *is_directory || is_wal || exclude::sent_empty(file) {
                if !is_wal && !exclude::sent_empty(file) {
                    open.insert(name.clone());
                }
                self.directories.push(entry);
            } else {
                self.files.push(entry);
            }
        }
        Ok(())
    }
}

fn directory(tablespace: Option<usize>, name: Vec<u8>, prefix: &[u8]) -> Entry {
    let path = [prefix, &name].concat();
    let name = if tablespace.is_some() { name } else { path.clone() };
    Entry { tablespace, name, path, size: 0, changed: 0, unlogged: false }
}

/// The directory part, without its slash, and the last component.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (name.get(..slash).unwrap_or_default(), name.get(slash + 1..).unwrap_or_default()),
        None => (b"", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: ServerVersion = ServerVersion::V15;

    fn found(path: &str) -> Found {
        let (path, directory) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        Found { path: path.into(), directory, size: 8192, changed: 7 }
    }

    fn base(more: &[&str]) -> Result<Listing, ClientError> {
        let directories = VERSION.required_directories().into_iter().map(|name| found(&format!("./{name}/")));
        let files = ["./PG_VERSION"].iter().chain(more).map(|path| found(path));
        let mut listing = Listing::default();
        listing.add_base(directories.chain(files).collect(), VERSION).map(|()| listing)
    }

    fn paths(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
    }

    #[test]
    fn what_base_backup_leaves_out_is_left_out() {
        let listing = base(&[
            "./postmaster.pid",
            "./postgresql.conf",
            "./backup_label",
            "./global/pg_control",
            "./global/pg_internal.init",
            "./global/1262",
            "./base/5/",
            "./base/5/100",
            "./base/5/100_init",
            "./base/5/100_fsm",
            "./base/5/200",
            "./base/5/200_vm",
            "./base/5/t3_300",
            "./base/pgsql_tmp/",
            "./base/pgsql_tmp/pgsql_tmp1.0",
            "./pg_replslot/slot/",
            "./pg_replslot/slot/state",
            "./pg_wal/000000010000000000000001",
            "./mine/",
            "./mine/pg_notify/",
            "./mine/pg_notify/0000",
            "./mine/t3_300",
        ]);
        let listing = listing.expect("a listing");
        let expected = [
            "PG_VERSION",
            "base/5/100_init",
            "base/5/200",
            "base/5/200_vm",
            "global/1262",
            "mine/t3_300",
            "postgresql.conf",
        ];
        assert_eq!(paths(&listing.files), expected);
        let directories = paths(&listing.directories);
        for name in ["pg_wal", "pg_wal/archive_status", "pg_replslot", "mine/pg_notify", "base/5"] {
            assert!(directories.iter().any(|path| path == name), "{name}");
        }
        assert!(!directories.iter().any(|path| path.contains("pgsql_tmp") || path.contains("slot/")));
        assert!(listing.files.iter().all(|entry| entry.unlogged == entry.path.ends_with(b"_init")));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for path in ["./../x", "/etc/passwd", "./base/../../x", "./a\0b", "./base//x", "./base/."] {
            let error = base(&[path]).expect_err(path).to_string();
            assert!(error.starts_with("the server lists \""), "{error}");
        }
        assert!(base(&["./x", "./x"]).is_err());
    }

    #[test]
    fn a_listing_without_the_essential_is_refused() {
        let mut listing = Listing::default();
        let error = listing.add_base(vec![found("./PG_VERSION")], VERSION).expect_err("no directories");
        assert_eq!(error.to_string(), "the server has no directory \"base\"");
    }

    #[test]
    fn tablespaces_keep_their_names() {
        let outside = Tablespace { oid: Some(16400), location: b"/srv/ts".to_vec(), size: None };
        let inside = Tablespace { oid: Some(16401), location: b"pg_tblspc/16401".to_vec(), size: None };
        let mut listing = Listing::default();
        for (index, tablespace) in [&outside, &inside].into_iter().enumerate() {
            let root = String::from_utf8(root(tablespace, VERSION)).expect("text");
            let rows = ["/5/", "/5/100", "/5/t3_100", "/5/200_init", "/5/200"];
            let rows = rows.map(|name| found(&format!("{root}{name}"))).to_vec();
            listing.add_tablespace(index, tablespace, rows, VERSION).expect("a listing");
        }
        let names: Vec<(Option<usize>, String)> = listing
            .files
            .iter()
            .map(|entry| (entry.tablespace, String::from_utf8_lossy(&entry.name).into_owned()))
            .collect();
        let top = VERSION.tablespace_version_directory();
        assert_eq!(
            names,
            [
                (Some(0), format!("{top}/5/100")),
                (Some(0), format!("{top}/5/200_init")),
                (None, format!("pg_tblspc/16401/{top}/5/100")),
                (None, format!("pg_tblspc/16401/{top}/5/200_init")),
            ]
        );
        assert!(paths(&listing.directories).contains(&"pg_tblspc/16401".to_owned()));
    }
}
