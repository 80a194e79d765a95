//! What a sound backup holds.

use std::io;
use std::path::Path;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;

use super::directory::Directory;
use super::{Cluster, Entries, Entry, EntryKind, Found, Tablespace};
use crate::server::BackupRecord;

/// Paths, as bytes because they need not be text, and what lies there.
pub type Truth = Box<dyn Iterator<Item = io::Result<(Vec<u8>, Entry)>> + Send>;

/// What a sound backup of `cluster` that starts at the latest checkpoint must hold: see [`ground_truth_at`].
pub fn ground_truth(cluster: &Cluster) -> io::Result<Truth> {
    let latest = cluster.inner.lock().wal.checkpoint_at().redo;
    ground_truth_at(cluster, latest)
}

/// What a sound backup of `cluster` that started at `position` must hold: each entry that is sent with the path of the manifest, in the order of
/// sending, tablespaces first. Paths have no slash at the end and no `./` at the beginning; those of a tablespace begin with
/// `pg_tblspc/<oid>/`. Left out are the files that are different in each backup (`backup_label`, `tablespace_map`,
/// `global/pg_control`), WAL, and what cannot be sent at all.
pub fn ground_truth_at(cluster: &Cluster, position: Lsn) -> io::Result<Truth> {
    let parts = cluster.tablespaces().into_iter().map(|tablespace| Some(tablespace.oid)).chain([None]);
    let mut all: Truth = Box::new(std::iter::empty());
    for part in parts {
        all = Box::new(all.chain(sent(part, cluster.entries_at(part, position)?)));
    }
    Ok(all)
}

/// The same of the data directory at `root`, as it lies there now: of a server that this machine runs, say.
///
/// # Errors
/// Directories that cannot be read.
pub fn ground_truth_of_directory(root: &Path, version: ServerVersion, tablespaces: &[Tablespace]) -> io::Result<Truth> {
    let directory = Directory::new(root.to_owned(), version, tablespaces.to_vec());
    let parts = tablespaces.iter().map(|tablespace| Some(tablespace.oid)).chain([None]);
    let mut all: Truth = Box::new(std::iter::empty());
    for part in parts {
        all = Box::new(all.chain(sent(part, directory.entries(part)?)));
    }
    Ok(all)
}

/// Entries that can be sent, with their paths in the manifest.
fn sent(part: Option<u32>, entries: Entries) -> Truth {
    let entries = entries.filter(|entry| !matches!(entry, Ok(Entry { kind: EntryKind::Special, .. })));
    Box::new(entries.map(move |entry| entry.map(|entry| (path(part, &entry.name), entry))))
}

/// What a sound backup holds as `backup` found the cluster, which may have changed while it ran: see [`ground_truth_at`].
pub fn ground_truth_of(cluster: &Cluster, backup: &BackupRecord) -> io::Result<Truth> {
    let found = backup.found.clone();
    let added: Vec<_> = found.iter().filter(|(_, found)| **found == Found::Added).collect();
    let added: Vec<_> =
        added.into_iter().filter_map(|(path, _)| Some(Ok((path.clone(), cluster.added_file(path)?)))).collect();
    let there = ground_truth_at(cluster, backup.start)?.filter_map(move |entry| match entry {
        Ok((path, entry)) => match found.get(&path) {
            Some(Found::Nothing) => None,
            Some(found) => Some(Ok((path, Cluster::as_found(entry, *found)))),
            None => Some(Ok((path, entry))),
        },
        Err(error) => Some(Err(error)),
    });
    Ok(Box::new(there.chain(added)))
}

/// The path in the manifest of a member of the base archive or of a tablespace's.
fn path(oid: Option<u32>, name: &[u8]) -> Vec<u8> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    oid.map_or_else(|| name.to_vec(), |oid| [format!("pg_tblspc/{oid}/").as_bytes(), name].concat())
}
